//! From the record store to the sockets, per target.

use std::{collections::VecDeque, sync::Arc};

use arc_swap::{ArcSwap, Cache};

use super::{BATCH, Pump, TargetSeed};
use crate::{
    capture::sequencer::MissingReason,
    egress::{Egress, Outcome, PushError, Tag},
    ledger::{Ledger, LostReason, SharedLedger},
    netconsole::Encoder,
    record::Record,
    store::{Cursor, Entry, Store},
    target::{Route, TargetSettings, pace::Bucket},
};

/// Most records of one target between a socket and its word on their fate: the most slots that
/// a socket has.
const IN_FLIGHT_MAX: usize = 2048;

/// A device that drops what it is given (it has no carrier, and the kernel's link watch may hold
/// that news back for a second) is tried again after this long, for so long.
const DROPPED_HOLD_NS: u64 = 5_000_000;
const DROPPED_PATIENCE_NS: u64 = 3_000_000_000;

/// A record that a socket has, or gave back.
#[derive(Clone, Copy)]
struct Handed {
    cursor: Cursor,
    msgid: u32,
}

/// A target's state on the data path.
pub(super) struct PumpTarget {
    settings: Cache<Arc<ArcSwap<TargetSettings>>, Arc<TargetSettings>>,
    cursor: Cursor,
    route: Option<Box<Route>>,
    /// Records that the socket has whole, in the order of their pushes.
    in_flight: VecDeque<Handed>,
    /// The socket that they are with.
    in_flight_on: usize,
    /// Records that a retired socket gave back, by seq; they go first.
    resend: VecDeque<Handed>,
    bucket: Option<Bucket>,
    /// When the device began to drop what it was given.
    dropping_since_ns: Option<u64>,
    /// Nothing is pushed before, because the device dropped the last record.
    hold_until_ns: u64,
    ledger: Ledger,
    shared: Arc<SharedLedger>,
    /// Number of the last message, as the kernel's `msgid`: the first one is 1.
    msgid: u32,
    /// Datagrams of the record whose turn it is that the socket has taken.
    fragments_done: usize,
    ip_id: u16,
    /// The worst that happened to a datagram of the record whose fate is being told.
    worst: Outcome,
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
            in_flight: VecDeque::with_capacity(IN_FLIGHT_MAX),
            in_flight_on: 0,
            resend: VecDeque::with_capacity(IN_FLIGHT_MAX),
            bucket: None,
            dropping_since_ns: None,
            hold_until_ns: 0,
            ledger,
            shared: seed.ledger,
            msgid: 0,
            fragments_done: 0,
            ip_id: 0,
            worst: Outcome::Sent,
            published: ledger,
        }
    }

    /// Takes a new way and returns the old one.
    pub(super) fn bind(&mut self, route: Box<Route>) -> Option<Box<Route>> {
        self.dropping_since_ns = None;
        let old = self.route.replace(route);
        if old.as_ref().map(|old| old.egress) != self.route.as_ref().map(|new| new.egress) {
            // A record goes out whole on one socket.
            self.fragments_done = 0;
        }
        old
    }

    /// Gives the way back, and sends nothing until there is a new one.
    pub(super) fn unbind(&mut self) -> Option<Box<Route>> {
        self.fragments_done = 0;
        self.route.take()
    }

    /// The socket at `index` is gone; a record that was sent in part starts anew.
    pub(super) fn socket_retired(&mut self, index: usize) {
        if self.route.as_ref().is_some_and(|route| route.egress == index) {
            self.fragments_done = 0;
        }
    }

    /// Whether something is left that could go out now.
    pub(super) fn can_send(
        &self,
        now_ns: u64,
        store: &Store,
        egresses: &[Option<Box<dyn Egress>>],
    ) -> bool {
        self.has_way(egresses) && self.has_more(store) && self.held_until_ns(now_ns).is_none()
    }

    /// When the next record may go, if it is held back by the pace or by a device that drops.
    pub(super) fn held_until_ns(&self, now_ns: u64) -> Option<u64> {
        let paced = self.bucket.as_ref().and_then(Bucket::ready_at_ns);
        let held = Some(self.hold_until_ns).filter(|until| *until > now_ns);
        paced.max(held)
    }

    fn has_more(&self, store: &Store) -> bool {
        !self.resend.is_empty() || store.get(&self.cursor).is_some()
    }

    /// A way, and nothing on an older one whose fate is open: what is newer must not
    /// be on the wire before it.
    fn has_way(&self, egresses: &[Option<Box<dyn Egress>>]) -> bool {
        self.route.as_ref().is_some_and(|route| {
            matches!(egresses.get(route.egress), Some(Some(_)))
                && (self.in_flight.is_empty() || self.in_flight_on == route.egress)
        })
    }

    pub(super) fn publish(&mut self, store: &Store) {
        self.ledger.next_seq = store.next_seq();
        self.ledger.waiting = store.next_seq() - self.cursor.seq() + self.resend.len() as u64;
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
        now_ns: u64,
        store: &Store,
        encoder: &mut Encoder,
        egresses: &mut [Option<Box<dyn Egress>>],
    ) -> usize {
        self.refill(now_ns);
        if self.hold_until_ns > now_ns {
            return 0;
        }
        for done in 0..BATCH {
            if let Some(handed) = self.resend.front().copied() {
                if !self.send_again(index, handed, store, encoder, egresses) {
                    return done;
                }
                self.resend.pop_front();
                continue;
            }
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
                    } else {
                        let handed =
                            Handed { cursor: self.cursor, msgid: self.msgid.wrapping_add(1) };
                        match self.push(index, handed, &record, encoder, egresses) {
                            Pushed::Wait => return done,
                            Pushed::Unseen => {}
                            Pushed::Done => self.msgid = handed.msgid,
                        }
                    }
                }
            }
            store.advance(&mut self.cursor);
        }
        BATCH
    }

    /// Pushes a record that came back from a retired socket; false if it has to wait.
    fn send_again(
        &mut self,
        index: usize,
        handed: Handed,
        store: &Store,
        encoder: &mut Encoder,
        egresses: &mut [Option<Box<dyn Egress>>],
    ) -> bool {
        match store.get(&handed.cursor) {
            Some(Entry::Record(record)) => {
                !matches!(self.push(index, handed, &record, encoder, egresses), Pushed::Wait)
            }
            // Entries never change; it can only have fallen off.
            _ => {
                self.ledger.lose(LostReason::Backlog, 1);
                self.fragments_done = 0;
                true
            }
        }
    }

    /// Follows the settings' pace.
    fn refill(&mut self, now_ns: u64) {
        let pace = self.settings.load().pace;
        if self.bucket.as_ref().map(Bucket::pace) != pace {
            self.bucket = pace.map(|pace| Bucket::new(pace, now_ns));
        }
        if let Some(bucket) = &mut self.bucket {
            bucket.refill(now_ns);
        }
    }

    /// Pushes the datagrams of one record.
    fn push(
        &mut self,
        index: usize,
        handed: Handed,
        record: &Record<'_>,
        encoder: &mut Encoder,
        egresses: &mut [Option<Box<dyn Egress>>],
    ) -> Pushed {
        if !self.has_way(egresses) || self.in_flight.len() == IN_FLIGHT_MAX {
            return Pushed::Wait;
        }
        let Some(route) = &self.route else { return Pushed::Wait };
        let Some(Some(egress)) = egresses.get_mut(route.egress) else { return Pushed::Wait };
        let settings = self.settings.load();
        let mut datagrams = encoder.encode(record, &settings.format, handed.msgid);
        let count = datagrams.count();
        if count == 0 {
            // The basic format shows no line of it, as on the kernel's consoles.
            self.ledger.filtered += 1;
            return Pushed::Unseen;
        }
        // A record that was begun is finished: the pace does not tear it apart.
        if self.fragments_done == 0
            && self.bucket.as_mut().is_some_and(|bucket| !bucket.may_begin())
        {
            return Pushed::Wait;
        }
        datagrams.skip(self.fragments_done);
        while self.fragments_done < count {
            let (first, last) = (self.fragments_done == 0, self.fragments_done + 1 == count);
            let tag = tag(index, first, last, record.approximated);
            let ip_id = self.ip_id;
            let pushed =
                egress.push(tag, route.mtu_bytes as usize, &mut |slot| match &route.header {
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
                    if let Some(bucket) = &mut self.bucket {
                        bucket.take();
                    }
                }
                Err(PushError::Full) => return Pushed::Wait,
                // The record cannot go this way at all; the next one may.
                Err(PushError::TooLong { .. }) => return self.give_up(LostReason::TooLong),
                Err(PushError::TooShort { .. }) => return self.give_up(LostReason::Refused),
            }
        }
        self.in_flight_on = route.egress;
        self.in_flight.push_back(handed);
        self.ledger.in_flight += 1;
        self.fragments_done = 0;
        Pushed::Done
    }

    fn give_up(&mut self, reason: LostReason) -> Pushed {
        self.ledger.lose(reason, 1);
        self.fragments_done = 0;
        Pushed::Done
    }

    /// Puts a record in its place among those that are to be sent again.
    fn resend(&mut self, handed: Handed) {
        let older = |other: &Handed| other.cursor.seq() < handed.cursor.seq();
        let at = self.resend.partition_point(older);
        self.resend.insert(at, handed);
    }

    /// Whether what a device drops is worth another try.
    fn keeps_trying(&mut self, now_ns: u64) -> bool {
        let since_ns = *self.dropping_since_ns.get_or_insert(now_ns);
        now_ns.saturating_sub(since_ns) < DROPPED_PATIENCE_NS
    }

    /// The fate of the oldest record in flight is known.
    fn landed(&mut self) -> Option<Handed> {
        debug_assert_eq!(self.ledger.in_flight, self.in_flight.len() as u64);
        self.ledger.in_flight -= 1;
        self.in_flight.pop_front()
    }
}

/// What became of a record that was to be pushed.
enum Pushed {
    /// It has to wait.
    Wait,
    /// There is nothing to be sent of it.
    Unseen,
    /// The socket has it, or it was given up.
    Done,
}

impl Pump {
    /// Sends what the targets have not got yet; returns how many entries moved.
    pub(super) fn deliver(&mut self, now_ns: u64) -> usize {
        let Self { targets, store, encoder, egresses, .. } = self;
        targets
            .iter_mut()
            .enumerate()
            .map(|(index, target)| target.send(index, now_ns, store, encoder, egresses))
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
pub(super) fn settle(targets: &mut [PumpTarget], tag: Tag, outcome: Outcome, now_ns: u64) {
    let Some(target) = target_of(targets, tag) else { return };
    if tag.0 & FIRST != 0 {
        target.worst = Outcome::Sent;
    }
    target.worst = target.worst.max(outcome);
    if tag.0 & LAST == 0 {
        return;
    }
    let handed = target.landed();
    match (target.worst, handed) {
        (Outcome::Sent, _) => {
            target.ledger.sent += 1;
            target.ledger.approximated += u64::from(tag.0 & APPROXIMATED != 0);
            target.dropping_since_ns = None;
        }
        (Outcome::Dropped, Some(handed)) if target.keeps_trying(now_ns) => {
            target.resend(handed);
            target.hold_until_ns = now_ns + DROPPED_HOLD_NS;
        }
        (Outcome::Dropped | Outcome::Refused, _) => {
            target.ledger.lose(LostReason::Refused, 1);
        }
    }
}

/// Takes back a datagram that its socket gave up: its record is sent again, in its place.
pub(super) fn abandon(targets: &mut [PumpTarget], tag: Tag) {
    let Some(target) = target_of(targets, tag) else { return };
    if tag.0 & LAST != 0
        && let Some(handed) = target.landed()
    {
        target.resend(handed);
    }
}
