//! What a target's receiver has to be told: that records are missing which nobody had.
//!
//! As `/dev/kmsg` tells its readers by EPIPE, but with the range and the count, in a line of the
//! stream. It is told again if the socket that had the line was retired, and until it has left,
//! the target's checkpoint stays before the gap.

use std::{fmt, io::Write as _};

use crate::ledger::LostReason;

/// Longest line in bytes.
pub(super) const LINE_MAX_BYTES: usize = 192;

/// Reasons that are told: those that came from outside of the target's own way.
const TOLD: [LostReason; 3] =
    [LostReason::KernelOverwrote, LostReason::NotCaptured, LostReason::Backlog];

/// Records that are missing, perhaps in several places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gap {
    first_seq: u64,
    last_seq: u64,
    /// By the order of [`TOLD`].
    lost: [u64; TOLD.len()],
}

impl Gap {
    fn add(&mut self, other: &Self) {
        self.first_seq = self.first_seq.min(other.first_seq);
        self.last_seq = self.last_seq.max(other.last_seq);
        for (own, other) in self.lost.iter_mut().zip(other.lost) {
            *own += other;
        }
    }

    /// Writes the line and returns it. Allocates nothing.
    pub(super) fn write<'a>(&self, buffer: &'a mut [u8; LINE_MAX_BYTES]) -> &'a [u8] {
        let mut rest = &mut buffer[..];
        // The longest fits; were it not so, it would be cut.
        let _ = write!(rest, "{self}");
        let left_bytes = rest.len();
        &buffer[..LINE_MAX_BYTES - left_bytes]
    }
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count: u64 = self.lost.iter().sum();
        let plural = if count == 1 { "" } else { "s" };
        write!(f, "{count} record{plural} lost, seq {} to {}:", self.first_seq, self.last_seq)?;
        let told = TOLD.iter().zip(self.lost).filter(|(_, lost)| *lost > 0);
        for (index, (reason, lost)) in told.enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma} {} {lost}", reason.name())?;
        }
        Ok(())
    }
}

/// The gaps of one target that are not told yet.
#[derive(Debug, Default)]
pub(super) struct Gaps {
    untold: Option<Gap>,
    /// Its line is in a socket.
    in_flight: Option<Gap>,
}

impl Gaps {
    /// So many records from `first_seq` on are lost.
    pub(super) fn add(&mut self, first_seq: u64, count: u64, reason: LostReason) {
        let lost = TOLD.map(|told| if told == reason { count } else { 0 });
        if count > 0 && lost.iter().sum::<u64>() > 0 {
            self.put_back(Gap { first_seq, last_seq: first_seq + count - 1, lost });
        }
    }

    fn put_back(&mut self, gap: Gap) {
        match &mut self.untold {
            Some(untold) => untold.add(&gap),
            None => self.untold = Some(gap),
        }
    }

    /// What is to be told next; one line at a time is on its way.
    pub(super) fn untold(&self) -> Option<&Gap> {
        self.untold.as_ref().filter(|_| self.in_flight.is_none())
    }

    /// The line about [`Gaps::untold`] was handed over.
    pub(super) fn is_in_flight(&mut self) {
        self.in_flight = self.untold.take();
    }

    /// The fate of the line is known.
    pub(super) fn settled(&mut self, sent: bool) {
        if let Some(gap) = self.in_flight.take()
            && !sent
        {
            self.put_back(gap);
        }
    }

    /// The first seq that the receiver has not been told about.
    pub(super) fn first_seq(&self) -> Option<u64> {
        let gaps = [&self.untold, &self.in_flight].into_iter().flatten();
        gaps.map(|gap| gap.first_seq).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(gaps: &Gaps) -> String {
        let mut buffer = [0; LINE_MAX_BYTES];
        let line = gaps.untold().expect("a gap").write(&mut buffer);
        String::from_utf8(line.to_vec()).unwrap()
    }

    #[test]
    fn gaps_before_the_line_leaves_are_one() {
        let mut gaps = Gaps::default();
        gaps.add(100, 1, LostReason::KernelOverwrote);
        assert_eq!(line(&gaps), "1 record lost, seq 100 to 100: kernel_overwrote 1");
        gaps.add(200, 50, LostReason::Backlog);
        gaps.add(260, 2, LostReason::KernelOverwrote);
        let both = "53 records lost, seq 100 to 261: kernel_overwrote 3, backlog 50";
        assert_eq!(line(&gaps), both);
        let shown = format!("```text\nnetconsole-agent, notice: {both}\n```\n");
        assert!(
            include_str!("../../../README.md").contains(&shown),
            "the README shows another one"
        );
        gaps.is_in_flight();
        assert_eq!((gaps.untold(), gaps.first_seq()), (None, Some(100)));
        gaps.settled(false);
        assert_eq!(line(&gaps), both, "told again");
        gaps.is_in_flight();
        gaps.add(300, 1, LostReason::NotCaptured);
        assert_eq!(gaps.untold(), None, "one line at a time");
        gaps.settled(true);
        assert_eq!(line(&gaps), "1 record lost, seq 300 to 300: not_captured 1");
        gaps.is_in_flight();
        gaps.settled(true);
        assert_eq!((gaps.untold(), gaps.first_seq()), (None, None));
    }

    #[test]
    fn the_longest_line_fits() {
        let mut gaps = Gaps::default();
        for reason in TOLD {
            gaps.add(u64::MAX / 2, u64::MAX / 4, reason);
        }
        assert!(line(&gaps).len() < LINE_MAX_BYTES);
    }

    #[test]
    fn what_the_way_out_refused_is_not_told() {
        let mut gaps = Gaps::default();
        gaps.add(7, 1, LostReason::Refused);
        gaps.add(7, 0, LostReason::Backlog);
        assert_eq!(gaps.untold(), None);
    }
}
