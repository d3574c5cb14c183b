//! What `/dev/kmsg` is asked for, because the ring has left it out, and how long the answer is
//! waited for (commit source). Pure.

use std::ops::Range;

use super::PATIENCE_NS;

/// How long a thread of `/dev/kmsg` that does not move is waited for, if the ring is so full that
/// waiting longer would cost more than it saves.
pub(super) const CROWDED_PATIENCE_NS: u64 = 10_000_000;

/// See the module's description.
///
/// To come to a gap the thread may have to read all that the kernel still has: it read nothing since
/// the gap before. So a thread that moves is waited for, which ends at the latest when it has read
/// the kernel's buffer once; patience is for one that stands still.
#[derive(Debug, Default)]
pub(super) struct Asking {
    /// For these, since then.
    asked: Option<(Range<u64>, u64)>,
    /// How far the thread has come, and since when it is there.
    thread_at: (u64, u64),
    /// Where the thread stood when it was waited for in vain: it is not waited for again before it
    /// has moved.
    in_vain_at: Option<u64>,
}

impl Asking {
    /// The thread will read this seq next, or a later one.
    pub(super) fn thread_is_at(&mut self, seq: u64, now_ns: u64) {
        if self.thread_at.0 != seq {
            self.thread_at = (seq, now_ns);
        }
    }

    /// Something has come.
    pub(super) fn is_answered(&mut self) {
        self.in_vain_at = None;
    }

    /// Everything before this seq is settled.
    pub(super) fn settled(&mut self, next_seq: u64) {
        self.asked.take_if(|(range, _)| range.end <= next_seq);
    }

    /// What is asked for.
    pub(super) fn wanted(&self) -> Option<Range<u64>> {
        self.asked.as_ref().map(|(range, _)| range.clone())
    }

    /// Asks for what is missing; until when the answer is to be waited for. `None`: no longer.
    /// `crowded_until`: the ring is crowded, and holds records up to this seq. Then there will be
    /// more gaps, and one question is for all of them.
    pub(super) fn wait_for(
        &mut self,
        missing: &Range<u64>,
        crowded_until: Option<u64>,
        now_ns: u64,
    ) -> Option<u64> {
        let until = crowded_until.map_or(missing.end, |seq| seq.max(missing.end));
        let (_, asked_ns) = self.asked.get_or_insert((missing.start..until, now_ns));
        let (thread_at, moved_ns) = self.thread_at;
        let patience_ns = if crowded_until.is_some() { CROWDED_PATIENCE_NS } else { PATIENCE_NS };
        let until_ns = moved_ns.max(*asked_ns) + patience_ns;
        if self.in_vain_at != Some(thread_at) && now_ns < until_ns {
            return Some(until_ns);
        }
        self.in_vain_at = Some(thread_at);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn a_thread_that_moves_is_waited_for_and_one_that_stands_still_is_not() {
        for (crowded_until, patience_ns) in [(None, PATIENCE_NS), (Some(5000), 10 * MS)] {
            let mut asking = Asking::default();
            let mut now_ns = 1;
            let wait = |asking: &mut Asking, first: u64, now_ns| {
                asking.wait_for(&(first..first + 2), crowded_until, now_ns)
            };
            // It reads all that the kernel has, which takes its time.
            for read in 0..50 {
                asking.thread_is_at(100 + read, now_ns);
                assert_eq!(wait(&mut asking, 900, now_ns), Some(now_ns + patience_ns));
                now_ns += patience_ns - MS;
            }
            assert!(wait(&mut asking, 900, now_ns).is_some());
            now_ns += MS;
            assert_eq!(wait(&mut asking, 900, now_ns), None);
            // Nor for later gaps, until it moves or something has come.
            asking.settled(5000);
            now_ns += MS;
            assert_eq!(wait(&mut asking, 6000, now_ns), None);
            asking.thread_is_at(1000, now_ns);
            assert!(wait(&mut asking, 6000, now_ns).is_some());
            now_ns += patience_ns;
            assert_eq!(wait(&mut asking, 6000, now_ns), None);
            asking.settled(8000);
            asking.is_answered();
            assert!(wait(&mut asking, 9000, now_ns).is_some());
        }
    }

    #[test]
    fn a_crowded_ring_asks_once_for_all_its_gaps() {
        let mut asking = Asking::default();
        asking.wait_for(&(10..12), Some(500), 1);
        assert_eq!(asking.wanted(), Some(10..500));
        for next_seq in [12, 30, 499] {
            asking.settled(next_seq);
            asking.wait_for(&(next_seq..next_seq + 1), Some(900), 2);
            assert_eq!(asking.wanted(), Some(10..500));
        }
        asking.settled(500);
        assert_eq!(asking.wanted(), None);
        asking.wait_for(&(600..601), None, 3);
        assert_eq!(asking.wanted(), Some(600..601));
    }
}
