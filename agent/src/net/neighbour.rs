//! Waits until the kernel knows a neighbour's MAC. ARP and neighbour discovery
//! are the kernel's; here it is only asked to do them (`NTF_USE`,
//! `include/uapi/linux/neighbour.h`).

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use netlink_packet_route::neighbour::NeighbourState;
use tokio::time::Instant;

use super::netlink::{Neighbour, Netlink};
use crate::frame::MacAddr;

/// First and longest pause between two looks: an answer on a LAN takes less
/// than the first, a switch port that comes up takes seconds.
const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// What came of it.
#[derive(Debug)]
pub(super) enum Answer {
    /// With how long ago it was last known to be right.
    Mac(MacAddr, Option<Duration>),
    /// Nobody answered; the last state seen, `None` without an entry.
    Silence(Option<NeighbourState>),
}

/// Looks `address` up on the device, and has it resolved where needed.
///
/// A stale MAC is returned at once, and the kernel is asked to confirm it: a
/// later call sees the result.
pub(super) async fn resolve(
    netlink: &Netlink,
    ifindex: u32,
    address: IpAddr,
    patience: Duration,
) -> io::Result<Answer> {
    let deadline = Instant::now() + patience;
    let mut pause = FIRST_PAUSE;
    let mut entry = netlink.neighbour(ifindex, address).await?;
    loop {
        if wants_use(entry.as_ref()) {
            netlink.use_neighbour(ifindex, address).await?;
        }
        if let Some(mac) = entry.as_ref().and_then(usable_mac) {
            let ago = entry.and_then(|entry| entry.confirmed_ago);
            return Ok(Answer::Mac(mac, ago));
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(Answer::Silence(entry.map(|entry| entry.state)));
        }
        tokio::time::sleep(pause.min(left)).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
        entry = netlink.neighbour(ifindex, address).await?;
    }
}

/// Has the kernel find out whether an entry still holds. What comes of it shows in the
/// entry: confirmed at once, or failed after three seconds, and then
/// [`resolve`] has it looked for by broadcast.
pub(super) async fn confirm(netlink: &Netlink, ifindex: u32, address: IpAddr) -> io::Result<()> {
    match netlink.neighbour(ifindex, address).await?.map(|entry| entry.state) {
        Some(NeighbourState::Reachable | NeighbourState::Stale | NeighbourState::Delay) => {
            netlink.probe_neighbour(ifindex, address).await
        }
        None | Some(NeighbourState::None | NeighbourState::Failed) => {
            netlink.use_neighbour(ifindex, address).await
        }
        // It is being asked already, or the operator answers for it.
        Some(_) => Ok(()),
    }
}

/// Whether the kernel does nothing for the entry by itself. It does while it
/// probes, needs not where the entry is confirmed or configured.
fn wants_use(entry: Option<&Neighbour>) -> bool {
    entry.is_none_or(|entry| {
        matches!(entry.state, NeighbourState::None | NeighbourState::Failed | NeighbourState::Stale)
    })
}

/// The MAC of an entry that packets would be sent to (`NUD_VALID`,
/// `include/net/neighbour.h`).
pub(super) fn usable_mac(entry: &Neighbour) -> Option<MacAddr> {
    match entry.state {
        NeighbourState::Reachable
        | NeighbourState::Stale
        | NeighbourState::Delay
        | NeighbourState::Probe
        | NeighbourState::Permanent
        | NeighbourState::Noarp => entry.mac,
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configured_entries_are_left_alone() {
        let mac = Some([2, 0, 0, 0, 0, 1]);
        for state in [NeighbourState::Permanent, NeighbourState::Noarp, NeighbourState::Reachable] {
            let entry = Neighbour { state, mac, confirmed_ago: None };
            assert!(!wants_use(Some(&entry)));
            assert_eq!(usable_mac(&entry), mac);
        }
    }

    #[test]
    fn a_failed_entry_is_tried_again_and_its_old_mac_is_not_used() {
        let entry =
            Neighbour { state: NeighbourState::Failed, mac: Some([2; 6]), confirmed_ago: None };
        assert!(wants_use(Some(&entry)));
        assert_eq!(usable_mac(&entry), None);
        assert!(wants_use(None));
    }

    #[test]
    fn a_stale_mac_is_used_and_confirmed() {
        let entry =
            Neighbour { state: NeighbourState::Stale, mac: Some([2; 6]), confirmed_ago: None };
        assert!(wants_use(Some(&entry)));
        assert_eq!(usable_mac(&entry), Some([2; 6]));
    }
}
