//! Packets of dumps to texts, whoever sends what in which order.
//!
//! Packets may come in any mix of the three passes, repeated, in any order, and from many hosts
//! at once. A dump is finished when all its packets are there, or when its source has been silent
//! for a while; then what is missing is told. Memory is bounded. Time is passed in, and
//! files are written elsewhere.
//!
//! NUL at the end of a packet is taken for padding, in every packet: the patch of 2010 pads
//! where the kernel's ring buffer wrapped, too, and the log has no NUL of its own there.
//!
//! The first packet of a dump decides what it is. One with another count, architecture or kernel,
//! or with other text for the same number, is told as a conflict and not used.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::Hash;
use std::time::Duration;

use super::assembled::{Assembled, joined, missing};
use super::wire::{DATA_BYTES, Header, Kind, WireError, decode};

/// Finished dumps that are remembered, so that a repeated packet does not begin them anew.
const REMEMBERED: usize = 1024;
/// What a packet takes besides its text, roughly.
const PACKET_OVERHEAD_BYTES: usize = 96;

/// Bounds of an [`Assembler`].
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most dumps in the making.
    pub dumps: usize,
    /// Most of them from one source, so that it does not push out those of others.
    pub dumps_per_source: usize,
    /// Most bytes of all dumps in the making. A single dump may have its
    /// [`super::wire::TEXT_MAX_BYTES`] nevertheless.
    pub bytes: usize,
    /// A dump that got no packet for so long is finished.
    pub silence: Duration,
    /// A dump that is not whole after so long is finished.
    pub longest: Duration,
}

impl Default for Limits {
    /// 1024 dumps, 32 of one source, 64 MiB, 5 s and 10 min.
    fn default() -> Self {
        Self {
            dumps: 1024,
            dumps_per_source: 32,
            bytes: 64 << 20,
            silence: Duration::from_secs(5),
            longest: Duration::from_secs(600),
        }
    }
}

/// What a packet led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome<K> {
    /// It is kept, and more are needed.
    Kept,
    /// It came before.
    Repeated,
    /// It contradicts an earlier one of its dump and is not used.
    Conflicting,
    /// It was the last that was needed.
    Complete(Box<Assembled<K>>),
}

/// What has been counted so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets that brought something.
    pub kept: u64,
    /// Packets that came again.
    pub repeated: u64,
    /// Packets that contradicted earlier ones.
    pub conflicting: u64,
    /// Dumps that became whole.
    pub complete: u64,
    /// Dumps that were finished with packets missing.
    pub incomplete: u64,
}

/// Which dump a packet belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key<K> {
    source: K,
    dump_id: u16,
    kind: Kind,
}

/// What all packets of a dump say.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Facts {
    arch: u16,
    packet_count: u32,
    kernel_release: Vec<u8>,
}

impl Facts {
    fn new(header: &Header<'_>) -> Self {
        let kernel_release = header.kernel_release.to_vec();
        Self { arch: header.arch, packet_count: header.packet_count, kernel_release }
    }

    fn agrees(&self, header: &Header<'_>) -> bool {
        self.arch == header.arch
            && self.packet_count == header.packet_count
            && self.kernel_release == header.kernel_release
    }
}

#[derive(Debug)]
struct Open {
    facts: Facts,
    /// Counts up, so that of two dumps at the same time the first is the older one.
    serial: u64,
    since: Duration,
    last: Duration,
    /// Text by packet number, without padding.
    packets: BTreeMap<u32, Box<[u8]>>,
    bytes: usize,
    repeated: u64,
    conflicting: u64,
}

impl Open {
    fn new(now: Duration, serial: u64, header: &Header<'_>) -> Self {
        Self {
            facts: Facts::new(header),
            serial,
            since: now,
            last: now,
            packets: BTreeMap::new(),
            bytes: 0,
            repeated: 0,
            conflicting: 0,
        }
    }

    fn deadline(&self, limits: &Limits) -> Duration {
        let longest = self.since.saturating_add(limits.longest);
        self.last.saturating_add(limits.silence).min(longest)
    }

    /// Takes a packet of this dump and returns the memory that it needs.
    fn take(&mut self, now: Duration, header: &Header<'_>, text: &[u8]) -> Taken {
        let known = self.packets.get(&header.packet_no);
        if !self.facts.agrees(header) || known.is_some_and(|known| **known != *text) {
            // It does not keep the dump open.
            self.conflicting += 1;
            return Taken::Conflicting;
        }
        self.last = now;
        if known.is_some() {
            self.repeated += 1;
            return Taken::Repeated;
        }
        let bytes = PACKET_OVERHEAD_BYTES + text.len();
        self.packets.insert(header.packet_no, text.into());
        self.bytes += bytes;
        Taken::Kept { bytes }
    }

    fn is_whole(&self) -> bool {
        self.packets.len() as u64 == u64::from(self.facts.packet_count)
    }
}

/// What a dump made of a packet.
enum Taken {
    Kept { bytes: usize },
    Repeated,
    Conflicting,
}

/// Puts dumps together, per source `K`.
#[derive(Debug)]
pub struct Assembler<K> {
    limits: Limits,
    open: HashMap<Key<K>, Open>,
    next_serial: u64,
    /// Of those in the making.
    bytes: usize,
    /// Given up to make room, not yet fetched.
    evicted: VecDeque<Assembled<K>>,
    /// Whole dumps, and when the last packet of each came.
    complete: HashMap<(Key<K>, Facts), Duration>,
    counters: Counters,
}

impl<K: Copy + Eq + Hash> Assembler<K> {
    /// An empty one.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            open: HashMap::new(),
            next_serial: 0,
            bytes: 0,
            evicted: VecDeque::new(),
            complete: HashMap::new(),
            counters: Counters::default(),
        }
    }

    /// What has been counted so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Dumps in the making.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open.len()
    }

    /// Memory of the dumps in the making, roughly.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes one datagram that arrived at `now` (any origin, never going back). Fetch what
    /// was given up for it with [`Assembler::pop_incomplete`] afterwards.
    ///
    /// # Errors
    /// If it is no packet of a dump; it has changed nothing.
    pub fn push(
        &mut self,
        now: Duration,
        source: K,
        datagram: &[u8],
    ) -> Result<Outcome<K>, WireError> {
        let (header, data) = decode(datagram)?;
        let key = Key { source, dump_id: header.dump_id, kind: header.kind };
        if self.was_complete(now, key, &header) {
            self.counters.repeated += 1;
            return Ok(Outcome::Repeated);
        }
        if !self.open.contains_key(&key) {
            self.make_room_for_dump(source);
            self.next_serial += 1;
        }
        let serial = self.next_serial;
        let open = self.open.entry(key).or_insert_with(|| Open::new(now, serial, &header));
        match open.take(now, &header, without_padding(data)) {
            Taken::Conflicting => {
                self.counters.conflicting += 1;
                Ok(Outcome::Conflicting)
            }
            Taken::Repeated => {
                self.counters.repeated += 1;
                Ok(Outcome::Repeated)
            }
            Taken::Kept { bytes } => {
                let is_whole = open.is_whole();
                self.bytes += bytes;
                self.counters.kept += 1;
                if is_whole && let Some(assembled) = self.finish(key) {
                    self.remember(now, key, Facts::new(&header));
                    return Ok(Outcome::Complete(Box::new(assembled)));
                }
                self.make_room_for_bytes(key);
                Ok(Outcome::Kept)
            }
        }
    }

    /// Takes out one dump that was given up to make room, or whose time is over at
    /// `now`; [`Duration::MAX`] takes out all of them.
    pub fn pop_incomplete(&mut self, now: Duration) -> Option<Assembled<K>> {
        if let Some(evicted) = self.evicted.pop_front() {
            return Some(evicted);
        }
        let due = |open: &Open| (open.deadline(&self.limits), open.serial);
        let (&key, open) = self.open.iter().min_by_key(|(_, open)| due(open))?;
        if open.deadline(&self.limits) > now {
            return None;
        }
        self.finish(key)
    }

    /// When [`Assembler::pop_incomplete`] has something to give.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Duration> {
        if !self.evicted.is_empty() {
            return Some(Duration::ZERO);
        }
        self.open.values().map(|open| open.deadline(&self.limits)).min()
    }

    /// Whether the packet is one of a dump that has become whole, within the silence.
    fn was_complete(&mut self, now: Duration, key: Key<K>, header: &Header<'_>) -> bool {
        match self.complete.get_mut(&(key, Facts::new(header))) {
            Some(last) if last.saturating_add(self.limits.silence) > now => {
                *last = now;
                true
            }
            _ => false,
        }
    }

    fn remember(&mut self, now: Duration, key: Key<K>, facts: Facts) {
        if self.complete.len() >= REMEMBERED {
            let silence = self.limits.silence;
            self.complete.retain(|_, last| last.saturating_add(silence) > now);
        }
        if self.complete.len() >= REMEMBERED {
            let oldest = self.complete.iter().min_by_key(|(_, last)| **last);
            if let Some(oldest) = oldest.map(|(dump, _)| dump.clone()) {
                self.complete.remove(&oldest);
            }
        }
        self.complete.insert((key, facts), now);
    }

    fn make_room_for_dump(&mut self, source: K) {
        let of_source = |key: &&Key<K>| key.source == source;
        while self.open.keys().filter(of_source).count() >= self.limits.dumps_per_source.max(1) {
            self.evict(|key| key.source == source);
        }
        while self.open.len() >= self.limits.dumps.max(1) {
            self.evict(|_| true);
        }
    }

    fn make_room_for_bytes(&mut self, but: Key<K>) {
        while self.bytes > self.limits.bytes && self.open.len() > 1 {
            self.evict(|key| *key != but);
        }
    }

    /// Gives up the dump that has been silent for longest.
    fn evict(&mut self, may_go: impl Fn(&Key<K>) -> bool) {
        let candidates = self.open.iter().filter(|(key, _)| may_go(key));
        let oldest = candidates.min_by_key(|(_, open)| (open.last, open.serial));
        if let Some(key) = oldest.map(|(&key, _)| key)
            && let Some(assembled) = self.finish(key)
        {
            self.evicted.push_back(assembled);
        }
    }

    /// Takes a dump out as it is.
    fn finish(&mut self, key: Key<K>) -> Option<Assembled<K>> {
        let open = self.open.remove(&key)?;
        self.bytes -= open.bytes;
        let Open { facts, packets, repeated, conflicting, .. } = open;
        let missing = missing(&packets, facts.packet_count);
        if missing.is_empty() {
            self.counters.complete += 1;
        } else {
            self.counters.incomplete += 1;
        }
        Some(Assembled {
            source: key.source,
            dump_id: key.dump_id,
            kind: key.kind,
            arch: facts.arch,
            kernel_release: facts.kernel_release,
            packet_count: facts.packet_count,
            // At most PACKETS_MAX.
            received: packets.len() as u32,
            text: joined(&packets, &missing),
            missing,
            repeated,
            conflicting,
        })
    }
}

fn without_padding(data: &[u8; DATA_BYTES]) -> &[u8] {
    let end = data.iter().rposition(|&byte| byte != 0);
    &data[..end.map_or(0, |last| last + 1)]
}

#[cfg(test)]
#[path = "assemble_tests.rs"]
mod tests;
