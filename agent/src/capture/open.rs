//! Opens the best source that this host allows, and remembers why.

use std::sync::{Arc, atomic::AtomicBool};

use rtrb::{Consumer, RingBuffer};

use super::{
    bpf::{
        Alarm, Doorbell, MappedRing, PanicHook, ProbeError, Probes, RecordHook, RingView,
        log_buffer_bytes,
    },
    kmsg::{Backfill, KmsgError, KmsgReader, KmsgStats, KmsgThread, QUEUE_RECORDS, Wanted},
    kmsg_record::KmsgRecord,
    replay::Replay,
    sequencer::{Begin, RingContent, Sequencer},
    wake::Waker,
};

/// The kernel's log buffer where its size is not told: that of most distributions.
const BUFFER_BYTES: u64 = 1 << 18;
/// What a short record takes of it.
const RECORD_BYTES: u64 = 64;

/// The three sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceKind {
    /// fentry or kprobe on the commit of a record.
    Commit,
    /// The printk tracepoint, joined with `/dev/kmsg`.
    Tracepoint,
    /// `/dev/kmsg` alone.
    Kmsg,
}

impl SourceKind {
    /// The name used in the configuration and in `status`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Commit => "commit",
            Self::Tracepoint => "tracepoint",
            Self::Kmsg => "kmsg",
        }
    }
}

/// What the configuration asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The first that works: commit, tracepoint, kmsg.
    Auto,
    /// This one or none.
    Only(SourceKind),
}

/// Which source is in use, and why that one.
#[derive(Clone, Debug)]
pub struct SourceReport {
    /// The source.
    pub kind: SourceKind,
    /// The hook of an eBPF source.
    pub hook: Option<RecordHook>,
    /// One sentence for the operator.
    pub reason: String,
}

/// Why no source could be opened.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// `/dev/kmsg` is needed by every source.
    #[error(transparent)]
    Kmsg(#[from] KmsgError),
    /// The one source that was asked for cannot be had.
    #[error("capture = \"{}\" is not possible on this host: {cause}; `capture = \"auto\"` takes the next best source", .kind.name())]
    Refused {
        /// The source.
        kind: SourceKind,
        /// What was refused.
        cause: ProbeError,
    },
    /// The process has no descriptor left.
    #[error("cannot set up the wake-up of the capture threads: {0}")]
    Waker(#[from] std::io::Error),
}

/// An open source: what the pump needs, and the thread to be started.
pub struct Capture {
    /// Which source, and why.
    pub report: SourceReport,
    /// What is needed to speak while the kernel panics, if there is a ring.
    pub last_words: Option<LastWordsCapture>,
    /// The programs, if any; dropping them detaches.
    pub probes: Option<Probes>,
    /// For the pump.
    pub ring: Option<MappedRing>,
    /// For the pump, if the programs wake it directly.
    pub doorbell: Option<Doorbell>,
    /// For the pump.
    pub kmsg: Consumer<KmsgRecord>,
    /// For the pump.
    pub sequencer: Sequencer,
    /// For the pump.
    pub backfill: Backfill,
    /// Wakes the pump.
    pub pump_waker: Arc<Waker>,
    /// To be run on a thread of its own.
    pub kmsg_thread: KmsgThread,
    /// Ends that thread, followed by a wake of `kmsg_waker`.
    pub kmsg_stop: Arc<AtomicBool>,
    /// Wakes that thread.
    pub kmsg_waker: Arc<Waker>,
    /// Counts of that thread.
    pub kmsg_stats: Arc<KmsgStats>,
    /// Where the run begins.
    pub begin: Begin,
    /// The first seq of each target.
    pub targets_first_seq: Vec<u64>,
    /// The kernel shows `caller=` (`CONFIG_PRINTK_CALLER`).
    pub shows_caller: bool,
}

/// What the programs give those who speak while the kernel panics.
pub struct LastWordsCapture {
    /// What they say and are told.
    pub alarm: Alarm,
    /// A look into the ring for each of the two who may speak.
    pub views: [RingView; 2],
    /// What proves a panic.
    pub hook: Result<PanicHook, ProbeError>,
}

/// Opens a source. How far each target came in an earlier run of this boot decides with
/// `replay` which of the records that were logged before are read.
///
/// # Errors
/// If the wanted source, or with [`Choice::Auto`] even `/dev/kmsg`, cannot be had.
pub fn open(
    choice: Choice,
    ring_bytes: u32,
    replay: Replay,
    checkpoints: &[Option<u64>],
) -> Result<Capture, CaptureError> {
    let mut reader = KmsgReader::open()?;
    let before = reader.skip_to_end()?;
    let (report, mut probes) = attach(choice, ring_bytes)?;
    let (mapped, last_words) = match &mut probes {
        Some(probes) => {
            let refused = |cause| CaptureError::Refused { kind: report.kind, cause };
            // Before the maps are taken: programs that are loaded later would not find them.
            let hook = probes.attach_panic();
            let (ring, views) = probes.take_records().map_err(refused)?;
            let doorbell = probes.take_doorbell().map_err(refused)?;
            let alarm = probes.take_alarm().map_err(refused)?;
            let last_words = LastWordsCapture { alarm, views, hook };
            (Some((ring, doorbell)), Some(last_words))
        }
        None => (None, None),
    };
    // Attached first and read to the end after: what is logged in between comes
    // by both ways.
    let after = reader.skip_to_end()?;
    let live_seq = after.next_seq.max(before.next_seq);
    let oldest_seq = before.oldest_seq.or(after.oldest_seq).unwrap_or(live_seq);
    let first_seq = |checkpoint: &Option<u64>| replay.first_seq(*checkpoint, oldest_seq, live_seq);
    let targets_first_seq: Vec<u64> = checkpoints.iter().map(first_seq).collect();
    let first_seq = targets_first_seq.iter().copied().min().unwrap_or(live_seq);
    if first_seq < live_seq {
        reader.rewind()?;
    }
    let begin = Begin { first_seq, attached_seq: before.next_seq, live_seq };
    let shows_caller = before.shows_caller || after.shows_caller;
    let wanted = match report.kind {
        // The programs deliver whole records, but one that was printed without its newline
        // before they were attached can only be had here.
        SourceKind::Commit => Wanted::until(first_seq, live_seq),
        SourceKind::Tracepoint | SourceKind::Kmsg => Wanted::all_from(first_seq),
    };
    let wanted = Arc::new(wanted);
    let content = match report.kind {
        SourceKind::Commit => RingContent::Whole,
        SourceKind::Tracepoint => RingContent::Text,
        SourceKind::Kmsg => RingContent::Nothing,
    };
    let (queue, kmsg) = RingBuffer::new(QUEUE_RECORDS);
    let pump_waker = Arc::new(Waker::new()?);
    let kmsg_waker = Arc::new(Waker::new()?);
    let kmsg_stop = Arc::new(AtomicBool::new(false));
    let kmsg_stats = Arc::new(KmsgStats::default());
    let (ring, doorbell) = mapped.unzip();
    // Whoever can act on a new record is woken: in the tracepoint source the
    // pump can do nothing before the record's other half has been read.
    let (pump_doorbell, kmsg_doorbell) = match report.kind {
        SourceKind::Commit => (doorbell, None),
        SourceKind::Tracepoint | SourceKind::Kmsg => (None, doorbell),
    };
    Ok(Capture {
        last_words,
        probes,
        ring,
        doorbell: pump_doorbell,
        kmsg,
        sequencer: Sequencer::new(content, begin, shows_caller),
        backfill: Backfill { wanted: Arc::clone(&wanted), waker: Arc::clone(&kmsg_waker) },
        pump_waker: Arc::clone(&pump_waker),
        kmsg_thread: KmsgThread {
            reader,
            queue,
            pump: pump_waker,
            waker: Arc::clone(&kmsg_waker),
            doorbell: kmsg_doorbell,
            next_seq: first_seq,
            buffer_records: log_buffer_bytes().unwrap_or(BUFFER_BYTES) / RECORD_BYTES,
            wanted,
            stop: Arc::clone(&kmsg_stop),
            stats: Arc::clone(&kmsg_stats),
        },
        report,
        kmsg_stop,
        kmsg_waker,
        kmsg_stats,
        begin,
        targets_first_seq,
        shows_caller,
    })
}

fn attach(choice: Choice, ring_bytes: u32) -> Result<(SourceReport, Option<Probes>), CaptureError> {
    let wanted = |kind| choice == Choice::Auto || choice == Choice::Only(kind);
    let mut refusals = Vec::new();
    let mut refuse = |kind: SourceKind, cause: ProbeError| {
        if choice == Choice::Only(kind) {
            return Err(CaptureError::Refused { kind, cause });
        }
        refusals.push(format!("{} is not possible ({cause})", kind.name()));
        Ok(())
    };
    if wanted(SourceKind::Commit) || wanted(SourceKind::Tracepoint) {
        let first =
            if wanted(SourceKind::Commit) { SourceKind::Commit } else { SourceKind::Tracepoint };
        match Probes::load(ring_bytes) {
            Ok(mut probes) => {
                for kind in [SourceKind::Commit, SourceKind::Tracepoint] {
                    if !wanted(kind) {
                        continue;
                    }
                    let attached = match kind {
                        SourceKind::Commit => probes.attach_commit(),
                        _ => probes.attach_tracepoint(),
                    };
                    match attached {
                        Ok(hook) => {
                            let report = report(choice, kind, Some(hook), &refusals);
                            return Ok((report, Some(probes)));
                        }
                        Err(cause) => refuse(kind, cause)?,
                    }
                }
            }
            Err(cause) => refuse(first, cause)?,
        }
    }
    Ok((report(choice, SourceKind::Kmsg, None, &refusals), None))
}

fn report(
    choice: Choice,
    kind: SourceKind,
    hook: Option<RecordHook>,
    refusals: &[String],
) -> SourceReport {
    let reason = match (choice, refusals) {
        (Choice::Only(_), _) => "asked for by the configuration".to_owned(),
        (Choice::Auto, []) => "the best source there is".to_owned(),
        (Choice::Auto, refusals) => {
            format!("the best one this host allows: {}", refusals.join("; "))
        }
    };
    SourceReport { kind, hook, reason }
}
