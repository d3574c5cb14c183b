//! From the record store to the sockets, per target.

use std::sync::Arc;

use arc_swap::{ArcSwap, Cache};

use super::{BATCH, Pump, TargetSeed};
use crate::{
    capture::sequencer::MissingReason,
    egress::{Egress, Outcome, PushError, Tag},
    ledger::{Ledger, LostReason, SharedLedger},
    netconsole::Encoder,
    record::Record,
    store::{Cursor, Entry, Store},
    target::{Route, TargetSettings},
};

/// A target's state on the data path.
pub(super) struct PumpTarget {
    settings: Cache<Arc<ArcSwap<TargetSettings>>, Arc<TargetSettings>>,
    cursor: Cursor,
    route: Option<Box<Route>>,
    ledger: Ledger,
    shared: Arc<SharedLedger>,
    /// Number of the last message, as the kernel's `msgid`: the first one is 1.
    msgid: u32,
    /// Datagrams of the record at the cursor that the socket has taken.
    fragments_done: usize,
    ip_id: u16,
    /// A datagram of the record whose fate is being told was refused.
    refused: bool,
    /// What was published last, to publish only changes.
    published: Ledger,
}

impl PumpTarget {
    pub(super) fn new(seed: TargetSeed, store: &Store) -> Self {
        let cursor = store.cursor_at_end();
        let ledger =
            Ledger { first_seq: cursor.seq(), next_seq: cursor.seq(), ..Ledger::default() };
        seed.ledger.publish(&ledger);
        Self {
            settings: Cache::new(seed.settings),
            cursor,
            route: None,
            ledger,
            shared: seed.ledger,
            msgid: 0,
            fragments_done: 0,
            ip_id: 0,
            refused: false,
            published: ledger,
        }
    }

    /// Takes a new way and returns the old one.
    pub(super) fn bind(&mut self, route: Box<Route>) -> Option<Box<Route>> {
        let old = self.route.replace(route);
        if old.as_ref().map(|old| old.egress) != self.route.as_ref().map(|new| new.egress) {
            // The record at the cursor goes out whole on one socket.
            self.fragments_done = 0;
        }
        old
    }

    /// The socket at `index` is gone; a record that was sent in part starts anew.
    pub(super) fn socket_retired(&mut self, index: usize) {
        if self.route.as_ref().is_some_and(|route| route.egress == index) {
            self.fragments_done = 0;
        }
    }

    /// Whether something is left that could go out now.
    pub(super) fn can_send(&self, store: &Store, egresses: &[Option<Box<dyn Egress>>]) -> bool {
        let Some(route) = &self.route else { return false };
        matches!(egresses.get(route.egress), Some(Some(_))) && store.get(&self.cursor).is_some()
    }

    pub(super) fn publish(&mut self, store: &Store) {
        self.ledger.next_seq = store.next_seq();
        self.ledger.waiting = store.next_seq() - self.cursor.seq();
        debug_assert!(self.ledger.balances(), "{:?}", self.ledger);
        if self.ledger != self.published {
            self.shared.publish(&self.ledger);
            self.published = self.ledger;
        }
    }

    /// Reads up to [`BATCH`] entries of the store and pushes what is wanted;
    /// returns how many entries were done with.
    fn send(
        &mut self,
        index: usize,
        store: &Store,
        encoder: &mut Encoder,
        egresses: &mut [Option<Box<dyn Egress>>],
    ) -> usize {
        for done in 0..BATCH {
            let Some(entry) = store.get(&self.cursor) else { return done };
            match entry {
                Entry::FellOff { count } => {
                    self.ledger.lose(LostReason::Backlog, count);
                    self.fragments_done = 0;
                }
                Entry::Missing { count, reason } => {
                    let reason = match reason {
                        MissingReason::KernelOverwrote => LostReason::KernelOverwrote,
                        MissingReason::NotCaptured => LostReason::NotCaptured,
                    };
                    self.ledger.lose(reason, count);
                }
                Entry::Record(record) => {
                    if !self.settings.load().wants(&record) {
                        self.ledger.filtered += 1;
                    } else if !self.push(index, &record, encoder, egresses) {
                        return done;
                    }
                }
            }
            store.advance(&mut self.cursor);
        }
        BATCH
    }

    /// Pushes the datagrams of one record; false if it has to wait.
    fn push(
        &mut self,
        index: usize,
        record: &Record<'_>,
        encoder: &mut Encoder,
        egresses: &mut [Option<Box<dyn Egress>>],
    ) -> bool {
        let Some(route) = &self.route else { return false };
        let Some(Some(egress)) = egresses.get_mut(route.egress) else { return false };
        let settings = self.settings.load();
        let msgid = self.msgid.wrapping_add(1);
        let mut datagrams = encoder.encode(record, &settings.format, msgid);
        let count = datagrams.count();
        if count == 0 {
            // The basic format shows no line of it, as on the kernel's consoles.
            self.ledger.filtered += 1;
            return true;
        }
        datagrams.skip(self.fragments_done);
        while self.fragments_done < count {
            let (first, last) = (self.fragments_done == 0, self.fragments_done + 1 == count);
            let tag = tag(index, first, last, record.approximated);
            let ip_id = self.ip_id;
            let pushed = egress.push(tag, &mut |slot| match &route.header {
                Some(header) => {
                    let payload = slot.get_mut(header.header_len()..).unwrap_or_default();
                    let len = datagrams.write_next(payload).unwrap_or(0);
                    header.write(slot, len, ip_id)
                }
                None => datagrams.write_next(slot).unwrap_or(0),
            });
            match pushed {
                Ok(()) => {
                    self.fragments_done += 1;
                    self.ip_id = self.ip_id.wrapping_add(1);
                    self.ledger.packets += 1;
                }
                Err(PushError::Full) => return false,
                Err(PushError::TooLong { .. }) => return self.give_up(LostReason::TooLong, msgid),
                Err(PushError::TooShort { .. }) => {
                    return self.give_up(LostReason::Refused, msgid);
                }
            }
        }
        self.ledger.in_flight += 1;
        self.finish_record(msgid);
        true
    }

    /// The record cannot go this way at all; the next one may.
    fn give_up(&mut self, reason: LostReason, msgid: u32) -> bool {
        self.ledger.lose(reason, 1);
        self.finish_record(msgid);
        true
    }

    fn finish_record(&mut self, msgid: u32) {
        self.msgid = msgid;
        self.fragments_done = 0;
    }
}

impl Pump {
    /// Sends what the targets have not got yet; returns how many entries moved.
    pub(super) fn deliver(&mut self) -> usize {
        let Self { targets, store, encoder, egresses, .. } = self;
        targets
            .iter_mut()
            .enumerate()
            .map(|(index, target)| target.send(index, store, encoder, egresses))
            .sum()
    }
}

const APPROXIMATED: u64 = 1 << 61;
const FIRST: u64 = 1 << 62;
const LAST: u64 = 1 << 63;

/// Names a datagram: its target, whether it begins or ends a record, and whether
/// that record is approximated.
fn tag(target: usize, first: bool, last: bool, approximated: bool) -> Tag {
    let bit = |set: bool, bit: u64| if set { bit } else { 0 };
    let bits = bit(first, FIRST) | bit(last, LAST) | bit(approximated, APPROXIMATED);
    Tag(target as u64 | bits)
}

fn target_of(targets: &mut [PumpTarget], tag: Tag) -> Option<&mut PumpTarget> {
    targets.get_mut((tag.0 & !(FIRST | LAST | APPROXIMATED)) as usize)
}

/// Counts the fate of one datagram.
pub(super) fn settle(targets: &mut [PumpTarget], tag: Tag, outcome: Outcome) {
    let Some(target) = target_of(targets, tag) else { return };
    if tag.0 & FIRST != 0 {
        target.refused = false;
    }
    target.refused |= outcome == Outcome::Refused;
    if tag.0 & LAST != 0 {
        target.ledger.in_flight -= 1;
        if target.refused {
            target.ledger.lose(LostReason::Refused, 1);
        } else {
            target.ledger.sent += 1;
            target.ledger.approximated += u64::from(tag.0 & APPROXIMATED != 0);
        }
    }
}

/// Counts a datagram that its socket gave up.
pub(super) fn abandon(targets: &mut [PumpTarget], tag: Tag) {
    let Some(target) = target_of(targets, tag) else { return };
    if tag.0 & LAST != 0 {
        target.ledger.in_flight -= 1;
        target.ledger.lose(LostReason::Retired, 1);
    }
}
