//! Addresses as the configuration writes them. Pure text: nothing is looked up.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::DEFAULT_LOCAL_PORT;

/// How a source address is written.
pub(super) const LOCAL_FORMS: &str = "an address, a port or both: \"192.0.2.1\", \":6665\", \"192.0.2.1:6665\", \"[2001:db8::1]:6665\"";

/// Source address (the route decides if `None`) and port.
pub(super) fn local(text: &str) -> Option<(Option<IpAddr>, u16)> {
    let (ip, port) = if let Ok(both) = text.parse::<SocketAddr>() {
        (Some(both.ip()), both.port())
    } else if let Some(port) = text.strip_prefix(':') {
        // `u16::from_str` takes a plus sign.
        let digits = port.bytes().all(|byte| byte.is_ascii_digit());
        (None, port.parse().ok().filter(|_| digits)?)
    } else {
        (Some(ip(text)?), DEFAULT_LOCAL_PORT)
    };
    let usable = |ip: IpAddr| {
        let ip = ip.to_canonical();
        !ip.is_unspecified() && !ip.is_multicast() && ip != Ipv4Addr::BROADCAST
    };
    (port != 0 && ip.is_none_or(usable)).then_some((ip, port))
}

/// An address alone; brackets are allowed around IPv6.
pub(super) fn ip(text: &str) -> Option<IpAddr> {
    let bracketed = || {
        let inner = text.strip_prefix('[')?.strip_suffix(']')?;
        inner.parse::<Ipv6Addr>().ok().map(IpAddr::V6)
    };
    text.parse().ok().or_else(bracketed)
}

/// Whether the address exists once per link (RFC 4291, 2.5.6 and 2.7), and
/// nothing says which link.
pub(super) fn needs_device(remote: SocketAddr) -> bool {
    match remote {
        SocketAddr::V4(_) => false,
        SocketAddr::V6(remote) => {
            let ip = remote.ip();
            let link_scope = ip.is_unicast_link_local()
                || (ip.is_multicast() && matches!(ip.octets()[1] & 0xf, 1 | 2));
            link_scope && remote.scope_id() == 0
        }
    }
}

/// A MAC that a host or a group can have.
pub(super) fn mac(text: &str) -> Option<[u8; 6]> {
    let mut bytes = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut bytes {
        let part = parts.next().filter(|part| part.len() == 2)?;
        // `from_str_radix` takes a plus sign.
        if !part.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    (parts.next().is_none() && bytes != [0; 6]).then_some(bytes)
}

/// The MAC of one device, in lower case; a group of them has none.
pub(super) fn device_mac(text: &str) -> Option<String> {
    mac(text).filter(|bytes| bytes[0] & 1 == 0)?;
    Some(text.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locals() {
        let v4 = Some("192.0.2.1".parse().unwrap());
        let v6 = Some("2001:db8::1".parse().unwrap());
        for (text, wanted) in [
            ("192.0.2.1", (v4, 6665)),
            ("192.0.2.1:7", (v4, 7)),
            (":7", (None, 7)),
            ("2001:db8::1", (v6, 6665)),
            ("[2001:db8::1]", (v6, 6665)),
            ("[2001:db8::1]:7", (v6, 7)),
        ] {
            assert_eq!(local(text), Some(wanted), "{text}");
        }
        for text in
            [":+7", ":", ":0", ":65536", "7", "", "0.0.0.0", "224.0.0.1:1", "[::]:1", "host"]
        {
            assert_eq!(local(text), None, "{text}");
        }
    }

    #[test]
    fn macs() {
        assert_eq!(mac("02:0A:ff:00:00:01"), Some([2, 10, 255, 0, 0, 1]));
        for text in [
            "+2:0a:ff:00:00:01",
            "2:a:ff:0:0:1",
            "02:0a:ff:00:00",
            "02:0a:ff:00:00:01:02",
            "02-0a-ff-00-00-01",
            "00:00:00:00:00:00",
        ] {
            assert_eq!(mac(text), None, "{text}");
        }
        assert_eq!(device_mac("02:0A:FF:00:00:01").as_deref(), Some("02:0a:ff:00:00:01"));
        assert_eq!(device_mac("03:0a:ff:00:00:01"), None, "a group's");
    }

    #[test]
    fn link_scope_needs_a_device() {
        for (text, needed) in [
            ("[fe80::1]:1", true),
            ("[ff02::1]:1", true),
            ("[fe80::1%2]:1", false),
            ("[ff05::1]:1", false),
            ("[2001:db8::1]:1", false),
            ("169.254.0.1:1", false),
        ] {
            assert_eq!(needs_device(text.parse().unwrap()), needed, "{text}");
        }
    }
}
