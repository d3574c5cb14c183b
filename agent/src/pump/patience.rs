//! How long a replay waits for the targets.
//!
//! What was logged before the start the kernel still has, and so does not need the store's room yet:
//! where the kernel's buffer is larger than the store, the rest of it can wait there until the
//! targets have sent what is in the store. But all targets, and what is logged now, come after it. So
//! it does not wait for a target that does not move, and not for long in all. Pure.

/// A target that has sent nothing for this long is not waited for: three times the time between two
/// packets at the slowest pace.
const STILL_NS: u64 = 3_000_000_000;
/// So long after the store was first full, no replay waits any more: at the default pace 600,000
/// datagrams more than the store holds.
const WAIT_MAX_NS: u64 = 30_000_000_000;

/// See the module's description.
#[derive(Debug, Default)]
pub(super) struct Patience {
    /// When there was no room for the first time.
    since_ns: Option<u64>,
}

impl Patience {
    /// The replay finds no room. Whether it waits for the targets that have more to send, of which
    /// each has last moved at such a time.
    pub(super) fn waits(&mut self, now_ns: u64, moved_ns: impl Iterator<Item = u64>) -> bool {
        let since_ns = *self.since_ns.get_or_insert(now_ns);
        // One that never moved has its time from now on.
        let mut moved_ns = moved_ns.map(|moved_ns| moved_ns.max(since_ns));
        let one_moves = moved_ns.any(|moved_ns| now_ns < moved_ns + STILL_NS);
        one_moves && now_ns < since_ns + WAIT_MAX_NS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    #[test]
    fn it_waits_for_who_moves_and_not_for_ever() {
        let mut patience = Patience::default();
        let mut waits = |now_s: u64, moved_s: &[u64]| {
            patience.waits(now_s * S, moved_s.iter().map(|moved_s| moved_s * S))
        };
        assert!(!waits(100, &[]), "nobody has anything to send");
        assert!(waits(101, &[0]) && waits(102, &[0]), "one may be about to move");
        assert!(!waits(103, &[0]), "it does not");
        assert!(!waits(115, &[0, 112]));
        assert!(waits(115, &[0, 113]));
        assert!(waits(129, &[129]));
        assert!(!waits(130, &[130]), "what is logged now has waited long enough");
    }
}
