//! Sends the ring half of each record at once.
//!
//! It reads the ring from where the pump has handed everything over to the targets of the [`Plan`], in
//! the ring's order, and sends what it reads to each target that does not have it before it reads on.
//! It waits for nothing: not for a missing seq, whose CPU may be stopped, nor for `/dev/kmsg`, nor for
//! a pace. What a backlog would put before the panic is skipped, and said when there is nothing else
//! to say.
//!
//! It keeps no account and frees no space in the ring.

use std::sync::Arc;

use arc_swap::{ArcSwap, Cache};

use super::{
    Beacon, DumpDesk, Progress,
    dump::DumpText,
    plan::Plan,
    voice::{Place, Refused, Voice},
};
use crate::{
    capture::{
        bpf::{Alarm, ITEM_BYTES, Panic, RingView, Seen},
        ring_record::RingRecord,
    },
    egress::packet::AnyDevice,
    extradata::CgroupNames,
    netoops::{Kind, TextReader},
};

/// So much of the ring from before the panic is said first: an oops and what led to it.
const BEFORE_BYTES: u64 = 128 << 10;
/// Records said in one turn.
const TURN: usize = 16;
/// How long a record that may still grow is waited for. Its pieces are printed in a row, but a slow
/// machine takes milliseconds for each; and while this is waited for nobody is held.
const GROW_NS: u64 = 20_000_000;
/// The same for a text alone, of which nobody knows whether it is the whole: its CPU is held.
const GROW_HELD_NS: u64 = 1_000_000;
/// If the line that begins a panic was not seen for so long, the pump had sent it already.
const PANIC_LINE_NS: u64 = 5_000_000;
/// How long an item that is being written is waited for if another one follows: its CPU may have been
/// stopped. The last one keeps nobody from being heard, and the panicking CPU may be writing it, which
/// a hypervisor may hold up for milliseconds.
const BUSY_NS: u64 = 1_000_000;
/// How long a record that no target takes is tried.
const REFUSED_NS: u64 = 50_000_000;
/// Descriptor ids have 62 bits (`DESC_ID_MASK`, `printk_ringbuffer.h`).
const ID_MASK: u64 = (1 << 62) - 1;

/// What came of a turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// Records that were sent.
    pub records: u64,
    /// There is nothing more to say now.
    pub all: bool,
}

/// What a speaker shares with the pump, the control thread and the programs.
#[derive(Clone)]
pub struct SpeakerParts {
    /// How far the pump has come.
    pub beacon: Arc<Beacon>,
    /// What the programs say and are told, if there are programs.
    pub alarm: Option<Arc<Alarm>>,
    /// To whom.
    pub plan: Arc<ArcSwap<Plan>>,
    /// Names of cgroups by their ids.
    pub cgroups: Arc<ArcSwap<CgroupNames>>,
    /// The kernel shows `caller=` (`CONFIG_PRINTK_CALLER`).
    pub shows_caller: bool,
    /// Who wants dumps, and when.
    pub dumps: Arc<DumpDesk>,
    /// Text of the records that the pump has settled.
    pub text: TextReader,
    /// Release of the kernel.
    pub release: Arc<[u8]>,
}

impl SpeakerParts {
    /// The panic under way.
    #[must_use]
    pub fn panic(&self) -> Option<Panic> {
        self.alarm.as_ref()?.panic()
    }

    /// Says that everything before this position of the ring was handed on.
    fn acknowledge(&self, position: u64) {
        self.alarm.iter().for_each(|alarm| alarm.acknowledge(position));
    }

    /// The machine lives.
    pub fn lives(&self) {
        self.alarm.iter().for_each(|alarm| alarm.disarm());
        self.beacon.release();
    }
}

/// See the module's description.
pub struct Speaker {
    /// None without programs.
    view: Option<RingView>,
    parts: SpeakerParts,
    plan: Cache<Arc<ArcSwap<Plan>>, Arc<Plan>>,
    voice: Voice,
    /// It has begun to speak.
    begun: bool,
    progress: Progress,
    item: Box<[u8; ITEM_BYTES]>,
    /// A record that may still grow.
    growing: Growing,
    busy_since_ns: Option<u64>,
    refused_since_ns: Option<u64>,
    /// What was skipped.
    skipped: std::ops::Range<u64>,
    /// What was acknowledged last.
    acknowledged: u64,
    dump: DumpText,
    /// The line that begins a panic was said, and there was no dump with it.
    dump_due: bool,
    /// A dump was made in this panic, and one since its first line was said.
    dumped: bool,
    dumped_panic: bool,
}

struct Growing {
    bytes: Box<[u8; ITEM_BYTES]>,
    len_bytes: usize,
    /// `None` if there is none.
    seq: Option<u64>,
    /// Where it begins in the ring.
    position: u64,
    since_ns: u64,
}

impl Speaker {
    /// A speaker with its socket for frames, if it could be opened; allocates all it will ever need.
    #[must_use]
    pub fn new(view: Option<RingView>, parts: SpeakerParts, devices: Option<AnyDevice>) -> Self {
        Self {
            view,
            plan: Cache::new(Arc::clone(&parts.plan)),
            voice: Voice::new(&parts.cgroups, devices),
            begun: false,
            progress: parts.beacon.progress(),
            // Not zero: calloc would leave the pages to be faulted in.
            item: Box::new([0x20; ITEM_BYTES]),
            growing: Growing {
                bytes: Box::new([0x20; ITEM_BYTES]),
                len_bytes: 0,
                seq: None,
                position: 0,
                since_ns: 0,
            },
            busy_since_ns: None,
            refused_since_ns: None,
            skipped: 0..0,
            acknowledged: 1,
            dump: DumpText::new(parts.text.clone(), Arc::clone(&parts.release)),
            dump_due: false,
            dumped: false,
            dumped_panic: false,
            parts,
        }
    }

    /// The machine lives: the next panic is another one.
    pub fn reset(&mut self) {
        self.begun = false;
        self.growing.seq = None;
        self.skipped = 0..0;
        (self.dump_due, self.dumped, self.dumped_panic) = (false, false, false);
    }

    fn begin(&mut self, panic: &Panic) {
        let Self { parts, plan, view: Some(view), voice, progress, .. } = self else { return };
        self.begun = true;
        *progress = parts.beacon.progress();
        voice.number_from(|target| parts.beacon.msgid(target));
        // The printing CPU sees that somebody is there.
        parts.acknowledge(1);
        let handed = plan.load().targets.iter();
        let handed = handed.map(|target| parts.beacon.handed_position(target.place));
        let first = handed.min().unwrap_or_else(|| view.consumer_position());
        view.seek(first);
        while panic.position.saturating_sub(view.position()) > BEFORE_BYTES && view.skip() {}
        self.skipped = first..view.position();
    }

    /// Says what the ring holds, at most for one turn.
    pub fn speak(&mut self, panic: &Panic, now_ns: u64) -> Said {
        // Nobody to speak to: it may yet become known.
        if self.plan.load().targets.is_empty() {
            return Said { records: 0, all: true };
        }
        if !self.begun {
            self.begin(panic);
        }
        let mut said = Said::default();
        let Some(mut view) = self.view.take() else { return Said { records: 0, all: true } };
        for _ in 0..TURN {
            let position = view.position();
            match view.next(&mut self.item) {
                Seen::Item(len_bytes) => {
                    self.busy_since_ns = None;
                    match self.item(len_bytes, position, now_ns) {
                        Ok(records) => {
                            said.records += records;
                            self.refused_since_ns = None;
                        }
                        Err(Refused) => {
                            let since_ns = *self.refused_since_ns.get_or_insert(now_ns);
                            if now_ns - since_ns < REFUSED_NS {
                                view.seek(position);
                                break;
                            }
                        }
                    }
                }
                Seen::Skipped | Seen::Overtaken => {}
                Seen::Busy => {
                    let since_ns = *self.busy_since_ns.get_or_insert(now_ns);
                    if now_ns - since_ns >= BUSY_NS && !view.is_last() {
                        self.busy_since_ns = None;
                        view.skip();
                        continue;
                    }
                    said.all = true;
                    break;
                }
                Seen::End => {
                    said.records += self.finish(now_ns);
                    said.all = self.growing.seq.is_none();
                    break;
                }
            }
        }
        // Whoever wants a dump gets it while the line is held.
        let late = said.all && !self.dumped && now_ns >= panic.since_ns + PANIC_LINE_NS;
        let due = std::mem::take(&mut self.dump_due);
        if due || late {
            self.dumped = true;
            self.dumped_panic |= due;
            self.dump(Kind::Hard);
        }
        let open = self.growing.seq.map(|_| self.growing.position);
        self.acknowledged = open.unwrap_or_else(|| view.position()).max(1);
        self.parts.acknowledge(self.acknowledged);
        if said.all && said.records == 0 {
            let skipped_from = self.skipped.start;
            said.records = self.catch_up(&mut view, now_ns);
            // Not every item speaks.
            said.all = said.records == 0 && self.skipped.start == skipped_from;
            if said.all {
                self.voice.echo(self.plan.load(), now_ns);
            }
        }
        self.view = Some(view);
        self.parts.beacon.spoke(said.records);
        said
    }

    /// Sends a dump to each target that wants one; returns the number of packets sent.
    pub fn dump(&mut self, kind: Kind) -> u64 {
        let Self { plan, voice, parts, dump, acknowledged, .. } = self;
        let plan = plan.load();
        let mut packets = 0;
        if plan.targets.iter().any(|target| target.dump.is_some())
            && let Some((dump, text)) = dump.gather(kind)
        {
            for (pass, packet_no) in dump.order() {
                for target in &plan.targets {
                    let Some(way) = &target.dump else { continue };
                    packets +=
                        u64::from(voice.send(way, |payload| dump.packet(text, packet_no, payload)));
                }
                // A held line sees that something moves. Positions are multiples of 8.
                parts.acknowledge(
                    *acknowledged + 1 + u64::from(packet_no & 1) + u64::from(pass) * 2,
                );
            }
        }
        parts.dumps.made(kind, packets);
        packets
    }

    /// One item of the ring, which stands at `position`; returns how many records it made speak.
    fn item(&mut self, len_bytes: usize, position: u64, now_ns: u64) -> Result<u64, Refused> {
        let bytes = ..len_bytes.min(ITEM_BYTES);
        let record = RingRecord::parse(&self.item[bytes]);
        // A header alone says nothing: its text was said without it.
        let Some(record) = record.filter(|record| !record.is_header()) else { return Ok(0) };
        let word = record.seq_or_id();
        let seq = match self.which(word, record.is_whole()) {
            Which::Seq(seq) if self.growing.seq == Some(seq) && record.is_whole() => {
                // The same record with more text.
                self.growing.seq = None;
                Some(seq)
            }
            Which::Seq(seq) if self.growing.seq != Some(seq) => Some(seq),
            Which::Seq(_) | Which::Continues if self.growing.seq.is_some() => {
                self.growing.append(record.text());
                return Ok(0);
            }
            // A piece whose beginning was not seen is all that is known of its record.
            Which::Seq(_) | Which::Continues | Which::Unknown => None,
        };
        let records = self.say_growing()?;
        let seq = seq.unwrap_or(self.progress.next_seq);
        let Self { plan, voice, parts, progress, item, growing, dump, .. } = self;
        match RingRecord::parse(&item[bytes]) {
            Some(record) if record.is_whole() && record.is_final() => {
                let place = Place { seq, position };
                let said = voice.say(plan.load(), &record, place, progress, parts, dump)?;
                self.dump_due |= !self.dumped_panic && is_panic(record.text());
                return Ok(records + said);
            }
            _ => growing.begin(&item[bytes], seq, position, now_ns),
        }
        Ok(records)
    }

    /// Which record an item belongs to, by its seq or the word before its text.
    fn which(&self, word: u64, is_whole: bool) -> Which {
        if is_whole {
            return Which::Seq(word);
        }
        let Some(base) = self.progress.id_base else { return Which::Unknown };
        let seq = word.wrapping_add(base) & ID_MASK;
        let near = seq.abs_diff(self.progress.next_seq) < 1 << 20;
        if near { Which::Seq(seq) } else { Which::Continues }
    }

    /// Says what may still grow, if it does not any more.
    fn finish(&mut self, now_ns: u64) -> u64 {
        let Growing { bytes, len_bytes, seq: Some(_), since_ns, .. } = &self.growing else {
            return 0;
        };
        let whole = RingRecord::parse(&bytes[..*len_bytes]).is_some_and(|record| record.is_whole());
        if now_ns < since_ns + if whole { GROW_NS } else { GROW_HELD_NS } {
            return 0;
        }
        self.say_growing().unwrap_or(0)
    }

    fn say_growing(&mut self) -> Result<u64, Refused> {
        let Self { plan, voice, parts, progress, growing, dump, .. } = self;
        let (Some(seq), Some(record)) =
            (growing.seq, RingRecord::parse(&growing.bytes[..growing.len_bytes]))
        else {
            growing.seq = None;
            return Ok(0);
        };
        let place = Place { seq, position: growing.position };
        let said = voice.say(plan.load(), &record, place, progress, parts, dump)?;
        self.dump_due |= !self.dumped_panic && is_panic(record.text());
        growing.seq = None;
        Ok(said)
    }

    /// Says one record of what was skipped.
    fn catch_up(&mut self, view: &mut RingView, now_ns: u64) -> u64 {
        if self.skipped.is_empty() || self.growing.seq.is_some() {
            return 0;
        }
        let ahead = view.position();
        view.seek(self.skipped.start);
        let seen = view.next(&mut self.item);
        let position = std::mem::replace(&mut self.skipped.start, view.position());
        view.seek(ahead);
        let said = match seen {
            Seen::Item(len_bytes) => self.item(len_bytes, position, now_ns).unwrap_or(0),
            _ => 0,
        };
        // Its pieces are not waited for.
        said + self.say_growing().unwrap_or(0)
    }
}

/// The first line of a panic (`vpanic`, kernel/panic.c).
fn is_panic(text: &[u8]) -> bool {
    text.starts_with(b"Kernel panic - not syncing")
}

/// Which record an item of the ring belongs to.
enum Which {
    Seq(u64),
    /// The record before it.
    Continues,
    /// One of its own, for all that is known.
    Unknown,
}

impl Growing {
    fn begin(&mut self, bytes: &[u8], seq: u64, position: u64, now_ns: u64) {
        let Some(room) = self.bytes.get_mut(..bytes.len()) else { return };
        room.copy_from_slice(bytes);
        self.len_bytes = bytes.len();
        (self.seq, self.position, self.since_ns) = (Some(seq), position, now_ns);
    }

    fn append(&mut self, text: &[u8]) {
        if let Some(bytes) = RingRecord::append_text(&mut self.bytes[..], self.len_bytes, text) {
            self.len_bytes = bytes;
        }
    }
}
