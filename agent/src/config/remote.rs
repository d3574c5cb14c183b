//! The receiver of a target, as the configuration writes it: an address or a DNS
//! name, with or without a port. Pure text: nothing is looked up here.
//!
//! A name is a host name in the sense of RFC 1123, section 2.1: labels of letters,
//! digits and inner hyphens, at most 63 bytes each and 253 in all (RFC 1035, section
//! 2.3.4), and a last label that is not a number, so that a mistyped address is
//! never taken for a name. A dot at the end keeps the search list of resolv.conf away.

use std::{
    fmt,
    net::{Ipv4Addr, SocketAddr},
};

use super::{DEFAULT_REMOTE_PORT, address};

/// How a receiver is written.
pub(super) const REMOTE_FORMS: &str = "an address or a name, with a port unless it is 6666: \"192.0.2.10\", \
     \"192.0.2.10:6666\", \"[2001:db8::10]:6666\", \"netcons.example.net:6666\"";

/// Longest label of a name.
const LABEL_MAX_BYTES: usize = 63;
/// Longest name, without the dot at its end.
const HOST_MAX_BYTES: usize = 253;

/// Where a target's records go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remote {
    /// An address and a port.
    Address(SocketAddr),
    /// A DNS name, to be looked up (`crate::names`), and a port.
    Name {
        /// The name in lower case, with its final dot if it was written with one.
        host: String,
        /// UDP port.
        port: u16,
    },
}

impl Remote {
    /// The address, if it is written down.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Address(address) => Some(*address),
            Self::Name { .. } => None,
        }
    }

    /// The UDP port.
    #[must_use]
    pub fn port(&self) -> u16 {
        match self {
            Self::Address(address) => address.port(),
            Self::Name { port, .. } => *port,
        }
    }
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Name { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

/// Reads a receiver; the error says what is wrong with it.
pub(super) fn remote(text: &str) -> Result<Remote, String> {
    let address = text
        .parse::<SocketAddr>()
        .ok()
        .or_else(|| Some(SocketAddr::new(address::ip(text)?, DEFAULT_REMOTE_PORT)));
    let Some(address) = address else {
        return name(text);
    };
    if address.ip().to_canonical().is_unspecified() || address.port() == 0 {
        return Err("nothing can be sent to this address and port".to_owned());
    }
    Ok(Remote::Address(address))
}

fn name(text: &str) -> Result<Remote, String> {
    if text.contains('%') {
        return Err("`remote` has a zone, and a device is named by `device`".to_owned());
    }
    let (host, port) = match text.split_once(':') {
        // With more colons, or brackets, an IPv6 address was meant.
        Some((_, rest)) if rest.contains(':') => return Err(not_understood(text)),
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    };
    let labels = host.strip_suffix('.').unwrap_or(host);
    // An address goes wrong in its port as well.
    if labels.parse::<Ipv4Addr>().is_err() {
        check_host(text, labels)?;
    }
    let port = match port {
        None => DEFAULT_REMOTE_PORT,
        Some(port) => read_port(port)
            .ok_or_else(|| format!("{port:?} is not a port: `remote` needs 1 to 65535 there"))?,
    };
    if labels.parse::<Ipv4Addr>().is_ok() {
        return Err(not_understood(text));
    }
    Ok(Remote::Name { host: host.to_ascii_lowercase(), port })
}

fn read_port(text: &str) -> Option<u16> {
    // `u16::from_str` takes a plus sign.
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|port| digits && *port != 0)
}

fn not_understood(text: &str) -> String {
    format!("`remote` does not understand {text:?}")
}

/// Whether a host name may look so; the error says what may not.
fn check_host(text: &str, host: &str) -> Result<(), String> {
    let known = |c: char| c.is_alphanumeric() || "._-".contains(c);
    // Not even nearly a name.
    if host.is_empty() || !host.chars().all(known) {
        return Err(not_understood(text));
    }
    let last = host.rsplit('.').next().unwrap_or_default();
    if !last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit()) {
        // "192.0.2.300", and no top-level domain is a number.
        return Err(not_understood(text));
    }
    if !host.is_ascii() {
        return Err(format!("the name {host:?} must be in its ASCII form, which begins with xn--"));
    }
    if host.len() > HOST_MAX_BYTES {
        return Err(format!(
            "the name in `remote` has {} bytes, and {HOST_MAX_BYTES} is the most",
            host.len()
        ));
    }
    for label in host.split('.') {
        let wrong = if label.is_empty() {
            "has two dots in a row, or one in front"
        } else if label.len() > LABEL_MAX_BYTES {
            "has a part with more than 63 bytes"
        } else if label.contains('_') {
            "has an underscore, which no host name may have"
        } else if label.starts_with('-') || label.ends_with('-') {
            "has a part that begins or ends with a hyphen"
        } else {
            continue;
        };
        return Err(format!("the name {host:?} {wrong}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (text, wanted) in [
            ("192.0.2.1", "192.0.2.1:6666"),
            ("192.0.2.1:514", "192.0.2.1:514"),
            ("2001:db8::1", "[2001:db8::1]:6666"),
            ("[2001:db8::1]", "[2001:db8::1]:6666"),
            ("[2001:db8::1]:514", "[2001:db8::1]:514"),
            ("[fe80::1%3]:514", "[fe80::1%3]:514"),
        ] {
            assert_eq!(remote(text), Ok(Remote::Address(wanted.parse().unwrap())), "{text}");
        }
    }

    #[test]
    fn names() {
        let longest = [&"a.".repeat(126), "b"].concat();
        assert_eq!(longest.len(), HOST_MAX_BYTES);
        let label = "x".repeat(LABEL_MAX_BYTES);
        for (text, host, port) in [
            ("host", "host", 6666),
            ("Netcons.Example.NET:1514", "netcons.example.net", 1514),
            ("netcons.example.net.", "netcons.example.net.", 6666),
            ("netcons.example.net.:1", "netcons.example.net.", 1),
            ("1host.4you", "1host.4you", 6666),
            ("xn--bcher-kva.example:65535", "xn--bcher-kva.example", 65535),
            // Hexadecimal digits and a port, not an IPv6 address.
            ("cafe:1514", "cafe", 1514),
            (longest.as_str(), longest.as_str(), 6666),
            (label.as_str(), label.as_str(), 6666),
        ] {
            let wanted = Remote::Name { host: host.to_owned(), port };
            assert_eq!(remote(text), Ok(wanted.clone()), "{text}");
            assert_eq!(wanted.to_string(), format!("{host}:{port}"));
            assert_eq!((wanted.address(), wanted.port()), (None, port));
        }
    }

    #[test]
    fn what_is_neither() {
        let too_long = ["a.".repeat(126), "bc".to_owned()].concat();
        let long_label = "x".repeat(LABEL_MAX_BYTES + 1);
        for (text, wanted) in [
            ("[fe80::1%eth0]:6666", "a device is named by `device`"),
            ("192.0.2.1:66666", "is not a port"),
            ("192.0.2.1:", "is not a port"),
            ("192.0.2.1.", "does not understand"),
            ("192.0.2.256", "does not understand"),
            ("192.0.2.300:6666", "does not understand"),
            ("192.0.2", "does not understand"),
            ("1234", "does not understand"),
            ("host.12", "does not understand"),
            ("host.12.", "does not understand"),
            ("2001:db8::g", "does not understand"),
            ("[host]:1", "does not understand"),
            ("host/24", "does not understand"),
            ("udp://host", "\"//host\" is not a port"),
            ("", "does not understand"),
            (".", "does not understand"),
            (":6666", "does not understand"),
            (" 192.0.2.1", "does not understand"),
            ("host name", "does not understand"),
            ("0.0.0.0", "nothing can be sent"),
            ("[::ffff:0.0.0.0]:6666", "nothing can be sent"),
            ("192.0.2.1:0", "nothing can be sent"),
            ("host:0", "is not a port"),
            ("host:", "is not a port"),
            ("host:+1", "is not a port"),
            ("host:syslog", "is not a port"),
            ("host:65536", "is not a port"),
            ("a..b", "two dots in a row"),
            (".host", "one in front"),
            ("host..", "two dots in a row"),
            ("my_host.example", "underscore"),
            ("-a.example", "hyphen"),
            ("a-.example", "hyphen"),
            ("bücher.example", "xn--"),
            (too_long.as_str(), "254 bytes"),
            (long_label.as_str(), "more than 63 bytes"),
        ] {
            let message = remote(text).unwrap_err();
            assert!(message.contains(wanted), "{text:?}: {message}");
        }
    }
}
