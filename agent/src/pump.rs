//! The data thread: from the sources to the sockets.
//!
//! It is the only owner of the ring's consumer side, the record store, the
//! encoder and the sockets it was lent. In steady state it takes no lock,
//! allocates and frees nothing, logs nothing, and makes no system call but its
//! wait and one kick per batch. It resolves nothing and opens nothing: that is
//! the control thread's work, which reaches it through `handover`.

mod deliver;

use std::sync::Arc;

use arc_swap::ArcSwap;
use rtrb::Consumer;

use self::deliver::PumpTarget;
use crate::{
    capture::{
        bpf::{Doorbell, MappedRing},
        kmsg_record::KmsgRecord,
        sequencer::{NoRing, Progress, RecordRing, RingItem, Sequencer},
        wait::{Waiter, now_ns, want_precise_naps},
        wake::Waker,
    },
    egress::Egress,
    handover::PumpEnd,
    ledger::SharedLedger,
    netconsole::Encoder,
    store::Store,
    target::{Route, TargetSettings},
};

/// Most sockets the pump holds at once.
pub const EGRESS_MAX: usize = 64;
/// Records sent to one target before the next one has its turn.
const BATCH: usize = 64;
/// The ring is looked at this often even if nobody rings: a CPU with interrupts
/// off cannot wake anybody.
const LOOK_NS: u64 = 12_500_000;
/// How long to wait when the sockets take nothing: the first time, and the longest.
const BLOCKED_NAP_FIRST_NS: u64 = 200_000;
const BLOCKED_NAP_MAX_NS: u64 = 50_000_000;
/// A round that settled this many seqs means a storm: then the pump naps instead
/// of being woken, so that the printing CPUs need not ring for each record.
const STORM_SEQS: u64 = 64;
/// Length of that nap.
const STORM_NAP_NS: u64 = 250_000;
/// A pump that was told to stop ends after this long without anything to send.
const STOP_IDLE_NS: u64 = 60_000_000;

/// What the control thread asks of the pump.
pub enum Command {
    /// Take a socket (one box lent).
    Install {
        /// Its place; what was there before comes back.
        index: usize,
        /// The socket.
        egress: Box<dyn Egress>,
    },
    /// Give the socket back.
    Retire {
        /// Its place.
        index: usize,
    },
    /// Send a target's packets this way (one box lent).
    Bind {
        /// Index of the target.
        target: usize,
        /// The way; the previous one comes back.
        route: Box<Route>,
    },
    /// Send nothing of a target. Its way comes back; what a socket was given stays there.
    Unbind {
        /// Index of the target.
        target: usize,
    },
    /// Send what is there, at most until the deadline, and end.
    Stop {
        /// `CLOCK_MONOTONIC`.
        deadline_ns: u64,
    },
}

/// What comes back from the pump.
pub enum Returned {
    /// A socket that is not used any more.
    Egress {
        /// Where it was.
        index: usize,
        /// The socket, to be dropped.
        egress: Box<dyn Egress>,
    },
    /// A route that is not used any more.
    Route(Box<Route>),
}

/// The ring of the source in use.
pub enum SourceRing {
    /// An eBPF source.
    Mapped(MappedRing),
    /// The kmsg source has none.
    None(NoRing),
}

impl RecordRing for SourceRing {
    fn next(&mut self) -> Option<RingItem> {
        match self {
            Self::Mapped(ring) => ring.next(),
            Self::None(ring) => ring.next(),
        }
    }
    fn pending(&self) -> bool {
        match self {
            Self::Mapped(ring) => ring.pending(),
            Self::None(ring) => ring.pending(),
        }
    }
    fn ready(&self) -> bool {
        match self {
            Self::Mapped(ring) => ring.ready(),
            Self::None(ring) => ring.ready(),
        }
    }
    fn is_crowded(&self) -> bool {
        match self {
            Self::Mapped(ring) => ring.is_crowded(),
            Self::None(ring) => ring.is_crowded(),
        }
    }
    fn bytes(&self, item: RingItem) -> &[u8] {
        match self {
            Self::Mapped(ring) => ring.bytes(item),
            Self::None(ring) => ring.bytes(item),
        }
    }
    fn release(&mut self, end: u64) {
        match self {
            Self::Mapped(ring) => ring.release(end),
            Self::None(ring) => ring.release(end),
        }
    }
}

/// One target as the control thread describes it to a new pump.
pub struct TargetSeed {
    /// Shared settings; the control thread keeps a reference to each value it
    /// ever stored there until the pump has moved on, so none is freed here.
    pub settings: Arc<ArcSwap<TargetSettings>>,
    /// Where the target's account is published.
    pub ledger: Arc<SharedLedger>,
}

/// What a pump is made of.
pub struct PumpParts {
    /// The programs' ring.
    pub ring: SourceRing,
    /// The programs' doorbell, if they are to wake the pump itself.
    pub doorbell: Option<Doorbell>,
    /// Records from `/dev/kmsg`.
    pub kmsg: Consumer<KmsgRecord>,
    /// How the other threads wake the pump.
    pub waker: Arc<Waker>,
    /// The merging of the two.
    pub sequencer: Sequencer,
    /// The record store.
    pub store: Store,
    /// Commands and returns.
    pub handover: PumpEnd<Command, Returned>,
    /// The targets, in the order of their indices.
    pub targets: Vec<TargetSeed>,
    /// What the pump publishes about itself.
    pub stats: Arc<PumpStats>,
}

/// Numbers about the pump itself, for `status`.
#[derive(Debug)]
pub struct PumpStats {
    /// The errno of each socket's last attempt to send, 0 if it went well.
    pub socket_errno: [std::sync::atomic::AtomicI32; EGRESS_MAX],
    /// Waits that ended.
    pub wakeups: std::sync::atomic::AtomicU64,
    /// Records sent with estimated fields, of the sequencer.
    pub approximated: std::sync::atomic::AtomicU64,
    /// Records without the printing context, of the sequencer.
    pub without_context: std::sync::atomic::AtomicU64,
    /// Ring items that were no record, of the sequencer.
    pub malformed: std::sync::atomic::AtomicU64,
    /// Joins whose texts differed, of the sequencer.
    pub mismatched: std::sync::atomic::AtomicU64,
}

/// See the module's description.
pub struct Pump {
    ring: SourceRing,
    kmsg: Consumer<KmsgRecord>,
    waiter: Waiter,
    sequencer: Sequencer,
    store: Store,
    handover: PumpEnd<Command, Returned>,
    targets: Vec<PumpTarget>,
    egresses: Vec<Option<Box<dyn Egress>>>,
    /// What `stats` says of the sockets, to write only what changes.
    socket_errno: [i32; EGRESS_MAX],
    encoder: Encoder,
    stats: Arc<PumpStats>,
    stop_at_ns: Option<u64>,
    idle_since_ns: Option<u64>,
    blocked_nap_ns: u64,
}

impl Default for PumpStats {
    fn default() -> Self {
        Self {
            socket_errno: [const { std::sync::atomic::AtomicI32::new(0) }; EGRESS_MAX],
            wakeups: 0.into(),
            approximated: 0.into(),
            without_context: 0.into(),
            malformed: 0.into(),
            mismatched: 0.into(),
        }
    }
}

impl Pump {
    /// Puts the parts together; allocates all it will ever need.
    ///
    /// # Errors
    /// If the process has no descriptor left for the wait.
    pub fn new(parts: PumpParts) -> std::io::Result<Self> {
        let PumpParts { ring, doorbell, kmsg, waker, sequencer, store, handover, targets, stats } =
            parts;
        Ok(Self {
            waiter: Waiter::new(waker, doorbell)?,
            targets: targets.into_iter().map(|seed| PumpTarget::new(seed, &store)).collect(),
            egresses: (0..EGRESS_MAX).map(|_| None).collect(),
            socket_errno: [0; EGRESS_MAX],
            encoder: Encoder::new(),
            stop_at_ns: None,
            idle_since_ns: None,
            blocked_nap_ns: BLOCKED_NAP_FIRST_NS,
            ring,
            kmsg,
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
        loop {
            let now = now_ns();
            self.obey(now);
            let progress =
                self.sequencer.poll(now, &mut self.ring, &mut self.kmsg, &mut self.store);
            let sent = self.deliver(now);
            let moved = self.flush_and_reap(now);
            self.publish();
            if self.is_done(now, progress.settled) {
                return;
            }
            self.wait(now, &progress, sent, moved);
        }
    }

    fn wait(&mut self, now: u64, progress: &Progress, sent: usize, moved: usize) {
        let backlog =
            self.targets.iter().any(|target| target.can_send(now, &self.store, &self.egresses));
        let in_flight = self.egresses.iter().flatten().any(|egress| egress.queued() > 0);
        if sent > 0 || moved > 0 || !(backlog || in_flight) {
            self.blocked_nap_ns = BLOCKED_NAP_FIRST_NS;
        }
        if backlog && (sent > 0 || moved > 0) {
            return;
        }
        if progress.settled >= STORM_SEQS {
            self.waiter.nap(STORM_NAP_NS);
            return;
        }
        let mut look_ns = LOOK_NS;
        if backlog || in_flight {
            // A socket that takes nothing may be full for a moment, or its device
            // may be down for a week.
            look_ns = self.blocked_nap_ns;
            self.blocked_nap_ns = (2 * self.blocked_nap_ns).min(BLOCKED_NAP_MAX_NS);
        }
        let held_ns = self.targets.iter().filter_map(|target| target.held_until_ns(now)).min();
        let until = [Some(now + look_ns), progress.deadline_ns, self.stop_at_ns, held_ns];
        let timeout_ns = until.into_iter().flatten().min().unwrap_or(now).saturating_sub(now);
        let Self { ring, kmsg, handover, waiter, .. } = self;
        waiter.sleep(timeout_ns, || {
            ring.ready() || kmsg.slots() > progress.kmsg_waiting || handover.has_command()
        });
        self.stats.wakeups.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }

    fn obey(&mut self, now_ns: u64) {
        while let Some(command) = self.handover.receive() {
            // What blocked the sockets may be over.
            self.blocked_nap_ns = BLOCKED_NAP_FIRST_NS;
            match command {
                Command::Install { index, egress } => {
                    self.retire(index, now_ns);
                    match self.egresses.get_mut(index) {
                        Some(place) => {
                            *place = Some(egress);
                            self.note_errno(index, 0);
                        }
                        None => self.handover.give_back(Returned::Egress { index, egress }),
                    }
                }
                Command::Retire { index } => self.retire(index, now_ns),
                Command::Bind { target, route } => {
                    let old = match self.targets.get_mut(target) {
                        Some(target) => target.bind(route),
                        None => Some(route),
                    };
                    if let Some(old) = old {
                        self.handover.give_back(Returned::Route(old));
                    }
                }
                Command::Unbind { target } => {
                    if let Some(old) = self.targets.get_mut(target).and_then(PumpTarget::unbind) {
                        self.handover.give_back(Returned::Route(old));
                    }
                }
                Command::Stop { deadline_ns } => self.stop_at_ns = Some(deadline_ns),
            }
        }
    }

    /// Takes a socket out of use: what the kernel has taken is counted sent, the
    /// rest goes back to its targets, and the box goes back to be closed.
    fn retire(&mut self, index: usize, now_ns: u64) {
        let Some(mut egress) = self.egresses.get_mut(index).and_then(Option::take) else { return };
        let targets = &mut self.targets;
        egress.reap(&mut |tag, outcome| deliver::settle(targets, tag, outcome, now_ns));
        egress.abandon(&mut |tag| deliver::abandon(targets, tag));
        for target in targets {
            target.socket_retired(index);
        }
        self.handover.give_back(Returned::Egress { index, egress });
    }

    fn flush_and_reap(&mut self, now_ns: u64) -> usize {
        let mut moved = 0;
        for index in 0..self.egresses.len() {
            let Some(egress) = &mut self.egresses[index] else { continue };
            if egress.queued() > 0 {
                // A lasting error (device gone or down) leaves the packets queued;
                // the control thread acts on it.
                let errno = match egress.flush() {
                    Ok(()) => 0,
                    Err(error) => error.raw_os_error().unwrap_or(libc::EIO),
                };
                let targets = &mut self.targets;
                egress.reap(&mut |tag, outcome| {
                    moved += 1;
                    deliver::settle(targets, tag, outcome, now_ns);
                });
                self.note_errno(index, errno);
            }
        }
        moved
    }

    fn note_errno(&mut self, index: usize, errno: i32) {
        if self.socket_errno[index] != errno {
            self.socket_errno[index] = errno;
            self.stats.socket_errno[index].store(errno, std::sync::atomic::Ordering::Relaxed);
        }
    }

    /// Whether the pump was told to stop and has nothing left to send.
    fn is_done(&mut self, now: u64, settled: u64) -> bool {
        let Some(stop_at_ns) = self.stop_at_ns else { return false };
        if settled > 0 || !self.idle(now) {
            self.idle_since_ns = None;
        }
        // The second half of the newest records may still be on its way.
        let idle_ns = now - *self.idle_since_ns.get_or_insert(now);
        now >= stop_at_ns || idle_ns >= STOP_IDLE_NS
    }

    /// Whether nothing is left to be sent that could be sent.
    fn idle(&self, now: u64) -> bool {
        !self.ring.ready()
            && self.kmsg.slots() == 0
            && !self.targets.iter().any(|target| target.can_send(now, &self.store, &self.egresses))
            && self.egresses.iter().flatten().all(|egress| egress.queued() == 0)
    }

    fn publish(&mut self) {
        use std::sync::atomic::Ordering::Relaxed;
        for target in &mut self.targets {
            target.publish(&self.store);
        }
        let counts = self.sequencer.counts();
        self.stats.approximated.store(counts.approximated, Relaxed);
        self.stats.without_context.store(counts.without_context, Relaxed);
        self.stats.malformed.store(counts.malformed, Relaxed);
        self.stats.mismatched.store(counts.mismatched, Relaxed);
    }
}
