//! Has the kernel find and confirm a neighbour's MAC. ARP and neighbour
//! discovery are the kernel's (`net/core/neighbour.c`, Linux 6.12); here it is
//! only asked to do them: with `NTF_USE` to resolve
//! (`include/uapi/linux/neighbour.h`), with the state `NUD_PROBE` to confirm.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use netlink_packet_route::neighbour::NeighbourState;
use rustix::io::Errno;
use tokio::time::Instant;

use super::netlink::{Neighbour, Netlink};
use crate::frame::MacAddr;

/// First and longest pause between two looks: an answer on a LAN takes less
/// than the first, a switch port that comes up takes seconds.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);
/// When the question is asked once more. The kernel would do so after a second (`retrans_time`), and the
/// first one is lost easily where a link has only just come up: a device drops what it is given until its
/// queue is attached (`linkwatch_do_dev`, `net/core/link_watch.c`), shortly after it has its carrier.
const ASKED_AGAIN_AFTER: Duration = Duration::from_millis(10);

/// What came of it.
#[derive(Debug)]
pub(super) enum Answer {
    Mac {
        mac: MacAddr,
        /// `None` for an entry that nobody confirms.
        confirmed_ago: Option<Duration>,
    },
    /// Nobody answered; the last state seen, `None` without an entry.
    Silence(Option<NeighbourState>),
}

/// What became of the wish to have a neighbour confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confirmation {
    /// The kernel asks the neighbour now; an event tells the answer, or after
    /// about three seconds (`ucast_solicit` probes) that there was none.
    Probing,
    /// The neighbour was heard of recently, and is not asked.
    Confirmed {
        /// How long ago.
        ago: Duration,
    },
    /// The entry is permanent, needs no ARP, or is kept by somebody else.
    NotOurs,
}

/// Has the kernel ask the neighbour whether it still has its MAC, unless it was
/// heard of within `fresh_for`. An entry without a MAC is resolved.
pub(super) async fn confirm(
    netlink: &Netlink,
    ifindex: u32,
    address: IpAddr,
    fresh_for: Duration,
) -> io::Result<Confirmation> {
    let entry = netlink.neighbour(ifindex, address).await?;
    let router = match confirm_step(entry.as_ref(), fresh_for) {
        Step::Done(confirmation) => return Ok(confirmation),
        Step::Use => None,
        Step::Probe { router } => Some(router),
    };
    let probed = match router {
        None => false,
        Some(router) => match netlink.probe_neighbour(ifindex, address, router).await {
            Ok(()) => true,
            // It lost its MAC or went in the meantime.
            Err(error)
                if matches!(Errno::from_io_error(&error), Some(Errno::INVAL | Errno::NOENT)) =>
            {
                false
            }
            Err(error) => return Err(error),
        },
    };
    if !probed {
        netlink.use_neighbour(ifindex, address).await?;
    }
    Ok(Confirmation::Probing)
}

#[derive(Debug, PartialEq, Eq)]
enum Step {
    Done(Confirmation),
    /// Resolve it.
    Use,
    /// Ask at its MAC.
    Probe {
        router: bool,
    },
}

fn confirm_step(entry: Option<&Neighbour>, fresh_for: Duration) -> Step {
    let Some(entry) = entry else { return Step::Use };
    if entry.kept {
        return Step::Done(Confirmation::NotOurs);
    }
    match (entry.state, entry.confirmed_ago) {
        (NeighbourState::Permanent | NeighbourState::Noarp, _) => Step::Done(Confirmation::NotOurs),
        // The kernel is at it.
        (NeighbourState::Incomplete | NeighbourState::Probe, _) => {
            Step::Done(Confirmation::Probing)
        }
        (NeighbourState::Reachable | NeighbourState::Stale | NeighbourState::Delay, Some(ago))
            if ago < fresh_for =>
        {
            Step::Done(Confirmation::Confirmed { ago })
        }
        (NeighbourState::Reachable | NeighbourState::Stale | NeighbourState::Delay, _) => {
            Step::Probe { router: entry.router }
        }
        _ => Step::Use,
    }
}

/// Looks `address` up on the device, and has it resolved where needed.
///
/// A stale MAC is returned at once, and the kernel is asked to confirm it: a
/// later call sees the result. Without `patience` nothing is resolved: what is
/// there has to do.
pub(super) async fn resolve(
    netlink: &Netlink,
    ifindex: u32,
    address: IpAddr,
    patience: Option<Duration>,
) -> io::Result<Answer> {
    let begin = Instant::now();
    let deadline = begin + patience.unwrap_or_default();
    let mut ask_again = patience.is_some();
    let mut pause = FIRST_PAUSE;
    let mut entry = netlink.neighbour(ifindex, address).await?;
    loop {
        if patience.is_some() && wants_use(entry.as_ref()) {
            netlink.use_neighbour(ifindex, address).await?;
        }
        if let Some((entry, mac)) =
            entry.as_ref().and_then(|entry| Some((entry, usable_mac(entry)?)))
        {
            let confirmed_ago = entry.confirmed_ago.filter(|_| is_confirmed(entry.state));
            return Ok(Answer::Mac { mac, confirmed_ago });
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(Answer::Silence(entry.map(|entry| entry.state)));
        }
        if ask_again && begin.elapsed() >= ASKED_AGAIN_AFTER {
            ask_again = false;
            if entry.as_ref().is_some_and(|entry| entry.state == NeighbourState::Incomplete) {
                netlink.restart_neighbour(ifindex, address).await?;
                netlink.use_neighbour(ifindex, address).await?;
                pause = FIRST_PAUSE;
            }
        }
        tokio::time::sleep(pause.min(left)).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
        entry = netlink.neighbour(ifindex, address).await?;
    }
}

/// Whether the kernel does nothing for the entry by itself. It does while it
/// probes, needs not where the entry is confirmed or configured.
fn wants_use(entry: Option<&Neighbour>) -> bool {
    entry.is_none_or(|entry| {
        !entry.kept
            && matches!(
                entry.state,
                NeighbourState::None | NeighbourState::Failed | NeighbourState::Stale
            )
    })
}

/// Whether the neighbour itself has to confirm an entry in this state.
fn is_confirmed(state: NeighbourState) -> bool {
    !matches!(state, NeighbourState::Permanent | NeighbourState::Noarp)
}

/// The MAC of an entry that packets would be sent to (`NUD_VALID`,
/// `include/net/neighbour.h`).
pub(crate) fn usable_mac(entry: &Neighbour) -> Option<MacAddr> {
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

    fn entry(state: NeighbourState) -> Neighbour {
        let ago = Some(Duration::from_secs(7));
        Neighbour { state, mac: Some([2; 6]), confirmed_ago: ago, router: false, kept: false }
    }

    #[test]
    fn configured_entries_are_left_alone() {
        for state in [NeighbourState::Permanent, NeighbourState::Noarp, NeighbourState::Reachable] {
            assert!(!wants_use(Some(&entry(state))));
            assert_eq!(usable_mac(&entry(state)), Some([2; 6]));
        }
    }

    #[test]
    fn a_failed_entry_is_tried_again_and_its_old_mac_is_not_used() {
        let entry = entry(NeighbourState::Failed);
        assert!(wants_use(Some(&entry)));
        assert_eq!(usable_mac(&entry), None);
        assert!(wants_use(None));
    }

    #[test]
    fn a_stale_mac_is_used_and_confirmed() {
        let entry = entry(NeighbourState::Stale);
        assert!(wants_use(Some(&entry)));
        assert_eq!(usable_mac(&entry), Some([2; 6]));
    }

    #[test]
    fn what_somebody_else_keeps_is_used_and_never_updated() {
        for state in [NeighbourState::Stale, NeighbourState::Failed, NeighbourState::Reachable] {
            let kept = Neighbour { kept: true, ..entry(state) };
            assert!(!wants_use(Some(&kept)));
            let step = confirm_step(Some(&kept), Duration::ZERO);
            assert_eq!(step, Step::Done(Confirmation::NotOurs));
        }
    }

    #[test]
    fn an_entry_is_probed_whatever_the_kernel_believes_unless_it_is_fresh() {
        let (young, old) = (Duration::from_secs(5), Duration::from_secs(10));
        for state in [NeighbourState::Reachable, NeighbourState::Stale, NeighbourState::Delay] {
            let router = Neighbour { router: true, ..entry(state) };
            assert_eq!(confirm_step(Some(&router), young), Step::Probe { router: true });
            let ago = Duration::from_secs(7);
            let fresh = Step::Done(Confirmation::Confirmed { ago });
            assert_eq!(confirm_step(Some(&entry(state)), old), fresh);
        }
        for state in [NeighbourState::Incomplete, NeighbourState::Probe] {
            let at_it = Step::Done(Confirmation::Probing);
            assert_eq!(confirm_step(Some(&entry(state)), young), at_it);
        }
        for state in [NeighbourState::Permanent, NeighbourState::Noarp] {
            let not_ours = Step::Done(Confirmation::NotOurs);
            assert_eq!(confirm_step(Some(&entry(state)), young), not_ours);
        }
        for state in [NeighbourState::Failed, NeighbourState::None] {
            assert_eq!(confirm_step(Some(&entry(state)), old), Step::Use);
        }
        assert_eq!(confirm_step(None, young), Step::Use);
    }
}
