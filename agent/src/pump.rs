//! The data thread: from the sources to the sockets.
//!
//! It is the only owner of the ring's consumer side, the record store, the
//! encoder and the sockets it was lent. In steady state it takes no lock,
//! allocates and frees nothing, logs nothing, and makes no system call but its
//! wait and one kick per batch. It resolves nothing and opens nothing: that is
//! the control thread's work, which reaches it through `handover`.

mod copies;
mod deliver;
pub mod flight;
mod gap;
mod last_words;
pub mod message;
mod parts;
mod patience;
pub mod recall;
mod tag;
pub mod tap;
mod target;
#[cfg(test)]
mod tests;

use std::sync::{Arc, atomic::Ordering};

use arc_swap::{ArcSwap, Cache};
use rtrb::Consumer;

pub use self::parts::{Command, LastWordsParts, PumpParts, PumpStats, Returned, TargetSeed};
use self::tap::Tap;
pub use self::target::PumpTarget;
use self::{
    deliver::Unnamed,
    patience::Patience,
    target::{Stop, settle},
};
use crate::{
    capture::{
        bpf::MappedRing,
        kmsg::Backfill,
        kmsg_record::KmsgRecord,
        sequencer::{Progress, ROUND_ENTRIES, RecordRing as _, Sequencer, Sink as _},
        wait::{Waiter, now_ns, want_precise_naps},
    },
    clock::{self, Suspended},
    egress::Egress,
    extradata::CgroupNames,
    handover::PumpEnd,
    last_words::{ReportWatch, Watched},
    netconsole::Encoder,
    store::Store,
    target::Route,
};

/// Most sockets the pump holds at once.
pub const EGRESS_MAX: usize = 128;
/// Most targets.
pub const TARGETS_MAX: usize = 128;
/// Records sent to one target before the next one has its turn: all that a round of the
/// sequencer brings, and as many more, so that a target that fell behind catches up.
const BATCH: usize = 2 * ROUND_ENTRIES;
/// The ring is looked at this often even if nobody rings: a CPU with interrupts
/// off cannot wake anybody. Less than a line is held in a panic.
const LOOK_NS: u64 = 18_000_000;
/// The same while the kernel prints a report.
const QUICK_LOOK_NS: u64 = 1_000_000;
/// How long to wait when the sockets take nothing: the first time, and the longest.
const BLOCKED_NAP_FIRST_NS: u64 = 200_000;
const BLOCKED_NAP_MAX_NS: u64 = LOOK_NS;
/// So many seqs settled since the last wait mean a storm: then the pump naps instead
/// of being woken, so that the printing CPUs need not ring for each record.
const STORM_SEQS: u64 = 64;
/// Length of that nap.
const STORM_NAP_NS: u64 = 250_000;
/// How often the depths of the queues are shown.
const DEPTHS_NS: u64 = 10_000_000;
/// A pump that was told to stop ends after this long without anything to send.
const STOP_IDLE_NS: u64 = 60_000_000;

/// See the module's description.
pub struct Pump {
    ring: Option<MappedRing>,
    kmsg: Consumer<KmsgRecord>,
    backfill: Backfill,
    waiter: Waiter,
    sequencer: Sequencer,
    store: Store,
    handover: PumpEnd<Command, Returned>,
    /// By index; never longer than [`TARGETS_MAX`].
    targets: Vec<Option<Box<PumpTarget>>>,
    /// How many targets there have been; tells those of one index apart.
    generation: u8,
    egresses: Vec<Option<Box<dyn Egress>>>,
    encoder: Encoder,
    cgroups: Cache<Arc<ArcSwap<CgroupNames>>, Arc<CgroupNames>>,
    unnamed: Unnamed,
    stats: Arc<PumpStats>,
    suspended: Suspended,
    patience: Patience,
    /// When the depths of the queues were last shown.
    depths_at_ns: u64,
    stop_at_ns: Option<u64>,
    idle_since_ns: Option<u64>,
    blocked_nap_ns: u64,
    /// Seqs settled since the last wait.
    settled: u64,
    report: ReportWatch,
    last_words: Option<LastWordsParts>,
    marks: last_words::Marks,
}

impl Pump {
    /// Puts the parts together; allocates all it will ever need.
    ///
    /// # Errors
    /// If the process has no descriptor left for the wait.
    pub fn new(parts: PumpParts) -> std::io::Result<Self> {
        let PumpParts {
            ring,
            doorbell,
            kmsg,
            backfill,
            waker,
            sequencer,
            store,
            handover,
            cgroups,
            unnamed,
            stats,
            last_words,
        } = parts;
        Ok(Self {
            waiter: Waiter::new(waker, doorbell)?,
            targets: (0..TARGETS_MAX).map(|_| None).collect(),
            generation: 0,
            egresses: (0..EGRESS_MAX).map(|_| None).collect(),
            encoder: Encoder::new(),
            cgroups: Cache::new(cgroups),
            unnamed: Unnamed::new(unnamed),
            suspended: Suspended::of_this_host(),
            patience: Patience::default(),
            depths_at_ns: 0,
            stop_at_ns: None,
            idle_since_ns: None,
            blocked_nap_ns: BLOCKED_NAP_FIRST_NS,
            settled: 0,
            report: ReportWatch::default(),
            last_words,
            marks: last_words::Marks::default(),
            ring,
            kmsg,
            backfill,
            sequencer,
            store,
            handover,
            stats,
        })
    }

    /// Runs until it is told to stop and everything is sent, or the deadline has
    /// passed. What it was lent is given back or dropped with it, which the
    /// control thread does after joining the thread.
    pub fn run(&mut self) {
        want_precise_naps();
        self.take_place();
        loop {
            if let Some(panic) = self.panic() {
                self.panics(&panic);
            }
            let now = now_ns();
            self.stats.rounds.fetch_add(1, Ordering::Relaxed);
            self.suspended.look(now, clock::boot_ns());
            self.obey(now);
            self.sequencer.kmsg_is_at(self.backfill.wanted.at_seq(), now);
            self.report.round(now);
            let text = self.last_words.as_mut().and_then(LastWordsParts::wanted_text);
            let live_seq = self.sequencer.live_seq();
            let mut sink =
                Watched { sink: &mut self.store, watch: &mut self.report, text, live_seq };
            let progress = self.sequencer.poll(now, &mut self.ring, &mut self.kmsg, &mut sink);
            let completed = self.sequencer.counts().completed;
            self.backfill.wanted.is_settled(self.sequencer.next_seq(), completed);
            if let Some(missing) = &progress.wanted {
                self.backfill.ask(missing);
            }
            let sent = self.deliver(now);
            let moved = self.flush_and_reap(now);
            self.make_room(now);
            self.publish();
            self.show_depths(now);
            if self.is_done(now, progress.settled) {
                return;
            }
            self.wait(now, &progress, sent, moved);
        }
    }

    fn wait(&mut self, now: u64, progress: &Progress, sent: usize, moved: usize) {
        let stops = || self.targets.iter().flatten().map(|target| target.stop());
        let held = stops().any(|stop| matches!(stop, Stop::Full | Stop::OtherSocket));
        let in_flight = self.egresses.iter().flatten().any(|egress| egress.queued() > 0);
        if sent > 0 || moved > 0 || !(held || in_flight) {
            self.blocked_nap_ns = BLOCKED_NAP_FIRST_NS;
        }
        self.settled += progress.settled;
        if progress.more || (held && moved > 0) || stops().any(|stop| stop == Stop::Turn) {
            return;
        }
        if std::mem::take(&mut self.settled) >= STORM_SEQS {
            self.waiter.nap(STORM_NAP_NS);
            return;
        }
        let paced = stops().filter_map(|stop| match stop {
            Stop::Paced(due_ns) => Some(due_ns),
            _ => None,
        });
        let look_ns = if self.report.is_open() { QUICK_LOOK_NS } else { LOOK_NS };
        let copies = self.targets.iter().flatten().filter_map(|target| target.copy_due_ns()).min();
        let mut until =
            [Some(now + look_ns), progress.deadline_ns, self.stop_at_ns, paced.min(), copies];
        if held || in_flight {
            // A socket that takes nothing may be full for a moment, or its device
            // may be down for a week.
            until[0] = Some(now + self.blocked_nap_ns.min(look_ns));
            self.blocked_nap_ns = (2 * self.blocked_nap_ns).min(BLOCKED_NAP_MAX_NS);
        }
        let timeout_ns = until.into_iter().flatten().min().unwrap_or(now).saturating_sub(now);
        let Self { ring, kmsg, handover, waiter, backfill, .. } = self;
        let rang = waiter.sleep(timeout_ns, || {
            ring.ready() || kmsg.slots() > progress.kmsg_waiting || handover.has_command()
        });
        // What has come without a ring was printed with interrupts off: nobody has told the thread
        // that reads the other halves either.
        if !rang && timeout_ns >= look_ns && ring.ready() && now_ns() >= now + look_ns {
            backfill.waker.wake();
        }
        self.stats.wakeups.fetch_add(1, Ordering::Relaxed);
    }

    fn obey(&mut self, now: u64) {
        while let Some(command) = self.handover.receive() {
            // A socket that was blocked may be well again, or the way another one.
            self.blocked_nap_ns = BLOCKED_NAP_FIRST_NS;
            match command {
                Command::Install { index, egress } => {
                    self.retire(index, now);
                    match self.egresses.get_mut(index) {
                        Some(place) => *place = Some(egress),
                        None => self.handover.give_back(Returned::Egress { index, egress }),
                    }
                }
                Command::Retire { index } => self.retire(index, now),
                Command::Bind { target, route } => self.bind(target, Some(route)),
                Command::Unbind { target } => self.bind(target, None),
                Command::Add { index, target } => self.add(index, target),
                Command::Remove { index } => self.remove(index),
                Command::Message { target, message } => {
                    let refused = match self.target(target) {
                        Some(target) => target.message(message).err(),
                        None => Some(message),
                    };
                    if let Some(message) = refused {
                        self.handover.give_back(Returned::Message(message));
                    }
                }
                Command::Tap { target, tap } => self.tap(target, Some(tap)),
                Command::Untap { target } => self.tap(target, None),
                Command::Recall { mut into } => {
                    into.copy(&self.store);
                    self.handover.give_back(Returned::Recall(into));
                }
                Command::Stop { deadline_ns } => self.stop_at_ns = Some(deadline_ns),
            }
        }
    }

    fn target(&mut self, index: usize) -> Option<&mut PumpTarget> {
        self.targets.get_mut(index)?.as_deref_mut()
    }

    fn add(&mut self, index: usize, mut target: Box<PumpTarget>) {
        self.generation = self.generation.wrapping_add(1);
        target.begin(self.generation, &self.store);
        let old = match self.targets.get_mut(index) {
            Some(place) => place.replace(target),
            None => Some(target),
        };
        if let Some(target) = old {
            self.handover.give_back(Returned::Target { index, target });
        }
    }

    fn remove(&mut self, index: usize) {
        let Some(mut target) = self.targets.get_mut(index).and_then(Option::take) else { return };
        if let Some(route) = target.bind(None) {
            self.handover.give_back(Returned::Route(route));
        }
        if let Some(tap) = target.tap(None) {
            self.handover.give_back(Returned::Tap(tap));
        }
        while let Some(message) = target.next_message_left() {
            self.handover.give_back(Returned::Message(message));
        }
        target.end(&self.store);
        self.handover.give_back(Returned::Target { index, target });
    }

    fn tap(&mut self, target: usize, tap: Option<Box<Tap>>) {
        let old = match self.target(target) {
            Some(target) => target.tap(tap),
            None => tap,
        };
        if let Some(old) = old {
            self.handover.give_back(Returned::Tap(old));
        }
    }

    fn bind(&mut self, target: usize, route: Option<Box<Route>>) {
        let old = match self.target(target) {
            Some(target) => target.bind(route),
            None => route,
        };
        if let Some(old) = old {
            self.handover.give_back(Returned::Route(old));
        }
    }

    /// Takes a socket out of use: what the kernel has taken is counted sent, the
    /// rest is sent again by another one, and the box goes back to be closed.
    fn retire(&mut self, index: usize, now: u64) {
        let Some(mut egress) = self.egresses.get_mut(index).and_then(Option::take) else { return };
        let Self { targets, handover, .. } = self;
        egress.abandon(&mut |tag, outcome| {
            let message = settle(targets, tag, outcome, now);
            message.into_iter().for_each(|message| handover.give_back(Returned::Message(message)));
        });
        for target in targets.iter_mut().flatten() {
            target.socket_retired(index);
        }
        self.stats.set_errno(index, 0);
        self.handover.give_back(Returned::Egress { index, egress });
    }

    fn flush_and_reap(&mut self, now: u64) -> usize {
        let mut moved = 0;
        let Self { targets, egresses, stats, handover, .. } = self;
        for (index, place) in egresses.iter_mut().enumerate() {
            let Some(egress) = place.as_mut().filter(|egress| egress.queued() > 0) else {
                continue;
            };
            // A lasting error (device gone or down) leaves the packets queued;
            // the control thread sees it and the device's state, and acts on them.
            let errno = egress.flush().map_or_else(errno_of, |()| 0);
            stats.set_errno(index, errno);
            egress.reap(&mut |tag, outcome| {
                moved += 1;
                if let Some(message) = settle(targets, tag, Some(outcome), now) {
                    handover.give_back(Returned::Message(message));
                }
            });
        }
        moved
    }

    /// Makes room in the store for the next round, unless that is one of a replay which can wait.
    fn make_room(&mut self, now: u64) {
        let Self { targets, store, sequencer, ring, patience, .. } = self;
        let needed = targets.iter().flatten().map(|target| target.needed_seq());
        let needed_seq = needed.fold(store.next_seq(), u64::min);
        store.keep_from(needed_seq);
        let sending = targets.iter_mut().flatten().filter(|target| target.stop() != Stop::Done);
        let waits = sequencer.is_replaying()
            // What is logged now would be lost for it.
            && !ring.is_filling()
            && !store.has_room(1)
            && patience.waits(now, sending.map(|target| target.moved_ns(now)));
        if !waits {
            store.round_over(needed_seq);
        }
    }

    /// Whether the pump was told to stop and has nothing left to send.
    fn is_done(&mut self, now: u64, settled: u64) -> bool {
        let Some(stop_at_ns) = self.stop_at_ns else { return false };
        if settled > 0 || !self.idle() {
            self.idle_since_ns = None;
        }
        // The second half of the newest records may still be on its way.
        let idle_ns = now - *self.idle_since_ns.get_or_insert(now);
        now >= stop_at_ns || idle_ns >= STOP_IDLE_NS
    }

    /// Whether nothing is left to be sent that could be sent, now or when paced.
    fn idle(&self) -> bool {
        !self.ring.ready()
            && self.kmsg.slots() == 0
            && self.targets.iter().flatten().all(|target| target.stop() == Stop::Done)
            && self.egresses.iter().flatten().all(|egress| egress.queued() == 0)
    }

    fn publish(&mut self) {
        for target in self.targets.iter_mut().flatten() {
            target.publish(&self.store);
        }
        self.stats.set_counts(&self.sequencer.counts());
        self.publish_progress();
    }
}

impl Pump {
    /// Shows how full the queues are. Looking at the ring costs the printing CPU a cache line and
    /// looking at the store takes microseconds, so not in every round.
    fn show_depths(&mut self, now: u64) {
        if now < self.depths_at_ns + DEPTHS_NS {
            return;
        }
        self.depths_at_ns = now;
        let ring_bytes = self.ring.as_ref().map_or(0, MappedRing::used_bytes);
        self.stats.ring_used_bytes.store(ring_bytes, Ordering::Relaxed);
        let needed_bytes = self.store.needed_bytes() as u64;
        self.stats.store_needed_bytes.store(needed_bytes, Ordering::Relaxed);
        self.stats.kmsg_waiting.store(self.kmsg.slots() as u64, Ordering::Relaxed);
    }
}

fn errno_of(error: std::io::Error) -> i32 {
    error.raw_os_error().unwrap_or(libc::EIO)
}
