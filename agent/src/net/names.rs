//! Receivers that are given by name: DNS and `/etc/hosts`, without the system's NSS,
//! which a static binary does not have.
//!
//! [`Names`] asks; [`NameState`] remembers for one target what was answered and when
//! to ask again, and is pure. Both files are read anew for each look-up, since DHCP
//! rewrites them; there is one every 30 s at most. Formats: `resolv.conf(5)`, `hosts(5)`.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_resolver::config::{LookupIpStrategy, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::net::NetError as DnsError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::system_conf::parse_resolv_conf;
use hickory_resolver::{Hosts, TokioResolver};

/// An answer is used for as long as it says, within these bounds.
const TTL_MIN: Duration = Duration::from_secs(30);
const TTL_MAX: Duration = Duration::from_secs(3600);
/// How long a server may take, and how often it is asked.
const TIMEOUT: Duration = Duration::from_secs(5);
const ATTEMPTS: usize = 2;
/// Pause after a failure: while no address is known the first and the longest, else always the latter.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// Why a name has no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot resolve the name {host}: {cause}; {remedy}")]
pub struct NameError {
    /// The name.
    pub host: String,
    /// What went wrong.
    pub cause: String,
    /// What to do.
    pub remedy: &'static str,
}

/// The addresses of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// In the order to try them: IPv4 first.
    pub addresses: Vec<IpAddr>,
    /// How long they may be used: the shortest TTL, from 30 s to an hour.
    pub valid_for: Duration,
}

/// Asks for names.
#[derive(Clone, Debug)]
pub struct Names {
    resolv_conf: PathBuf,
    hosts: PathBuf,
}

impl Default for Names {
    fn default() -> Self {
        Self::new("/etc/resolv.conf", "/etc/hosts")
    }
}

impl Names {
    /// Asks as these files say.
    #[must_use]
    pub fn new(resolv_conf: impl Into<PathBuf>, hosts: impl Into<PathBuf>) -> Self {
        Self { resolv_conf: resolv_conf.into(), hosts: hosts.into() }
    }

    /// Looks a name up, from the calling thread's network namespace. Takes at most some 20 s.
    ///
    /// # Errors
    /// [`NameError`] with the remedy.
    ///
    /// # Panics
    /// Outside of a tokio runtime with I/O and time enabled.
    pub async fn look_up(&self, host: &str) -> Result<Resolved, NameError> {
        let failed = |cause: String, remedy| NameError { host: host.to_owned(), cause, remedy };
        let configured = fs::read(&self.resolv_conf)
            .map_err(|error| error.to_string())
            .and_then(|text| parse_resolv_conf(text).map_err(|error| error.to_string()));
        let (config, mut options, no_servers) = match configured {
            Ok((config, options)) => (config, options, None),
            // A name in the hosts file needs no server.
            Err(cause) => {
                let config = ResolverConfig::from_parts(None, Vec::new(), Vec::new());
                (config, ResolverOpts::default(), Some(cause))
            }
        };
        options.timeout = TIMEOUT;
        options.attempts = ATTEMPTS;
        options.cache_size = 0;
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        options.use_hosts_file = ResolveHosts::Always;
        let mut builder =
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        *builder.options_mut() = options;
        let mut resolver = builder
            .build()
            .map_err(|error| failed(error.to_string(), "restart the agent if it lasts"))?;
        resolver.set_hosts(Arc::new(self.hosts()));
        let asked = Instant::now();
        match resolver.lookup_ip(host).await {
            Ok(answer) => {
                let mut addresses: Vec<IpAddr> = answer.iter().collect();
                addresses.sort_by_key(IpAddr::is_ipv6);
                addresses.dedup();
                if addresses.is_empty() {
                    return Err(failed("it has no address".to_owned(), GIVE_ADDRESS));
                }
                let ttl = answer.valid_until().saturating_duration_since(asked);
                Ok(Resolved { addresses, valid_for: ttl.clamp(TTL_MIN, TTL_MAX) })
            }
            Err(error) => {
                if let Some(cause) = no_servers {
                    let cause = format!("{}: {cause}", self.resolv_conf.display());
                    return Err(failed(
                        cause,
                        "name a server there, or the receiver in /etc/hosts",
                    ));
                }
                let (cause, remedy) = words(&error);
                Err(failed(cause, remedy))
            }
        }
    }

    /// What the hosts file says; a file that cannot be read says nothing.
    fn hosts(&self) -> Hosts {
        let mut hosts = Hosts::default();
        let read = fs::File::open(&self.hosts)
            .and_then(|file| hosts.read_hosts_conf(file).map_err(io::Error::other));
        if let Err(error) = read
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::debug!(file = %self.hosts.display(), %error, "The hosts file cannot be read.");
        }
        hosts
    }
}

const GIVE_ADDRESS: &str = "give it an address record, or correct `remote`";

fn words(error: &DnsError) -> (String, &'static str) {
    match error {
        error if error.is_nx_domain() => {
            ("the name does not exist".to_owned(), "correct `remote`, or the zone")
        }
        error if error.is_no_records_found() => ("it has no address".to_owned(), GIVE_ADDRESS),
        DnsError::Timeout => (
            "no server answers".to_owned(),
            "check the servers in /etc/resolv.conf and the way to them; or give an address as `remote`",
        ),
        error => (error.to_string(), "check the servers in /etc/resolv.conf"),
    }
}

/// What is known of one target's name.
#[derive(Debug)]
pub struct NameState {
    addresses: Vec<IpAddr>,
    /// Why there is no newer answer.
    problem: Option<NameError>,
    failures: u32,
    next_at: Instant,
}

impl NameState {
    /// Nothing is known, and it is time to ask.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self { addresses: Vec::new(), problem: None, failures: 0, next_at: now }
    }

    /// When to ask next.
    #[must_use]
    pub fn next_at(&self) -> Instant {
        self.next_at
    }

    /// It is being asked: the answer sets the next time.
    pub fn asked(&mut self, now: Instant) {
        self.next_at = now + TTL_MAX;
    }

    /// The addresses to use, in the order to try them.
    #[must_use]
    pub fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// Why there is no newer answer, if the last look-up failed.
    #[must_use]
    pub fn problem(&self) -> Option<&NameError> {
        self.problem.as_ref()
    }

    /// This address works: it stays the first choice for as long as the name has it.
    pub fn works(&mut self, address: IpAddr) {
        if let Some(at) = self.addresses.iter().position(|known| *known == address) {
            self.addresses[..=at].rotate_right(1);
        }
    }

    /// Takes an answer; true if the addresses are others than before. After a failure the last
    /// good ones stay.
    pub fn answer(&mut self, now: Instant, answer: Result<Resolved, NameError>) -> bool {
        match answer {
            Ok(Resolved { mut addresses, valid_for }) => {
                (self.problem, self.failures) = (None, 0);
                self.next_at = now + valid_for;
                let in_use = self.addresses.first().copied();
                if let Some(at) = addresses.iter().position(|new| Some(*new) == in_use) {
                    addresses[..=at].rotate_right(1);
                }
                let changed = addresses != self.addresses;
                self.addresses = addresses;
                changed
            }
            Err(problem) => {
                self.problem = Some(problem);
                let pause = if self.addresses.is_empty() {
                    RETRY_FIRST.saturating_mul(1 << self.failures.min(8)).min(RETRY_MAX)
                } else {
                    RETRY_MAX
                };
                self.failures = self.failures.saturating_add(1);
                self.next_at = now + pause;
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    fn good(addresses: &[u8], seconds: u64) -> Result<Resolved, NameError> {
        let addresses = addresses.iter().map(|last| ip(*last)).collect();
        Ok(Resolved { addresses, valid_for: Duration::from_secs(seconds) })
    }

    fn bad() -> Result<Resolved, NameError> {
        Err(NameError { host: "h".to_owned(), cause: "no".to_owned(), remedy: "yes" })
    }

    #[test]
    fn the_address_in_use_is_kept_while_the_name_has_it() {
        let start = Instant::now();
        let mut state = NameState::new(start);
        assert!(state.answer(start, good(&[1, 2, 3], 60)));
        assert_eq!(state.next_at(), start + Duration::from_secs(60));
        state.works(ip(2));
        assert_eq!(state.addresses(), [ip(2), ip(1), ip(3)]);
        // Servers shuffle their answers.
        assert!(!state.answer(start, good(&[1, 2, 3], 60)));
        assert_eq!(state.addresses(), [ip(2), ip(1), ip(3)]);
        assert!(state.answer(start, good(&[4, 3], 60)));
        assert_eq!(state.addresses(), [ip(4), ip(3)]);
    }

    #[test]
    fn the_last_good_address_outlives_every_failure() {
        let start = Instant::now();
        let mut state = NameState::new(start);
        state.answer(start, good(&[1], 60));
        for round in 0..100 {
            let now = start + Duration::from_secs(round);
            assert!(!state.answer(now, bad()));
            assert_eq!(state.next_at(), now + RETRY_MAX);
            assert_eq!(state.addresses(), [ip(1)]);
            assert!(state.problem().is_some());
        }
        assert!(!state.answer(start, good(&[1], 60)));
        assert!(state.problem().is_none());
    }

    #[test]
    fn a_name_without_any_address_is_asked_for_more_often_at_first() {
        let start = Instant::now();
        let mut state = NameState::new(start);
        let pauses: Vec<u64> = (0..8)
            .map(|_| {
                state.answer(start, bad());
                (state.next_at() - start).as_secs()
            })
            .collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30, 30]);
    }

    #[tokio::test]
    async fn the_hosts_file_needs_no_server() {
        let folder = tempfile::tempdir().unwrap();
        let (conf, hosts) = (folder.path().join("resolv.conf"), folder.path().join("hosts"));
        let names = Names::new(&conf, &hosts);
        fs::write(&hosts, "192.0.2.7 receiver\n2001:db8::7 receiver\n").unwrap();
        let answer = names.look_up("receiver").await.unwrap();
        assert_eq!(answer.addresses, [ip(7), "2001:db8::7".parse().unwrap()]);
        assert!(answer.valid_for <= TTL_MAX && answer.valid_for >= TTL_MIN);
        let error = names.look_up("elsewhere.example").await.unwrap_err().to_string();
        assert!(error.contains("elsewhere.example") && error.contains("resolv.conf"), "{error}");
        fs::write(&conf, "# nothing\n").unwrap();
        let error = names.look_up("elsewhere.example").await.unwrap_err().to_string();
        assert!(error.contains("name a server"), "{error}");
    }
}
