//! Sends the ring half of each record at once.
//!
//! It reads the ring from where the pump has handed everything over, in the ring's order, and sends
//! what it reads to every target of the [`Plan`] before it reads on. It waits for nothing: not for a
//! missing seq, whose CPU may be stopped, nor for `/dev/kmsg`, nor for a pace. What a backlog would put
//! before the panic is skipped, and said when there is nothing else to say.
//!
//! It keeps no account and frees no space in the ring.

use std::{io, sync::Arc, time::Duration};

use arc_swap::{ArcSwap, Cache};
use rustix::io::Errno;

use super::{
    Beacon, Progress,
    plan::{Plan, Spoken},
};
use crate::{
    capture::{
        bpf::{Alarm, ITEM_BYTES, Panic, RingView, Seen},
        ring_record::RingRecord,
        sequencer::DEFAULT_LEVEL,
    },
    egress::packet::AnyDevice,
    extradata::CgroupNames,
    netconsole::{Encoder, Extras},
    pump::TARGETS_MAX,
    record::Record,
    target::filter::Decision,
};

/// So much of the ring from before the panic is said first: an oops and what led to it.
const BEFORE_BYTES: u64 = 128 << 10;
/// Records said in one turn.
const TURN: usize = 16;
/// How long a record that may still grow is waited for: its pieces are printed in a row.
const GROW_NS: u64 = 1_000_000;
/// How long an item that is being written is waited for: its CPU may have been stopped.
const BUSY_NS: u64 = 1_000_000;
/// How long a record that no target takes is tried.
const REFUSED_NS: u64 = 50_000_000;
/// A driver without room is tried again so often, so much later each time.
const TRIES: u32 = 20;
const TRY_AGAIN: Duration = Duration::from_micros(20);
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
    /// What the programs say and are told.
    pub alarm: Arc<Alarm>,
    /// To whom.
    pub plan: Arc<ArcSwap<Plan>>,
    /// Names of cgroups by their ids.
    pub cgroups: Arc<ArcSwap<CgroupNames>>,
    /// The kernel shows `caller=` (`CONFIG_PRINTK_CALLER`).
    pub shows_caller: bool,
}

/// See the module's description.
pub struct Speaker {
    view: RingView,
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
}

/// What it takes to send one record.
struct Voice {
    devices: Option<AnyDevice>,
    encoder: Encoder,
    cgroups: Cache<Arc<ArcSwap<CgroupNames>>, Arc<CgroupNames>>,
    buffer: Box<[u8; 2048]>,
    msgids: Box<[u32; TARGETS_MAX]>,
    ip_id: u16,
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
    pub fn new(view: RingView, parts: SpeakerParts, devices: Option<AnyDevice>) -> Self {
        Self {
            view,
            plan: Cache::new(Arc::clone(&parts.plan)),
            voice: Voice {
                devices,
                encoder: Encoder::new(),
                cgroups: Cache::new(Arc::clone(&parts.cgroups)),
                buffer: Box::new([0x20; 2048]),
                msgids: Box::new([0; TARGETS_MAX]),
                ip_id: 0,
            },
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
            parts,
        }
    }

    /// The machine lives: the next panic is another one.
    pub fn reset(&mut self) {
        self.begun = false;
        self.growing.seq = None;
        self.skipped = 0..0;
    }

    fn begin(&mut self, panic: &Panic) {
        let Self { parts, view, voice, .. } = self;
        self.begun = true;
        self.progress = parts.beacon.progress();
        for (target, msgid) in voice.msgids.iter_mut().enumerate() {
            *msgid = parts.beacon.msgid(target);
        }
        // The printing CPU sees that somebody is there.
        parts.alarm.acknowledge(1);
        view.seek(self.progress.handed_position);
        let first = view.position();
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
        for _ in 0..TURN {
            let position = self.view.position();
            match self.view.next(&mut self.item) {
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
                                self.view.seek(position);
                                break;
                            }
                        }
                    }
                }
                Seen::Skipped | Seen::Overtaken => {}
                Seen::Busy => {
                    let since_ns = *self.busy_since_ns.get_or_insert(now_ns);
                    if now_ns - since_ns >= BUSY_NS {
                        self.busy_since_ns = None;
                        self.view.skip();
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
        let open = self.growing.seq.map(|_| self.growing.position);
        self.parts.alarm.acknowledge(open.unwrap_or_else(|| self.view.position()).max(1));
        if said.all && said.records == 0 {
            said.records = self.catch_up(now_ns);
            said.all = said.records == 0;
        }
        self.parts.beacon.spoke(said.records);
        said
    }

    /// One item of the ring, which stands at `position`; returns how many records it made speak.
    fn item(&mut self, len_bytes: usize, position: u64, now_ns: u64) -> Result<u64, Refused> {
        let bytes = ..len_bytes.min(ITEM_BYTES);
        let Some(record) = RingRecord::parse(&self.item[bytes]) else { return Ok(0) };
        let word = record.seq_or_id();
        let seq = if record.is_whole() { Some(word) } else { self.seq_of_id(word) };
        match (self.growing.seq, seq) {
            // A piece that continues.
            (Some(_), None) => {
                self.growing.append(record.text());
                return Ok(0);
            }
            // The same record with more text.
            (Some(growing), Some(seq)) if growing == seq => self.growing.seq = None,
            (Some(_), Some(_)) | (None, _) => {}
        }
        let records = self.say_growing()?;
        // A piece whose beginning was not seen is all that is known of its record.
        let seq = seq.unwrap_or(self.progress.next_seq);
        let Self { plan, voice, parts, progress, item, growing, .. } = self;
        match RingRecord::parse(&item[bytes]) {
            Some(record) if record.is_whole() && record.is_final() => {
                let said = voice.say(plan.load(), &record, seq, progress, parts)?;
                return Ok(records + said);
            }
            _ => growing.begin(&item[bytes], seq, position, now_ns),
        }
        Ok(records)
    }

    /// The seq of a descriptor id; `None` for a piece that continues a record.
    fn seq_of_id(&self, id: u64) -> Option<u64> {
        let Some(base) = self.progress.id_base else { return Some(self.progress.next_seq) };
        let seq = id.wrapping_add(base) & ID_MASK;
        (seq.abs_diff(self.progress.next_seq) < 1 << 20).then_some(seq)
    }

    /// Says what may still grow, if it does not any more.
    fn finish(&mut self, now_ns: u64) -> u64 {
        if self.growing.seq.is_none() || now_ns < self.growing.since_ns + GROW_NS {
            return 0;
        }
        self.say_growing().unwrap_or(0)
    }

    fn say_growing(&mut self) -> Result<u64, Refused> {
        let Self { plan, voice, parts, progress, growing, .. } = self;
        let (Some(seq), Some(record)) =
            (growing.seq, RingRecord::parse(&growing.bytes[..growing.len_bytes]))
        else {
            growing.seq = None;
            return Ok(0);
        };
        let said = voice.say(plan.load(), &record, seq, progress, parts)?;
        growing.seq = None;
        Ok(said)
    }

    /// Says one record of what was skipped.
    fn catch_up(&mut self, now_ns: u64) -> u64 {
        if self.skipped.is_empty() || self.growing.seq.is_some() {
            return 0;
        }
        let ahead = self.view.position();
        self.view.seek(self.skipped.start);
        let seen = self.view.next(&mut self.item);
        let position = std::mem::replace(&mut self.skipped.start, self.view.position());
        self.view.seek(ahead);
        let said = match seen {
            Seen::Item(len_bytes) => self.item(len_bytes, position, now_ns).unwrap_or(0),
            _ => 0,
        };
        // Its pieces are not waited for.
        said + self.say_growing().unwrap_or(0)
    }
}

/// No target took it.
struct Refused;

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

impl Voice {
    /// Sends a record to all targets; 1 if at least one took it, 0 if none wants it.
    fn say(
        &mut self,
        plan: &Plan,
        half: &RingRecord<'_>,
        seq: u64,
        progress: &mut Progress,
        parts: &SpeakerParts,
    ) -> Result<u64, Refused> {
        progress.next_seq = progress.next_seq.max(seq.saturating_add(1));
        if half.is_lost() {
            return Ok(0);
        }
        let mut record = half.whole().unwrap_or_else(|| {
            half.approximated(
                seq,
                half.ktime_ns().saturating_add_signed(progress.clock_offset_ns),
                DEFAULT_LEVEL,
            )
        });
        if !parts.shows_caller {
            record.caller = None;
        }
        let (mut wanted, mut taken) = (0, 0);
        for target in &plan.targets {
            if let Some(sent) = self.say_to(target, &record) {
                wanted += 1;
                taken += u64::from(sent);
            }
        }
        if wanted > 0 && taken == 0 { Err(Refused) } else { Ok(u64::from(taken > 0)) }
    }

    /// Sends a record to a target; `None` if it does not want it.
    fn say_to(&mut self, target: &Spoken, record: &Record<'_>) -> Option<bool> {
        let settings = target.settings.load();
        let names = self.cgroups.load();
        let id = record.context.map_or(0, |context| context.cgroup_id);
        let known = if id == 0 || !settings.names_cgroups { None } else { names.get(id) };
        let extras = Extras {
            cgroup: known.map(|(path, _)| path),
            unit: known.map(|(_, unit)| unit),
            nic: &target.nic,
        };
        if settings.filter.decide_without_rates(record, extras.cgroup) == Decision::Filter {
            return None;
        }
        let msgid = self.msgids.get(target.place).map_or(0, |last| last.wrapping_add(1));
        let mut datagrams = self.encoder.encode(record, &settings.format, msgid, &extras);
        let header_bytes = target.header_bytes();
        let mut sent = true;
        let count = datagrams.count();
        for _ in 0..count {
            let payload = self.buffer.get_mut(header_bytes..).unwrap_or_default();
            let Some(payload_bytes) = datagrams.write_next(payload) else { break };
            self.ip_id = self.ip_id.wrapping_add(1);
            let (devices, ip_id) = (self.devices.as_ref(), self.ip_id);
            let buffer = &mut self.buffer[..];
            sent &= retry(|| target.send(devices, buffer, payload_bytes, ip_id));
        }
        if sent && let Some(last) = self.msgids.get_mut(target.place) {
            *last = msgid;
        }
        (count > 0).then_some(sent)
    }
}

/// Tries to send until the driver has room.
fn retry(mut send: impl FnMut() -> io::Result<()>) -> bool {
    for _ in 0..TRIES {
        match send() {
            Ok(()) => return true,
            Err(error) => match Errno::from_io_error(&error) {
                Some(
                    Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM | Errno::INTR | Errno::CONNREFUSED,
                ) => {
                    std::thread::sleep(TRY_AGAIN);
                }
                _ => return false,
            },
        }
    }
    false
}
