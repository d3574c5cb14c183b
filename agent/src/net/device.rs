//! Which device is meant: by name, by MAC, or the one that was used before.

use std::net::{IpAddr, SocketAddr};

use super::error::{NetError, ResolveError};
use super::netlink::{Link, LinkKey, Netlink};
use super::{KnownDevice, Wanted};
use crate::frame::MacAddr;

/// The device that the configuration names, if it names one.
pub(super) async fn wanted(
    netlink: &Netlink,
    wanted: &Wanted,
    remote: IpAddr,
) -> Result<Option<Link>, ResolveError> {
    let device = match (&wanted.device, wanted.remote) {
        (Some(device), _) => match parse_mac(device) {
            Some(mac) => find(netlink, LinkKey::Mac(mac)).await?,
            None => named(netlink, device, wanted.known.as_ref()).await?,
        },
        (None, SocketAddr::V6(address)) if address.scope_id() != 0 => {
            find(netlink, LinkKey::Index(address.scope_id())).await?
        }
        (None, _) if needs_device(remote) => return Err(ResolveError::DeviceNeeded { remote }),
        (None, _) => return Ok(None),
    };
    match (device, &wanted.device, wanted.remote) {
        (Some(link), _, _) => Ok(Some(link)),
        (None, Some(device), _) => Err(ResolveError::DeviceMissing { device: device.clone() }),
        (None, None, remote) => Err(ResolveError::DeviceMissing {
            device: match remote {
                SocketAddr::V6(address) => format!("number {}", address.scope_id()),
                SocketAddr::V4(_) => String::new(),
            },
        }),
    }
}

/// A device that was given by name is followed when it is renamed, as the kernel's
/// netconsole does; when it is gone, one of that name takes its place, or the same
/// hardware under another name.
async fn named(
    netlink: &Netlink,
    name: &str,
    known: Option<&KnownDevice>,
) -> Result<Option<Link>, ResolveError> {
    if let Some(known) = known {
        let link = find(netlink, LinkKey::Index(known.ifindex)).await?;
        // Indices are used again: by itself one says nothing.
        let same =
            |link: &Link| link.name == known.name || link.mac.is_some() && link.mac == known.mac;
        if let Some(link) = link.filter(same) {
            return Ok(Some(link));
        }
    }
    if let Some(link) = find(netlink, LinkKey::Name(name)).await? {
        return Ok(Some(link));
    }
    let Some(mac) = known.and_then(|known| known.mac) else { return Ok(None) };
    // What stands on top of others may just have borrowed the address.
    Ok(find(netlink, LinkKey::Mac(mac)).await?.filter(|link| !link.is_stacked()))
}

/// Looks a device up.
///
/// # Errors
/// Only if the kernel cannot be asked.
pub(super) async fn find(
    netlink: &Netlink,
    key: LinkKey<'_>,
) -> Result<Option<Link>, ResolveError> {
    netlink.link(key).await.map_err(|cause| {
        let object = match key {
            LinkKey::Index(index) => format!("number {index}"),
            LinkKey::Name(name) => name.to_owned(),
            LinkKey::Mac(mac) => format!("with MAC {}", format_mac(mac)),
        };
        NetError { operation: "look up a device", object, cause }.into()
    })
}

/// A link that must be usable.
///
/// # Errors
/// If it is not.
pub(super) fn check(link: &Link, remote: IpAddr) -> Result<(), ResolveError> {
    let device = link.name.clone();
    if !link.up {
        Err(ResolveError::DeviceDown { remote, device })
    } else if !link.carrier {
        Err(ResolveError::NoCarrier { remote, device })
    } else {
        Ok(())
    }
}

/// IPv6 addresses of link scope (RFC 4291, 2.5.6 and 2.7) exist once per link.
fn needs_device(remote: IpAddr) -> bool {
    match remote {
        IpAddr::V4(_) => false,
        IpAddr::V6(ip) => {
            ip.is_unicast_link_local()
                || (ip.is_multicast() && matches!(ip.octets()[1] & 0xf, 1 | 2))
        }
    }
}

/// `02:00:00:00:00:01`, or `None`. (A device name may hold colons too, but six
/// groups of two hex digits exceed `IFNAMSIZ`.)
fn parse_mac(text: &str) -> Option<MacAddr> {
    let mut mac = [0; 6];
    let mut groups = text.split(':');
    for byte in &mut mac {
        let group = groups.next().filter(|group| group.len() == 2)?;
        if !group.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        *byte = u8::from_str_radix(group, 16).ok()?;
    }
    groups.next().is_none().then_some(mac)
}

fn format_mac(mac: MacAddr) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_mac_is_one() {
        assert_eq!(parse_mac("02:0A:ff:00:00:01"), Some([2, 10, 255, 0, 0, 1]));
        for text in
            ["eth0", "02:0a:ff:00:00", "02:0a:ff:00:00:01:02", "2:a:ff:0:0:1", "+2:0a:ff:00:00:01"]
        {
            assert_eq!(parse_mac(text), None, "{text}");
        }
        assert_eq!(format_mac([2, 10, 255, 0, 0, 1]), "02:0a:ff:00:00:01");
    }

    #[test]
    fn link_scope_needs_a_device() {
        for (remote, needed) in [
            ("fe80::1", true),
            ("ff02::1", true),
            ("ff12::1", true),
            ("ff05::1", false),
            ("2001:db8::1", false),
            ("169.254.0.1", false),
        ] {
            assert_eq!(needs_device(remote.parse().unwrap()), needed, "{remote}");
        }
    }
}
