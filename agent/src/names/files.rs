//! The system's files about names: `/etc/hosts` (`man 5 hosts`) and
//! `/etc/resolv.conf` (`man 5 resolv.conf`).
//!
//! Both are read anew for each look-up, so that a file which DHCP rewrites counts at
//! once. The hosts file may be a block list of megabytes, and a look-up may come every
//! second while a name has no address: it is searched for one name, not kept, and both
//! are read where waiting for a disk holds nobody up.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Read as _},
    net::IpAddr,
    path::Path,
    time::Duration,
};

use hickory_resolver::proto::rr::Name;

use super::NameError;

/// Most bytes that are read of either file.
const HOSTS_MAX_BYTES: u64 = 16 << 20;
const RESOLV_CONF_MAX_BYTES: u64 = 1 << 16;
/// As in glibc (`MAXNS`, and `MAXDNSRCH` before 2.26).
const SERVERS_MAX: usize = 3;
const SEARCH_MAX: usize = 6;
/// Wait for a server; resolv.conf may ask for less.
const TIMEOUT_MAX_S: u32 = 5;
/// Times that a server is asked; resolv.conf may ask for less.
const ATTEMPTS_MAX: u32 = 2;

/// What resolv.conf says, within bounds.
#[derive(Debug)]
pub(super) struct ResolvConf {
    pub(super) servers: Vec<IpAddr>,
    search: Vec<Name>,
    ndots: usize,
    /// Wait for an answer, each time that a server is asked.
    pub(super) timeout: Duration,
    /// Times that a server is asked.
    pub(super) attempts: usize,
    pub(super) edns0: bool,
    /// Ask by TCP only.
    pub(super) tcp: bool,
}

impl ResolvConf {
    pub(super) fn read(path: &Path, host: &str) -> Result<Self, NameError> {
        let mut bytes = Vec::new();
        File::open(path)
            .and_then(|file| file.take(RESOLV_CONF_MAX_BYTES).read_to_end(&mut bytes))
            .map_err(|cause| NameError::NoConfiguration {
                host: host.to_owned(),
                path: path.to_owned(),
                cause: cause.to_string(),
            })?;
        // What is not understood is skipped, as glibc does.
        let (parsed, _) = resolv_conf::Config::parse_with_errors(&bytes);
        let servers: Vec<IpAddr> =
            parsed.nameservers.iter().map(IpAddr::from).take(SERVERS_MAX).collect();
        if servers.is_empty() {
            return Err(NameError::NoServers { host: host.to_owned(), path: path.to_owned() });
        }
        let search = parsed.get_last_search_or_domain().filter_map(|domain| absolute(domain));
        Ok(Self {
            servers,
            search: search.take(SEARCH_MAX).collect(),
            ndots: parsed.ndots as usize,
            timeout: Duration::from_secs(parsed.timeout.clamp(1, TIMEOUT_MAX_S).into()),
            attempts: parsed.attempts.clamp(1, ATTEMPTS_MAX) as usize,
            edns0: parsed.edns0,
            tcp: parsed.use_vc,
        })
    }

    /// The full names that a name may stand for, in the order in which to ask for
    /// them. `None` if it is no name.
    pub(super) fn candidates(&self, host: &str) -> Option<Vec<Name>> {
        let own = absolute(host)?;
        if host.ends_with('.') {
            return Some(vec![own]);
        }
        let relative = Name::from_ascii(host).ok()?;
        let searched = self.search.iter().filter_map(|domain| {
            let mut name = relative.clone().append_domain(domain).ok()?;
            name.set_fqdn(true);
            Some(name)
        });
        let mut names: Vec<Name> = searched.collect();
        let enough_dots = host.bytes().filter(|byte| *byte == b'.').count() >= self.ndots;
        names.insert(if enough_dots { 0 } else { names.len() }, own);
        Some(names)
    }
}

fn absolute(text: &str) -> Option<Name> {
    // Not `from_str`: names are ASCII here, and that one brings tables of all scripts.
    let mut name = Name::from_ascii(text).ok()?;
    name.set_fqdn(true);
    Some(name)
}

/// The addresses that the hosts file has for a name, in its order. A file that cannot
/// be read has none, as for glibc.
pub(super) fn in_hosts(path: &Path, host: &str) -> Vec<IpAddr> {
    let Ok(file) = File::open(path) else { return Vec::new() };
    let host = host.strip_suffix('.').unwrap_or(host);
    let lines = BufReader::new(file.take(HOSTS_MAX_BYTES)).split(b'\n');
    lines.map_while(Result::ok).filter_map(|line| address_in(&line, host)).collect()
}

fn address_in(line: &[u8], host: &str) -> Option<IpAddr> {
    let line = str::from_utf8(line.split(|byte| *byte == b'#').next()?).ok()?;
    let mut words = line.split_whitespace();
    let address = words.next()?;
    words.any(|name| name.eq_ignore_ascii_case(host)).then(|| address.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    fn conf(text: &str) -> Result<ResolvConf, NameError> {
        ResolvConf::read(written(text).path(), "host")
    }

    #[test]
    fn hosts() {
        let file = written(
            "127.0.0.1 localhost\n# 192.0.2.9 fleet\n192.0.2.1\tFleet.example fleet # main\n\
             nonsense fleet\n\u{feff}\n2001:db8::1 fleet\n192.0.2.2 fleets\nfe80::1%eth0 fleet\n",
        );
        let found = |host: &str| {
            let found = in_hosts(file.path(), host);
            found.iter().map(IpAddr::to_string).collect::<Vec<_>>()
        };
        assert_eq!(found("fleet"), ["192.0.2.1", "2001:db8::1"]);
        assert_eq!(found("FLEET.example."), ["192.0.2.1"]);
        assert!(found("other").is_empty());
        assert!(in_hosts(Path::new("/nonexistent"), "fleet").is_empty());
    }

    #[test]
    fn resolv_conf_is_held_within_bounds() {
        let conf = conf(
            "nameserver 192.0.2.53\nnameserver 2001:db8::53\nnameserver 192.0.2.54\n\
             nameserver 192.0.2.55\nbroken line\noptions timeout:30 attempts:0 edns0 use-vc\n",
        )
        .unwrap();
        assert_eq!(conf.servers.len(), 3);
        assert_eq!((conf.timeout, conf.attempts), (Duration::from_secs(5), 1));
        assert!(conf.edns0 && conf.tcp);
    }

    #[test]
    fn without_servers_the_remedy_is_told() {
        for text in ["", "# nothing\n", "search example.net\n", "nameserver none\n"] {
            let error = conf(text).unwrap_err();
            assert!(matches!(error, NameError::NoServers { .. }), "{text:?}: {error}");
            assert!(error.to_string().contains("add a `nameserver` line"), "{error}");
        }
        let error = ResolvConf::read(Path::new("/nonexistent/resolv.conf"), "host").unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, NameError::NoConfiguration { .. }), "{text}");
        assert!(text.contains("/nonexistent/resolv.conf") && text.contains("host"), "{text}");
    }

    #[test]
    fn the_search_list_is_tried_as_glibc_does() {
        let text = "nameserver 192.0.2.53\nsearch a.example b.example\n";
        let names = |conf: &ResolvConf, host: &str| {
            conf.candidates(host).unwrap().iter().map(Name::to_string).collect::<Vec<_>>()
        };
        let one = conf(text).unwrap();
        assert_eq!(names(&one, "fleet"), ["fleet.a.example.", "fleet.b.example.", "fleet."]);
        assert_eq!(names(&one, "x.fleet")[0], "x.fleet.");
        assert_eq!(names(&one, "x.fleet").len(), 3);
        assert_eq!(names(&one, "fleet."), ["fleet."]);
        let three = conf(&[text, "options ndots:2\n"].concat()).unwrap();
        assert_eq!(names(&three, "x.fleet")[2], "x.fleet.");
        // The last of the two counts, and what is no domain is skipped.
        let last = conf(&[text, "domain c.example\n"].concat()).unwrap();
        assert_eq!(names(&last, "fleet"), ["fleet.c.example.", "fleet."]);
        assert!(one.candidates("a..b").is_none());
    }
}
