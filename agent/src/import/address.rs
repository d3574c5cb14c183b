//! Numbers and addresses as the kernel reads them, which is a little wider than Rust's
//! own parsers. Pure text: nothing is looked up here.
//!
//! Rules: `kstrtou16` (`lib/kstrtox.c`), `in4_pton` and `in6_pton` (`net/core/utils.c`) as
//! `netpoll_parse_ip_addr` of `drivers/net/netconsole.c` calls them, `mac_pton`
//! (`lib/net_utils.c`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::frame::MacAddr;

/// Bytes of a MAC as text (`MAC_ADDR_STR_LEN`, `include/linux/if_ether.h`).
const MAC_BYTES: usize = 17;

/// A port: decimal digits, of which a plus sign may come before and one line end after.
pub(super) fn port(text: &str) -> Option<u16> {
    let text = text.strip_suffix('\n').unwrap_or(text);
    let digits = text.strip_prefix('+').unwrap_or(text);
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

/// An address, IPv4 or IPv6: leading zeros are allowed in every part and mean nothing (not
/// even octal), and so is everything after a line end.
pub(super) fn ip(text: &str) -> Option<IpAddr> {
    let line = text.split('\n').next()?;
    let text = without_leading_zeros(line);
    let v4 = text.parse::<Ipv4Addr>().map(IpAddr::V4);
    v4.or_else(|_| text.parse::<Ipv6Addr>().map(IpAddr::V6)).ok()
}

/// Takes the leading zeros from every run of hexadecimal digits, down to one digit.
fn without_leading_zeros(text: &str) -> String {
    let mut short = String::with_capacity(text.len());
    let mut zeros = false;
    let mut digits = false;
    for c in text.chars() {
        let digit = c.is_ascii_hexdigit();
        if zeros && !digit {
            short.push('0');
        }
        zeros = c == '0' && !digits;
        digits = digit && !zeros;
        if !zeros {
            short.push(c);
        }
    }
    if zeros {
        short.push('0');
    }
    short
}

/// A MAC, of whose text only the first 17 bytes matter.
pub(super) fn mac(text: &str) -> Option<MacAddr> {
    let text = text.as_bytes().get(..MAC_BYTES)?;
    let mut bytes = [0; 6];
    for (index, byte) in bytes.iter_mut().enumerate() {
        let digit = |at: usize| char::from(text[index * 3 + at]).to_digit(16);
        *byte = (digit(0)? << 4 | digit(1)?) as u8;
        if text.get(index * 3 + 2).is_some_and(|separator| *separator != b':') {
            return None;
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports() {
        for (text, wanted) in
            [("0", 0), ("+1514", 1514), ("006666", 6666), ("65535", 65535), ("7\n", 7)]
        {
            assert_eq!(port(text), Some(wanted), "{text:?}");
        }
        for text in ["", "+", "++7", "-1", "65536", "0x1a", " 7", "7 ", "7\n\n", "syslog"] {
            assert_eq!(port(text), None, "{text:?}");
        }
    }

    #[test]
    fn addresses_as_in4_pton_and_in6_pton_read_them() {
        for (text, wanted) in [
            ("10.0.0.2", "10.0.0.2"),
            ("010.000.0.0002", "10.0.0.2"),
            ("10.0.0.2\n", "10.0.0.2"),
            ("10.0.0.2\nwhatever", "10.0.0.2"),
            ("fd00:1:2:3::1", "fd00:1:2:3::1"),
            ("FC00::000001", "fc00::1"),
            ("::", "::"),
            ("1:2:3:4:5:6:7::", "1:2:3:4:5:6:7:0"),
            ("::2:3:4:5:6:7:8", "0:2:3:4:5:6:7:8"),
            ("::ffff:192.0.2.1", "::ffff:192.0.2.1"),
            ("1:2:3:4:5::010.2.3.4", "1:2:3:4:5:0:a02:304"),
        ] {
            assert_eq!(ip(text), Some(wanted.parse().unwrap()), "{text:?}");
        }
        for text in [
            "",
            "\n",
            "10.0.0",
            "10.0.0.",
            "10.0.0.256",
            "10.0.0.2 ",
            "10.0.0.2.3",
            "10.0.0.0x1",
            "10.0.0.2:6666",
            "[fd00::1]",
            "fe80::1%eth0",
            "1:2:3:4:5:6:7::8",
            "::1:2:3:4:5:6:7:8",
            "1::2::3",
            "1:2:",
            "fd00::12345",
            "host.example",
        ] {
            assert_eq!(ip(text), None, "{text:?}");
        }
    }

    #[test]
    fn macs_as_mac_pton_reads_them() {
        let wanted = Some([0x52, 0x54, 0, 0x12, 0x34, 0xab]);
        assert_eq!(mac("52:54:00:12:34:ab"), wanted);
        assert_eq!(mac("52:54:00:12:34:ABC and more"), wanted);
        for text in
            ["", "52:54:00:12:34", "52-54-00-12-34-ab", "52:54:00:12:34:g0", "é2:54:00:12:34:ab"]
        {
            assert_eq!(mac(text), None, "{text:?}");
        }
    }
}
