//! Which device a target means: by name, by MAC, and whatever became of it.
//!
//! As the kernel's netconsole (`netconsole_netdev_event`,
//! `drivers/net/netconsole.c`), a device is followed through a change of its
//! name; beyond that, a device that went is recognised when it comes back under
//! another name. Not here: whether it is up, and what can be reached through it.

use std::io;

use super::error::{NetError, ResolveError};
use super::link::Link;
use super::links::{NetEvent, NetEventKind};
use super::netlink::{LinkKey, Netlink};
use crate::frame::MacAddr;

/// What is known of the device that a target used last, so that it is found
/// again. Comes from [`NextHop::device`](super::NextHop::device), and is kept up
/// to date with [`follow`](Self::follow).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownDevice {
    /// Its index in this network namespace; 0 once it is gone.
    pub ifindex: u32,
    /// Its name then.
    pub name: String,
    /// Its MAC, the permanent one where it has one; `None` without Ethernet.
    pub mac: Option<MacAddr>,
    /// It lies on other devices (VLAN, bridge, bond, …) and may share their MAC,
    /// so that it is not looked for by MAC.
    pub stacked: bool,
}

impl KnownDevice {
    /// Takes a change of the device over; other events are ignored. Without this a
    /// device that changes name *and* MAC between two looks would not be recognised.
    pub fn follow(&mut self, event: &NetEvent) {
        if self.ifindex == 0 || event.ifindex != Some(self.ifindex) {
            return;
        }
        match event.kind {
            // What gets the index next is another device.
            NetEventKind::LinkGone => self.ifindex = 0,
            NetEventKind::LinkRunning | NetEventKind::LinkNoCarrier | NetEventKind::LinkDown => {
                if let Some(name) = &event.name {
                    self.name.clone_from(name);
                }
                self.mac = event.mac.or(self.mac);
            }
            _ => {}
        }
    }

    fn is(&self, link: &Link, configured: &str) -> bool {
        let named = link.is_called(&self.name) || link.is_called(configured);
        link.ifindex == self.ifindex
            && (named || (self.mac.is_some() && self.mac == link.identity_mac()))
    }
}

impl From<&Link> for KnownDevice {
    fn from(link: &Link) -> Self {
        Self {
            ifindex: link.ifindex,
            name: link.name.clone(),
            mac: link.identity_mac().filter(|mac| *mac != [0; 6]),
            stacked: link.stacked,
        }
    }
}

/// Finds the device that `configured` (a name or a MAC) means.
pub(super) async fn find(
    netlink: &Netlink,
    configured: &str,
    known: Option<&KnownDevice>,
) -> Result<Link, ResolveError> {
    let look = async {
        let mut current = None;
        if let Some(known) = known.filter(|known| known.ifindex != 0) {
            let link = netlink.link(LinkKey::Index(known.ifindex)).await?;
            current = link.filter(|link| known.is(link, configured));
        }
        if let Some(mac) = parse_mac(configured) {
            if current.as_ref().is_some_and(|link| !link.stacked && link.has_mac(mac)) {
                return Ok(current);
            }
            // If none has it, it was changed on the device.
            return Ok(best_by_mac(netlink.links().await?, mac).or(current));
        }
        // Before the name, or a renamed device would be left for another one that
        // took its name.
        if current.is_some() {
            return Ok(current);
        }
        if let Some(link) = netlink.link(LinkKey::Name(configured)).await? {
            return Ok(Some(link));
        }
        match known {
            Some(KnownDevice { mac: Some(mac), stacked: false, .. }) => {
                Ok(returned(netlink.links().await?, *mac))
            }
            _ => Ok(None),
        }
    };
    found(look.await, configured)
}

/// The device with an index.
pub(super) async fn by_index(netlink: &Netlink, ifindex: u32) -> Result<Link, ResolveError> {
    found(netlink.link(LinkKey::Index(ifindex)).await, &format!("number {ifindex}"))
}

fn found(answer: io::Result<Option<Link>>, asked: &str) -> Result<Link, ResolveError> {
    let device = match parse_mac(asked) {
        Some(_) => format!("with MAC {asked}"),
        None => asked.to_owned(),
    };
    match answer {
        Ok(Some(link)) => Ok(link),
        Ok(None) => Err(ResolveError::DeviceMissing { device }),
        Err(cause) => Err(NetError { operation: "look up a device", object: device, cause }.into()),
    }
}

/// The device with a configured MAC. VLANs, bridges and bonds share a MAC with
/// devices below them, and the ports of a bond with each other; of several take
/// the one whose own it is, then the one that was there first (as netconsole's
/// `dev_getbyhwaddr_rcu` does).
fn best_by_mac(links: Vec<Link>, mac: MacAddr) -> Option<Link> {
    links.into_iter().filter(|link| link.has_mac(mac)).min_by_key(|link| {
        let lent = link.permanent_mac.is_some_and(|own| own != mac);
        (link.mac != Some(mac), link.stacked, lent, link.ifindex)
    })
}

/// The device that went and is back under another name. One that lies on others
/// is not meant, nor a port that was given the MAC by its master.
fn returned(links: Vec<Link>, mac: MacAddr) -> Option<Link> {
    links
        .into_iter()
        .filter(|link| !link.stacked && link.identity_mac() == Some(mac))
        .min_by_key(|link| link.ifindex)
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

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: MacAddr = [2, 0, 0, 0, 0, 1];
    const OTHER: MacAddr = [2, 0, 0, 0, 0, 2];

    fn link(ifindex: u32, mac: MacAddr) -> Link {
        Link { ifindex, name: format!("eth{ifindex}"), mac: Some(mac), ..Link::default() }
    }

    fn event(kind: NetEventKind, ifindex: u32, name: &str, mac: MacAddr) -> NetEvent {
        let name = Some(name.to_owned());
        NetEvent { kind, ifindex: Some(ifindex), name, mac: Some(mac), neighbour: None }
    }

    #[test]
    fn only_a_whole_mac_is_one() {
        assert_eq!(parse_mac("02:0A:ff:00:00:01"), Some([2, 10, 255, 0, 0, 1]));
        for text in
            ["eth0", "02:0a:ff:00:00", "02:0a:ff:00:00:01:02", "2:a:ff:0:0:1", "+2:0a:ff:00:00:01"]
        {
            assert_eq!(parse_mac(text), None, "{text}");
        }
    }

    #[test]
    fn of_devices_that_share_a_mac_the_one_below_is_meant() {
        let index = |links: Vec<Link>| best_by_mac(links, OWN).map(|link| link.ifindex);
        let vlan = Link { stacked: true, ..link(2, OWN) };
        assert_eq!(index(vec![vlan.clone(), link(5, OWN), link(4, OWN)]), Some(4));
        assert_eq!(index(vec![vlan, link(5, OTHER)]), Some(2));
        assert_eq!(index(vec![link(5, OTHER)]), None);
        // A bond: eth2 was given eth3's MAC, and eth3 still has its own.
        let given = Link { permanent_mac: Some(OTHER), ..link(2, OWN) };
        let owner = Link { permanent_mac: Some(OWN), ..link(3, OWN) };
        assert_eq!(index(vec![given.clone(), owner]), Some(3));
        assert_eq!(best_by_mac(vec![given], OTHER).map(|link| link.ifindex), Some(2));
    }

    #[test]
    fn only_the_device_itself_comes_back_under_another_name() {
        let vlan = Link { stacked: true, ..link(2, OWN) };
        let given = Link { permanent_mac: Some(OTHER), ..link(3, OWN) };
        assert!(returned(vec![vlan.clone(), given.clone()], OWN).is_none());
        let itself = link(9, OWN);
        assert_eq!(returned(vec![vlan, given, itself], OWN).map(|link| link.ifindex), Some(9));
    }

    #[test]
    fn an_index_alone_is_no_identity() {
        let known = KnownDevice::from(&link(4, OWN));
        let renamed = Link { name: "wan0".to_owned(), ..link(4, OWN) };
        assert!(known.is(&renamed, "eth4"));
        assert!(known.is(&link(4, OTHER), "eth4"));
        assert!(!known.is(&Link { name: "wan0".to_owned(), ..link(4, OTHER) }, "eth4"));
        let alternative = Link {
            name: "wan0".to_owned(),
            alt_names: vec!["left-port".to_owned()],
            ..link(4, OTHER)
        };
        assert!(known.is(&alternative, "left-port"));
    }

    #[test]
    fn changes_of_name_and_mac_are_followed_until_the_device_goes() {
        let mut known = KnownDevice::from(&link(4, OWN));
        known.follow(&event(NetEventKind::LinkDown, 5, "eth5", OTHER));
        assert_eq!(known, KnownDevice::from(&link(4, OWN)));
        known.follow(&event(NetEventKind::LinkDown, 4, "wan0", OWN));
        known.follow(&event(NetEventKind::LinkRunning, 4, "wan0", OTHER));
        assert_eq!((known.name.as_str(), known.mac), ("wan0", Some(OTHER)));
        known.follow(&event(NetEventKind::LinkGone, 4, "wan0", OTHER));
        known.follow(&event(NetEventKind::LinkRunning, 4, "new0", OWN));
        assert_eq!((known.ifindex, known.name.as_str(), known.mac), (0, "wan0", Some(OTHER)));
    }

    #[test]
    fn a_mac_of_zeros_identifies_nothing() {
        assert_eq!(KnownDevice::from(&link(4, [0; 6])).mac, None);
    }
}
