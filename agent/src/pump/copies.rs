//! Severe records are sent more than once, if their target wants it: byte for byte the same, so
//! that receivers drop what they have, and apart in time, so that one burst does not lose them all.

use std::collections::VecDeque;

use super::{
    deliver::Shared,
    message::COPY,
    tag::Datagram,
    target::{PumpTarget, Stop},
};
use crate::{egress::PushError, netconsole::Extras, record::Record, store::Place, target::SEVERE};

/// Between two copies. Eight of them are within the 5 s for which netconsd's `ncrx` knows a
/// sequence number again (`netconsd/ncrx`, see the README).
const SPACING_NS: u64 = 500_000_000;
/// Most records of a target whose copies are still to be sent; of more, the oldest have fewer.
const WAITING_MAX: usize = 64;

#[derive(Clone, Copy)]
struct Waiting {
    place: Place,
    msgid: u32,
    left: u8,
    due_ns: u64,
}

/// The copies of one target that are still to be sent, in the order of their time.
pub(super) struct Copies {
    waiting: VecDeque<Waiting>,
}

impl Copies {
    pub(super) fn new() -> Self {
        Self { waiting: VecDeque::with_capacity(WAITING_MAX) }
    }

    /// A record was pushed; `copies` is how often it is to be sent in all.
    pub(super) fn pushed(
        &mut self,
        record: &Record<'_>,
        place: Place,
        msgid: u32,
        copies: u8,
        now_ns: u64,
    ) {
        if copies <= 1 || record.level > SEVERE {
            return;
        }
        // One that is pushed again, because its socket was retired, begins anew.
        self.waiting.retain(|waiting| waiting.place.seq() != record.seq);
        if self.waiting.len() >= WAITING_MAX {
            self.waiting.pop_front();
        }
        let due_ns = now_ns + SPACING_NS;
        self.waiting.push_back(Waiting { place, msgid, left: copies - 1, due_ns });
    }

    /// When the next one is due.
    pub(super) fn due_ns(&self) -> Option<u64> {
        self.waiting.front().map(|waiting| waiting.due_ns)
    }

    /// The first one was sent, or never will be.
    fn next_sent(&mut self, possible: bool) {
        let Some(sent) = self.waiting.pop_front() else { return };
        if possible && sent.left > 1 {
            let again = Waiting { left: sent.left - 1, due_ns: sent.due_ns + SPACING_NS, ..sent };
            let later = self.waiting.partition_point(|waiting| waiting.due_ns <= again.due_ns);
            // There is room: one was taken out just now.
            self.waiting.insert(later, again);
        }
    }
}

impl PumpTarget {
    /// Sends a copy that is due; false if there is none.
    pub(super) fn send_copy(
        &mut self,
        index: usize,
        shared: &mut Shared<'_>,
    ) -> Result<bool, Stop> {
        let Some(first) = self.copies.waiting.front().copied() else { return Ok(false) };
        if first.due_ns > shared.now.now_ns || self.flight.begun() > 0 {
            return Ok(false);
        }
        let Some(record) = shared.store.at(&first.place) else {
            self.copies.next_sent(false);
            return Ok(true);
        };
        let extras = self.extras(&record, shared);
        let Self { route, settings, copies, ip_id, ledger, bucket, tap, .. } = self;
        let Some(route) = route.as_deref() else { return Ok(false) };
        let Some(Some(egress)) = shared.egresses.get_mut(route.egress) else { return Ok(false) };
        let settings = settings.load();
        if let Some(pace) = settings.pace {
            shared.now.admit(bucket, pace)?;
        }
        let extras = Extras { nic: &route.nic, ..extras };
        let mut datagrams = shared.encoder.encode(&record, &settings.format, first.msgid, &extras);
        let tag = Datagram::of_message(index, self.generation, COPY);
        for _ in 0..datagrams.count() {
            let pushed = egress.push(tag.into(), route.mtu_bytes, &mut |slot| {
                route.fill(slot, *ip_id, tap, |payload| datagrams.write_next(payload).unwrap_or(0))
            });
            match pushed {
                Ok(()) => {
                    bucket.pay();
                    *ip_id = ip_id.wrapping_add(1);
                    ledger.packets += 1;
                }
                // All of it once more, later: its receiver puts it together.
                Err(PushError::Full) => return Err(Stop::Full),
                Err(PushError::TooLong { .. } | PushError::TooShort { .. }) => break,
            }
        }
        copies.next_sent(true);
        Ok(true)
    }
}
