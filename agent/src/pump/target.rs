//! One target on the data path: what it is made of, how it begins and ends, and what becomes
//! of what it pushed. How it pushes is in [`super::deliver`].

use std::sync::Arc;

use arc_swap::{ArcSwap, Cache};

use super::{
    TargetSeed,
    copies::Copies,
    flight::Flight,
    gap::Gaps,
    message::{COPY, GAP_NOTICE, Message, Messages},
    tag::Datagram,
    tap::Tap,
};
use crate::{
    checkpoint::Checkpoint,
    egress::{Outcome, Tag},
    ledger::{Ledger, LostReason, SharedLedger},
    store::{Cursor, Place, Store},
    target::{Route, TargetSettings, pace::Bucket},
};

/// Most records of one target in flight or given back: as many as the sockets that
/// the agent opens have slots. A larger socket is not filled by one target alone.
pub(super) const FLIGHT_RECORDS: usize = 2048;

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
pub(super) struct Sendable {
    pub(super) place: Place,
    pub(super) msgid: u32,
}

/// A target's state on the data path.
pub struct PumpTarget {
    pub(super) settings: Cache<Arc<ArcSwap<TargetSettings>>, Arc<TargetSettings>>,
    pub(super) cursor: Cursor,
    /// The record at the cursor, once the filter has let it pass.
    pub(super) admitted_seq: Option<u64>,
    pub(super) flight: Flight<Sendable>,
    pub(super) route: Option<Box<Route>>,
    pub(super) generation: u8,
    /// The settings with which the record at hand was pushed in part.
    pub(super) begun_with: Option<Arc<TargetSettings>>,
    pub(super) messages: Messages,
    pub(super) copies: Copies,
    /// What its receiver has to be told.
    pub(super) gaps: Gaps,
    /// The first record it is to send, if not the next one.
    first_seq: Option<u64>,
    checkpoint: Option<Checkpoint>,
    /// What the checkpoint says.
    checkpoint_seq: u64,
    pub(super) tap: Option<Box<Tap>>,
    pub(super) bucket: Bucket,
    /// How the last round ended.
    pub(super) stop: Stop,
    /// How many records it had sent or filtered, and since when.
    done_with: (u64, u64),
    pub(super) ledger: Ledger,
    pub(super) shared: Arc<SharedLedger>,
    /// Number of the last message, as the kernel's `msgid`: the first one is 1.
    pub(super) msgid: u32,
    pub(super) ip_id: u16,
    /// The worst that happened to a datagram of the record whose fate is being told.
    pub(super) worst: Outcome,
    /// The record (the low half of its seq) of which something was sent, while it is not
    /// done with. There is only one: once something of a newer one is sent, it is lost.
    pub(super) part_sent: Option<u32>,
    /// Something of the record whose fate is being told was sent in an earlier try.
    pub(super) sent_before: bool,
    /// When the device began to drop what it was given.
    pub(super) dropping_since_ns: Option<u64>,
    /// Nothing is pushed before, because the device dropped the last record.
    pub(super) hold_until_ns: u64,
    /// What was published last, to publish only changes.
    pub(super) published: Ledger,
}

impl PumpTarget {
    /// A target for a pump; allocates all it will ever need.
    #[must_use]
    pub fn new(seed: TargetSeed) -> Box<Self> {
        Box::new(Self {
            settings: Cache::new(seed.settings),
            cursor: Cursor::default(),
            admitted_seq: None,
            flight: Flight::new(
                FLIGHT_RECORDS,
                Sendable { place: Place::NOWHERE, msgid: u32::MAX },
            ),
            route: None,
            generation: 0,
            begun_with: None,
            messages: Messages::new(),
            copies: Copies::new(),
            gaps: Gaps::default(),
            first_seq: seed.first_seq,
            checkpoint: seed.checkpoint,
            checkpoint_seq: u64::MAX,
            tap: None,
            bucket: Bucket::default(),
            stop: Stop::Done,
            done_with: (0, 0),
            ledger: Ledger::default(),
            shared: seed.ledger,
            msgid: 0,
            ip_id: 0,
            worst: Outcome::Sent,
            part_sent: None,
            sent_before: false,
            dropping_since_ns: None,
            hold_until_ns: 0,
            published: Ledger::default(),
        })
    }

    /// Begins with the next record, or a later one.
    pub(super) fn begin(&mut self, generation: u8, store: &Store) {
        self.generation = generation;
        self.cursor = store.cursor_at_end();
        let seq = self.first_seq.unwrap_or_default().max(self.cursor.seq());
        self.ledger = Ledger { first_seq: seq, next_seq: seq, ..Ledger::default() };
        self.published = self.ledger;
        self.shared.publish(&self.ledger);
        self.keep_checkpoint();
    }

    fn keep_checkpoint(&mut self) {
        // What the receiver has not been told is not done with either.
        let needed_seq = self.needed_seq();
        let next_seq = self.gaps.first_seq().map_or(needed_seq, |seq| seq.min(needed_seq));
        if let Some(checkpoint) = &self.checkpoint
            && next_seq != self.checkpoint_seq
        {
            checkpoint.store(next_seq);
            self.checkpoint_seq = next_seq;
        }
    }

    /// The target is removed: what it has not sent is lost.
    pub(super) fn end(&mut self, store: &Store) {
        self.publish(store);
        let queued = self.ledger.queued();
        (self.ledger.in_flight, self.ledger.waiting) = (0, 0);
        self.ledger.lose(LostReason::Removed, queued);
        self.shared.publish(&self.ledger);
    }

    /// Takes a message of an operator's, or gives it back.
    pub(super) fn message(&mut self, message: Box<Message>) -> Result<(), Box<Message>> {
        let taken = self.messages.take(message);
        self.ledger.messages_lost += u64::from(taken.is_err());
        taken
    }

    /// A message that has not been sent when the target is removed.
    pub(super) fn next_message_left(&mut self) -> Option<Box<Message>> {
        let left = self.messages.next_left();
        self.ledger.messages_lost += u64::from(left.is_some());
        left
    }

    /// A message that could not be sent.
    pub(super) fn take_refused_message(&mut self) -> Option<Box<Message>> {
        self.messages.take_refused()
    }

    /// Takes a new tap, or none, and returns the old one.
    pub(super) fn tap(&mut self, tap: Option<Box<Tap>>) -> Option<Box<Tap>> {
        std::mem::replace(&mut self.tap, tap)
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
        self.flight.restore_order(|a, b| a.place.seq().cmp(&b.place.seq()));
    }

    /// The first seq that it has not done with.
    pub(super) fn needed_seq(&self) -> u64 {
        let on_their_way = self.flight.oldest().map(|record| record.place.seq());
        on_their_way.fold(self.cursor.seq().max(self.ledger.first_seq), u64::min)
    }

    /// When a copy is due, if it can be sent at all.
    pub(super) fn copy_due_ns(&self) -> Option<u64> {
        self.copies.due_ns().filter(|_| self.route.is_some())
    }

    /// When it had last sent or filtered a record, as far as this was asked before.
    pub(super) fn moved_ns(&mut self, now_ns: u64) -> u64 {
        let count = self.ledger.sent + self.ledger.filtered;
        if self.done_with.0 != count {
            self.done_with = (count, now_ns);
        }
        self.done_with.1
    }

    /// How the last round ended.
    pub(super) fn stop(&self) -> Stop {
        self.stop
    }

    pub(super) fn publish(&mut self, store: &Store) {
        let first_seq = self.ledger.first_seq;
        let next_seq = store.next_seq().max(first_seq);
        self.ledger.next_seq = next_seq;
        self.ledger.waiting =
            next_seq - self.cursor.seq().max(first_seq) + self.flight.again() as u64;
        if self.ledger != self.published {
            self.shared.publish(&self.ledger);
            self.published = self.ledger;
        }
        self.keep_checkpoint();
    }
}

/// Counts the fate of one datagram; `None` if its socket gave it back: then its
/// record will be sent again. Returns a message that is done with.
pub(super) fn settle(
    targets: &mut [Option<Box<PumpTarget>>],
    tag: Tag,
    outcome: Option<Outcome>,
    now_ns: u64,
) -> Option<Box<Message>> {
    let datagram = Datagram::from(tag);
    let target = targets.get_mut(datagram.target)?.as_mut()?;
    if target.generation != datagram.generation {
        return None;
    }
    if datagram.message {
        return target.settle_message(datagram.seq_low, outcome, now_ns);
    }
    target.settle_record(&datagram, outcome, now_ns);
    None
}

impl PumpTarget {
    fn settle_message(
        &mut self,
        number: u32,
        outcome: Option<Outcome>,
        now_ns: u64,
    ) -> Option<Box<Message>> {
        if number == COPY {
            return None;
        }
        let is_gap = number == GAP_NOTICE;
        if is_gap {
            // What a device drops is told again, after a while; what cannot go at all, never.
            self.gaps.settled(matches!(outcome, Some(Outcome::Sent | Outcome::Refused)));
            if outcome == Some(Outcome::Dropped) {
                self.hold_until_ns = now_ns + DROPPED_HOLD_NS;
            }
        }
        match outcome {
            None => {
                let goes_again = self.messages.given_back(number) || is_gap;
                self.ledger.messages_lost += u64::from(!goes_again);
                return None;
            }
            Some(Outcome::Sent) => self.ledger.messages += 1,
            // It is told again.
            Some(Outcome::Dropped) if is_gap => {}
            Some(Outcome::Dropped | Outcome::Refused) => self.ledger.messages_lost += 1,
        }
        let mut message = self.messages.settled(number)?;
        message.sent = outcome == Some(Outcome::Sent);
        Some(message)
    }

    fn settle_record(&mut self, datagram: &Datagram, outcome: Option<Outcome>, now_ns: u64) {
        let Datagram { seq_low, first, last, approximated, backfilled, .. } = *datagram;
        self.ledger.in_flight -= u64::from(last);
        let Some(outcome) = outcome else {
            self.flight.given_back(last);
            return;
        };
        if first {
            self.worst = Outcome::Sent;
            self.sent_before = self.part_sent == Some(seq_low);
        }
        self.worst = self.worst.max(outcome);
        if outcome == Outcome::Sent {
            self.part_sent = Some(seq_low);
            self.lose_dropped_before(seq_low);
        }
        if last && self.worst == Outcome::Dropped && self.keeps_trying(now_ns) {
            self.flight.dropped(|other, this| other.place.seq() < this.place.seq());
            self.hold_until_ns = now_ns + DROPPED_HOLD_NS;
            return;
        }
        self.flight.settled(last);
        if last {
            self.part_sent = None;
        }
        if self.worst == Outcome::Sent {
            self.dropping_since_ns = None;
        }
        if last && self.worst == Outcome::Sent {
            self.ledger.sent += 1;
            self.ledger.approximated += u64::from(approximated);
            self.ledger.backfilled += u64::from(backfilled);
            self.ledger.doubled += u64::from(self.sent_before);
        } else if last {
            self.ledger.lose(LostReason::Refused, 1);
        }
    }

    /// Something of this record was sent: what the device dropped before it would now be
    /// out of order.
    fn lose_dropped_before(&mut self, seq_low: u32) {
        let is_older = |seq: u64| (seq_low.wrapping_sub(seq as u32) as i32) > 0;
        while self.flight.next_again().is_some_and(|again| is_older(again.place.seq())) {
            self.flight.drop_again();
            self.ledger.lose(LostReason::Refused, 1);
        }
    }

    /// Whether what a device drops is worth another try.
    fn keeps_trying(&mut self, now_ns: u64) -> bool {
        let since_ns = *self.dropping_since_ns.get_or_insert(now_ns);
        now_ns.saturating_sub(since_ns) < DROPPED_PATIENCE_NS
    }
}
