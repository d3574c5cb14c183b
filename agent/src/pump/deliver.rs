//! From the record store to the sockets, per target.

use std::sync::Arc;

use arc_swap::{ArcSwap, Cache};

use super::{BATCH, Pump, TargetSeed, flight::Flight, tag::Datagram};
use crate::{
    capture::sequencer::MissingReason,
    egress::{Egress, Outcome, PushError, Tag},
    ledger::{Ledger, LostReason, SharedLedger},
    netconsole::{Encoder, Extras},
    record::Record,
    store::{Cursor, Entry, Store},
    target::{Route, TargetSettings, pace::Bucket},
};

/// Most records of one target in flight or given back: as many as the sockets that
/// the agent opens have slots. A larger socket is not filled by one target alone.
pub(super) const FLIGHT_RECORDS: usize = 4096;

/// A device that drops what it is given (it has no carrier, and the kernel's link watch may
/// hold that news back for a second) is tried again after this long, for so long.
const DROPPED_HOLD_NS: u64 = 5_000_000;
const DROPPED_PATIENCE_NS: u64 = 3_000_000_000;

/// Why a target stopped sending in this round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// Nothing is left that could go out: all is sent, or it has no way.
    Done,
    /// It had its turn, and there is more.
    Turn,
    /// Its socket has no room.
    Full,
    /// What it has in another socket must be settled first.
    OtherSocket,
    /// It has sent as much as it may until then (the pump's clock, nanoseconds), or its
    /// device drops what it is given.
    Paced(u64),
}

/// What it takes to send a record again.
#[derive(Clone, Copy, Debug)]
struct Sendable {
    cursor: Cursor,
    msgid: u32,
}

/// What became of a record that was to be pushed.
enum Pushed {
    InFlight,
    /// Its fate was known at once.
    DoneWith,
}

/// What the targets share.
pub(super) struct Shared<'a> {
    pub(super) now_ns: u64,
    pub(super) store: &'a Store,
    pub(super) encoder: &'a mut Encoder,
    pub(super) egresses: &'a mut [Option<Box<dyn Egress>>],
}

/// A target's state on the data path.
pub(super) struct PumpTarget {
    settings: Cache<Arc<ArcSwap<TargetSettings>>, Arc<TargetSettings>>,
    cursor: Cursor,
    flight: Flight<Sendable>,
    route: Option<Box<Route>>,
    bucket: Bucket,
    /// How the last round ended.
    stop: Stop,
    ledger: Ledger,
    shared: Arc<SharedLedger>,
    /// Number of the last message, as the kernel's `msgid`: the first one is 1.
    msgid: u32,
    ip_id: u16,
    /// The worst that happened to a datagram of the record whose fate is being told.
    worst: Outcome,
    /// When the device began to drop what it was given.
    dropping_since_ns: Option<u64>,
    /// Nothing is pushed before, because the device dropped the last record.
    hold_until_ns: u64,
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
            flight: Flight::new(FLIGHT_RECORDS, Sendable { cursor, msgid: u32::MAX }),
            route: None,
            bucket: Bucket::default(),
            stop: Stop::Done,
            ledger,
            shared: seed.ledger,
            msgid: 0,
            ip_id: 0,
            worst: Outcome::Sent,
            dropping_since_ns: None,
            hold_until_ns: 0,
            published: ledger,
        }
    }

    /// Takes a new way, or none, and returns the old one. What is in flight is
    /// settled all the same.
    pub(super) fn bind(&mut self, route: Option<Box<Route>>) -> Option<Box<Route>> {
        self.dropping_since_ns = None;
        std::mem::replace(&mut self.route, route)
    }

    /// The socket at `index` is gone, and what it had is given back.
    pub(super) fn socket_retired(&mut self, index: usize) {
        self.flight.retired(index);
        // A record that was dropped may stand behind newer ones that are given back now.
        self.flight.restore_order(|a, b| a.cursor.seq().cmp(&b.cursor.seq()));
    }

    /// How the last round ended.
    pub(super) fn stop(&self) -> Stop {
        self.stop
    }

    pub(super) fn publish(&mut self, store: &Store) {
        self.ledger.next_seq = store.next_seq();
        self.ledger.waiting = store.next_seq() - self.cursor.seq() + self.flight.again() as u64;
        debug_assert!(self.ledger.balances(), "{:?}", self.ledger);
        if self.ledger != self.published {
            self.shared.publish(&self.ledger);
            self.published = self.ledger;
        }
    }

    /// Goes through up to [`BATCH`] records, first those that are to be sent again,
    /// then those at the cursor; returns how many it is done with.
    pub(super) fn send(&mut self, index: usize, shared: &mut Shared<'_>) -> usize {
        for done in 0..BATCH {
            if let Err(stop) = self.send_next(index, shared) {
                self.stop = stop;
                return done;
            }
        }
        self.stop = Stop::Turn;
        BATCH
    }

    fn send_next(&mut self, index: usize, shared: &mut Shared<'_>) -> Result<(), Stop> {
        let store = shared.store;
        let again = self.flight.next_again();
        let cursor = again.map_or(self.cursor, |again| again.cursor);
        let pushed = match store.get(&cursor).ok_or(Stop::Done)? {
            Entry::FellOff { count } => {
                // Others that are to be sent again may have fallen off with it; each is
                // counted for itself.
                let count = if again.is_some() { 1 } else { count };
                self.give_up(LostReason::Backlog, count)
            }
            Entry::Missing { count, reason } => {
                let reason = match reason {
                    MissingReason::KernelOverwrote => LostReason::KernelOverwrote,
                    MissingReason::NotCaptured => LostReason::NotCaptured,
                };
                self.give_up(reason, count)
            }
            Entry::Record(record) => {
                if again.is_none() && !self.settings.load().wants(&record) {
                    self.filter()
                } else {
                    self.push(index, &record, cursor, again.map(|again| again.msgid), shared)?
                }
            }
        };
        match (again, pushed) {
            (Some(_), Pushed::DoneWith) => self.flight.drop_again(),
            (Some(_), Pushed::InFlight) => {}
            (None, _) => store.advance(&mut self.cursor),
        }
        Ok(())
    }

    /// Pushes the datagrams of one record; `old_msgid` if it had its turn before.
    fn push(
        &mut self,
        index: usize,
        record: &Record<'_>,
        cursor: Cursor,
        old_msgid: Option<u32>,
        shared: &mut Shared<'_>,
    ) -> Result<Pushed, Stop> {
        let route = self.route.as_deref().ok_or(Stop::Done)?;
        let Some(Some(egress)) = shared.egresses.get_mut(route.egress) else {
            return Err(Stop::Done);
        };
        if !self.flight.may_use(route.egress) {
            return Err(Stop::OtherSocket);
        }
        if !self.flight.has_room() {
            return Err(Stop::Full);
        }
        if shared.now_ns < self.hold_until_ns {
            return Err(Stop::Paced(self.hold_until_ns));
        }
        let settings = self.settings.load();
        if self.flight.begun() == 0
            && let Some(pace) = settings.pace
        {
            self.bucket.admit(pace, shared.now_ns).map_err(Stop::Paced)?;
        }
        let msgid = old_msgid.unwrap_or(self.msgid.wrapping_add(1));
        let mut datagrams =
            shared.encoder.encode(record, &settings.format, msgid, &Extras::default());
        let count = datagrams.count();
        if count == 0 {
            // The basic format shows no line of it, as on the kernel's consoles.
            return Ok(self.filter());
        }
        if self.flight.begun() >= count {
            // Other settings make fewer datagrams of it.
            self.flight.begin_anew();
        }
        datagrams.skip(self.flight.begun());
        while self.flight.begun() < count {
            let tag = Datagram {
                // Cuts it in half.
                seq_low: record.seq as u32,
                target: index,
                first: self.flight.begun() == 0,
                last: self.flight.begun() + 1 == count,
                approximated: record.approximated,
            };
            let ip_id = self.ip_id;
            let pushed =
                egress.push(tag.into(), route.mtu_bytes, &mut |slot| match &route.header {
                    Some(header) => {
                        let payload = slot.get_mut(header.header_len()..).unwrap_or_default();
                        let len = datagrams.write_next(payload).unwrap_or(0);
                        header.write(slot, len, ip_id)
                    }
                    None => datagrams.write_next(slot).unwrap_or(0),
                });
            let refused = match pushed {
                Ok(()) => {
                    self.flight.pushed();
                    self.bucket.pay();
                    self.ip_id = self.ip_id.wrapping_add(1);
                    self.ledger.packets += 1;
                    continue;
                }
                Err(PushError::Full) => return Err(Stop::Full),
                Err(PushError::TooLong { .. }) => LostReason::TooLong,
                Err(PushError::TooShort { .. }) => LostReason::Refused,
            };
            // It cannot go this way at all; the next one may.
            self.take_msgid(old_msgid, msgid);
            return Ok(self.give_up(refused, 1));
        }
        self.take_msgid(old_msgid, msgid);
        self.flight.is_in_flight(Sendable { cursor, msgid });
        self.ledger.in_flight += 1;
        Ok(Pushed::InFlight)
    }

    /// Something of this record was sent: what the device dropped before it would now be
    /// out of order.
    fn lose_dropped_before(&mut self, seq_low: u32) {
        let is_older = |seq: u64| (seq_low.wrapping_sub(seq as u32) as i32) > 0;
        while self.flight.next_again().is_some_and(|again| is_older(again.cursor.seq())) {
            self.flight.drop_again();
            self.ledger.lose(LostReason::Refused, 1);
        }
    }

    /// Whether what a device drops is worth another try.
    fn keeps_trying(&mut self, now_ns: u64) -> bool {
        let since_ns = *self.dropping_since_ns.get_or_insert(now_ns);
        now_ns.saturating_sub(since_ns) < DROPPED_PATIENCE_NS
    }

    fn take_msgid(&mut self, old: Option<u32>, msgid: u32) {
        if old.is_none() {
            self.msgid = msgid;
        }
    }

    fn give_up(&mut self, reason: LostReason, count: u64) -> Pushed {
        self.ledger.lose(reason, count);
        self.flight.begin_anew();
        Pushed::DoneWith
    }

    fn filter(&mut self) -> Pushed {
        self.ledger.filtered += 1;
        self.flight.begin_anew();
        Pushed::DoneWith
    }
}

impl Pump {
    /// Sends what the targets have not got yet; returns how many entries moved.
    pub(super) fn deliver(&mut self, now_ns: u64) -> usize {
        let Self { targets, store, encoder, egresses, .. } = self;
        let mut shared = Shared { now_ns, store, encoder, egresses };
        let targets = targets.iter_mut().enumerate();
        targets.map(|(index, target)| target.send(index, &mut shared)).sum()
    }
}

/// Counts the fate of one datagram; `None` if its socket gave it back: then its
/// record will be sent again.
pub(super) fn settle(targets: &mut [PumpTarget], tag: Tag, outcome: Option<Outcome>, now_ns: u64) {
    let Datagram { target, seq_low, first, last, approximated } = tag.into();
    let Some(target) = targets.get_mut(target) else { return };
    target.ledger.in_flight -= u64::from(last);
    let Some(outcome) = outcome else {
        target.flight.given_back(last);
        return;
    };
    if first {
        target.worst = Outcome::Sent;
    }
    target.worst = target.worst.max(outcome);
    if last && target.worst == Outcome::Dropped && target.keeps_trying(now_ns) {
        target.flight.dropped(|other, this| other.cursor.seq() < this.cursor.seq());
        target.hold_until_ns = now_ns + DROPPED_HOLD_NS;
        return;
    }
    target.flight.settled(last);
    if outcome == Outcome::Sent {
        target.dropping_since_ns = None;
        target.lose_dropped_before(seq_low);
    }
    if last && target.worst == Outcome::Sent {
        target.ledger.sent += 1;
        target.ledger.approximated += u64::from(approximated);
    } else if last {
        target.ledger.lose(LostReason::Refused, 1);
    }
}
