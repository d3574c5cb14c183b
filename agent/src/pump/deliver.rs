//! From the record store to the sockets, per target.

use std::sync::Arc;

use rtrb::Producer;

use super::{
    BATCH, Pump, Returned, gap,
    message::{GAP_NOTICE, NOTICE},
    tag::Datagram,
    tap::Tap,
    target::{PumpTarget, Sendable, Stop},
};
use crate::{
    capture::sequencer::MissingReason,
    egress::{Egress, PushError},
    extradata::CgroupNames,
    frame::HeaderTemplate,
    ledger::LostReason,
    netconsole::{Encoder, Extras},
    record::Record,
    store::{Entry, Place, Store},
    target::{
        Route,
        filter::{Decision, Filter, NOTICE_MAX_BYTES},
        pace::{Bucket, Pace},
    },
};

/// A record with what is added to it, and where it stands in the store.
struct Said<'a> {
    record: &'a Record<'a>,
    extras: Extras<'a>,
    place: Place,
}

/// What became of a record that was to be pushed.
enum Pushed {
    InFlight,
    /// Its fate was known at once.
    DoneWith,
}

/// Tells the control thread ids of cgroups whose names are not known.
pub(super) struct Unnamed {
    ids: Producer<u64>,
    /// A storm of one group's records asks once.
    last: u64,
}

impl Unnamed {
    pub(super) fn new(ids: Producer<u64>) -> Self {
        Self { ids, last: 0 }
    }

    fn ask(&mut self, id: u64) {
        // If the queue is full, another record of that group will ask again.
        if id != self.last && self.ids.push(id).is_ok() {
            self.last = id;
        }
    }
}

/// The time of one round.
#[derive(Clone, Copy)]
pub(super) struct Now {
    /// `CLOCK_MONOTONIC`: what is waited for inside this host.
    pub(super) now_ns: u64,
    /// How long the host was suspended.
    pub(super) suspended_ns: u64,
}

impl Now {
    /// `CLOCK_BOOTTIME`: what is promised to the outside.
    fn boot_ns(self) -> u64 {
        self.now_ns.saturating_add(self.suspended_ns)
    }

    /// Whether a bucket lets the next record through. The pump itself waits on
    /// `CLOCK_MONOTONIC`.
    pub(super) fn admit(self, bucket: &mut Bucket, pace: Pace) -> Result<(), Stop> {
        let due = |boot_ns: u64| Stop::Paced(boot_ns.saturating_sub(self.suspended_ns));
        bucket.admit(pace, self.boot_ns()).map_err(due)
    }
}

/// What the targets share.
pub(super) struct Shared<'a> {
    pub(super) cgroups: &'a CgroupNames,
    pub(super) unnamed: &'a mut Unnamed,
    pub(super) now: Now,
    pub(super) store: &'a Store,
    pub(super) encoder: &'a mut Encoder,
    pub(super) egresses: &'a mut [Option<Box<dyn Egress>>],
}

impl PumpTarget {
    /// Goes through up to [`BATCH`] records, first those that are to be sent again,
    /// then those at the cursor; returns how many it is done with.
    pub(super) fn send(&mut self, index: usize, shared: &mut Shared<'_>) -> usize {
        self.tell_notices(shared.now.boot_ns());
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
        if self.send_copy(index, shared)? {
            return Ok(());
        }
        let store = shared.store;
        if let Some(Sendable { place, msgid }) = self.flight.next_again() {
            let pushed = match store.at(&place) {
                None => self.miss(LostReason::Backlog, place.seq(), 1),
                Some(_) if self.has_message(shared.now.now_ns) => {
                    return self.push_message(index, shared);
                }
                Some(record) => {
                    let extras = self.extras(&record, shared);
                    let said = Said { record: &record, extras, place };
                    self.push(index, &said, Some(msgid), shared)?
                }
            };
            if matches!(pushed, Pushed::DoneWith) {
                self.flight.drop_again();
            }
            return Ok(());
        }
        let seq = self.cursor.seq();
        match store.get(&mut self.cursor) {
            Some(Entry::FellOff { count }) => self.miss(LostReason::Backlog, seq, count),
            Some(Entry::Missing { count, reason }) => {
                let reason = match reason {
                    MissingReason::KernelOverwrote => LostReason::KernelOverwrote,
                    MissingReason::NotCaptured => LostReason::NotCaptured,
                };
                self.miss(reason, seq, count)
            }
            Some(Entry::Record(record, _)) if record.seq < self.ledger.first_seq => {
                Pushed::DoneWith
            }
            // What is missing is told in its place, and messages have no place of their own.
            _ if self.has_message(shared.now.now_ns) => return self.push_message(index, shared),
            None => return Err(Stop::Done),
            Some(Entry::Record(record, place)) => {
                let extras = self.extras(&record, shared);
                if !self.wants(&record, &extras, shared) {
                    self.filter()
                } else {
                    let said = Said { record: &record, extras, place };
                    self.push(index, &said, None, shared)?
                }
            }
        };
        store.advance(&mut self.cursor);
        Ok(())
    }

    /// Whether something that is no record is to be sent before the next one. A record that
    /// was pushed in part is not interrupted.
    fn has_message(&mut self, now_ns: u64) -> bool {
        self.tell_gap(now_ns);
        self.messages.next().is_some() && self.flight.begun() == 0
    }

    /// The names of the record's cgroup, if they are wanted and known.
    pub(super) fn extras<'a>(
        &mut self,
        record: &Record<'_>,
        shared: &mut Shared<'a>,
    ) -> Extras<'a> {
        let id = record.context.map_or(0, |context| context.cgroup_id);
        if id == 0 || !self.settings.load().names_cgroups {
            return Extras::default();
        }
        match shared.cgroups.get(id) {
            Some((path, unit)) => {
                Extras { cgroup: Some(path), unit: Some(unit), ..Extras::default() }
            }
            None => {
                shared.unnamed.ask(id);
                Extras::default()
            }
        }
    }

    /// Whether a record is to be sent. A filter is asked once for each, since it counts.
    fn wants(&mut self, record: &Record<'_>, extras: &Extras<'_>, shared: &Shared<'_>) -> bool {
        if self.admitted_seq != Some(record.seq) {
            let filter = &self.settings.load().filter;
            // For a rate, time passes while the host is suspended. printk's clock stands still
            // then, unless the CPUs' counters go on (suspend to idle); a suspend that counts
            // twice ends a period early.
            let ts_ns = record.ts_ns.saturating_add(shared.now.suspended_ns);
            let dated = Record { ts_ns, ..*record };
            if filter.decide(&dated, extras.cgroup, shared.now.boot_ns()) == Decision::Filter {
                return false;
            }
            self.admitted_seq = Some(record.seq);
        }
        true
    }

    /// Takes what the filter has to say about periods that are over; it is sent like a message.
    fn tell_notices(&mut self, now_ns: u64) {
        let settings = self.settings.load();
        let due = |filter: &Filter| filter.notice_due_ns().is_some_and(|due_ns| due_ns <= now_ns);
        if self.route.is_none() || !self.messages.has_room_for_notice() || !due(&settings.filter) {
            return;
        }
        if let Some(notice) = settings.filter.take_notice(now_ns) {
            let mut text = [0; NOTICE_MAX_BYTES];
            let text = notice.write(&mut text);
            self.messages.set_notice(NOTICE, text, &settings.format.userdata);
        }
    }

    /// Tells the receiver in a line what is missing at this place.
    fn tell_gap(&mut self, now_ns: u64) {
        if self.route.is_none()
            || !self.messages.has_room_for_notice()
            || now_ns < self.hold_until_ns
        {
            return;
        }
        if let Some(gap) = self.gaps.untold() {
            let mut text = [0; gap::LINE_MAX_BYTES];
            let text = gap.write(&mut text);
            self.messages.set_notice(GAP_NOTICE, text, &self.settings.load().format.userdata);
            self.gaps.is_in_flight();
        }
    }

    /// Pushes the next message.
    fn push_message(&mut self, index: usize, shared: &mut Shared<'_>) -> Result<(), Stop> {
        let Self { route, messages, tap, ip_id, .. } = self;
        let route = route.as_deref().ok_or(Stop::Done)?;
        let Some(Some(egress)) = shared.egresses.get_mut(route.egress) else {
            return Err(Stop::Done);
        };
        let Some((number, message)) = messages.next() else { return Ok(()) };
        if let Some(pace) = self.settings.load().pace {
            shared.now.admit(&mut self.bucket, pace)?;
        }
        let tag = Datagram::of_message(index, self.generation, number);
        let pushed = egress.push(tag.into(), route.mtu_bytes, &mut |slot| {
            route.fill(slot, *ip_id, tap, |payload| {
                let len = message.len().min(payload.len());
                payload[..len].copy_from_slice(&message[..len]);
                len
            })
        });
        match pushed {
            Err(PushError::Full) => return Err(Stop::Full),
            Err(PushError::TooLong { .. } | PushError::TooShort { .. }) => {
                messages.refuse_next();
                if number == GAP_NOTICE {
                    self.gaps.settled(true);
                }
                self.ledger.messages_lost += 1;
            }
            Ok(()) => {
                messages.pushed();
                self.bucket.pay();
                *ip_id = ip_id.wrapping_add(1);
                self.ledger.packets += 1;
            }
        }
        Ok(())
    }

    /// Pushes the datagrams of one record; `old_msgid` if it had its turn before.
    fn push(
        &mut self,
        index: usize,
        said: &Said<'_>,
        old_msgid: Option<u32>,
        shared: &mut Shared<'_>,
    ) -> Result<Pushed, Stop> {
        let Said { record, extras, place } = *said;
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
        if shared.now.now_ns < self.hold_until_ns {
            return Err(Stop::Paced(self.hold_until_ns));
        }
        let settings = self.settings.load();
        if self.flight.begun() == 0
            && let Some(pace) = settings.pace
        {
            shared.now.admit(&mut self.bucket, pace)?;
        }
        let msgid = old_msgid.unwrap_or(self.msgid.wrapping_add(1));
        let mut datagrams = shared.encoder.encode(
            record,
            &settings.format,
            msgid,
            &Extras { nic: &route.nic, ..extras },
        );
        let (count, copies) = (datagrams.count(), settings.copies);
        if count == 0 {
            // The basic format shows no line of it, as on the kernel's consoles.
            return Ok(self.filter());
        }
        let same = self.begun_with.take().is_none_or(|begun| Arc::ptr_eq(&begun, settings));
        if !same {
            // Other settings make other datagrams of it.
            self.flight.begin_anew();
        }
        datagrams.skip(self.flight.begun());
        while self.flight.begun() < count {
            let tag = Datagram {
                // Cuts it in half.
                seq_low: record.seq as u32,
                target: index,
                generation: self.generation,
                first: self.flight.begun() == 0,
                last: self.flight.begun() + 1 == count,
                approximated: record.approximated,
                backfilled: record.backfilled,
                message: false,
            };
            let (ip_id, tap) = (self.ip_id, &mut self.tap);
            let pushed = egress.push(tag.into(), route.mtu_bytes, &mut |slot| {
                route.fill(slot, ip_id, tap, |payload| datagrams.write_next(payload).unwrap_or(0))
            });
            let refused = match pushed {
                Ok(()) => {
                    self.flight.pushed();
                    self.bucket.pay();
                    self.ip_id = self.ip_id.wrapping_add(1);
                    self.ledger.packets += 1;
                    continue;
                }
                Err(PushError::Full) => {
                    // The control thread keeps the settings as long as they are used, so
                    // this is never the last reference.
                    self.begun_with = (self.flight.begun() > 0).then(|| Arc::clone(settings));
                    return Err(Stop::Full);
                }
                Err(PushError::TooLong { .. }) => LostReason::TooLong,
                Err(PushError::TooShort { .. }) => LostReason::Refused,
            };
            // It cannot go this way at all; the next one may.
            self.take_msgid(old_msgid, msgid);
            return Ok(self.give_up(refused, 1));
        }
        self.take_msgid(old_msgid, msgid);
        self.flight.is_in_flight(Sendable { place, msgid });
        self.copies.pushed(record, place, msgid, copies, shared.now.now_ns);
        self.ledger.in_flight += 1;
        Ok(Pushed::InFlight)
    }

    fn take_msgid(&mut self, old: Option<u32>, msgid: u32) {
        if old.is_none() {
            self.msgid = msgid;
        }
    }

    /// Nobody has these; what lies before the target's first record is not its own.
    fn miss(&mut self, reason: LostReason, seq: u64, count: u64) -> Pushed {
        let first_seq = seq.max(self.ledger.first_seq);
        let count = (seq + count).saturating_sub(first_seq);
        self.gaps.add(first_seq, count, reason);
        self.give_up(reason, count)
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

impl Route {
    /// Writes a datagram with its headers into a slot; returns its length in bytes.
    pub(super) fn fill(
        &self,
        slot: &mut [u8],
        ip_id: u16,
        tap: &mut Option<Box<Tap>>,
        write: impl FnOnce(&mut [u8]) -> usize,
    ) -> usize {
        let header_bytes = self.header.as_ref().map_or(0, HeaderTemplate::header_len);
        let payload = slot.get_mut(header_bytes..).unwrap_or_default();
        let len_bytes = write(payload);
        if let Some(tap) = tap {
            tap.copy(payload.get(..len_bytes).unwrap_or_default());
        }
        match &self.header {
            Some(header) => header.write(slot, len_bytes, ip_id),
            None => len_bytes,
        }
    }
}

impl Pump {
    /// Sends what the targets have not got yet; returns how many entries moved.
    pub(super) fn deliver(&mut self, now_ns: u64) -> usize {
        let Self {
            targets, store, encoder, egresses, handover, cgroups, unnamed, suspended, ..
        } = self;
        let cgroups = cgroups.load();
        let now = Now { now_ns, suspended_ns: suspended.total_ns() };
        let mut shared = Shared { now, store, encoder, egresses, cgroups, unnamed };
        let mut moved = 0;
        for (index, target) in targets.iter_mut().enumerate() {
            let Some(target) = target else { continue };
            moved += target.send(index, &mut shared);
            if let Some(message) = target.take_refused_message() {
                handover.give_back(Returned::Message(message));
            }
        }
        moved
    }
}
