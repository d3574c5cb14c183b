//! One record to all targets of a [`Plan`], and copies of it.
//!
//! What is sent is what the pump would send for the same record, but that rates and paces do not
//! count. It knows nothing of the ring.

use std::{io, sync::Arc, time::Duration};

use arc_swap::{ArcSwap, Cache};
use rustix::io::Errno;

use super::{
    Progress, SpeakerParts,
    dump::DumpText,
    plan::{Plan, Spoken, SpokenWay},
};
use crate::{
    capture::{ring_record::RingRecord, sequencer::DEFAULT_LEVEL},
    egress::packet::AnyDevice,
    extradata::CgroupNames,
    netconsole::{DATAGRAM_MAX_BYTES, Encoder, Extras},
    pump::TARGETS_MAX,
    record::Record,
    target::{SEVERE, filter::Decision},
};

/// A driver without room is tried again so often, so much later each time.
const TRIES: u32 = 20;
const TRY_AGAIN: Duration = Duration::from_micros(20);
/// Datagrams of which copies are still to be sent; of more, the oldest have fewer.
const ECHOES: usize = 64;
/// Between two copies: the machine may have milliseconds left, and no more.
const ECHO_APART_NS: u64 = 5_000_000;

/// See the module's description.
pub(super) struct Voice {
    encoder: Encoder,
    cgroups: Cache<Arc<ArcSwap<CgroupNames>>, Arc<CgroupNames>>,
    msgids: Box<[u32; TARGETS_MAX]>,
    mouth: Mouth,
    echoes: Echoes,
}

/// What it takes to send one datagram.
struct Mouth {
    devices: Option<AnyDevice>,
    buffer: Box<[u8; 2048]>,
    ip_id: u16,
}

/// Where a record stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) seq: u64,
    /// In the ring.
    pub(super) position: u64,
}

/// No target took it.
pub(super) struct Refused;

/// Datagrams that are to be sent again, in a ring.
struct Echoes {
    slots: Box<[Echo]>,
    next: usize,
}

struct Echo {
    place: usize,
    left: u8,
    /// Of the last time that it was sent, or rather of the first look after that.
    sent_ns: Option<u64>,
    len_bytes: usize,
    bytes: [u8; DATAGRAM_MAX_BYTES],
}

impl Echoes {
    fn new() -> Self {
        // Not zero: calloc would leave the pages to be faulted in.
        let echo = |_| Echo {
            place: 0,
            left: 0,
            sent_ns: None,
            len_bytes: 0,
            bytes: [0x20; DATAGRAM_MAX_BYTES],
        };
        Self { slots: (0..ECHOES).map(echo).collect(), next: 0 }
    }

    /// Remembers a datagram that is sent now, if there are to be copies of it.
    fn keep(&mut self, place: usize, copies: u8, payload: &[u8]) {
        let Some(slot) = self.slots.get_mut(self.next).filter(|_| copies > 1) else { return };
        let Some(room) = slot.bytes.get_mut(..payload.len()) else { return };
        room.copy_from_slice(payload);
        (slot.place, slot.left, slot.sent_ns) = (place, copies - 1, None);
        slot.len_bytes = payload.len();
        self.next = (self.next + 1) % ECHOES;
    }

    /// One that is due; it counts as sent.
    fn next_due(&mut self, now_ns: u64) -> Option<&Echo> {
        let due = |echo: &mut Echo| {
            echo.left > 0
                && now_ns.saturating_sub(*echo.sent_ns.get_or_insert(now_ns)) >= ECHO_APART_NS
        };
        let echo = self.slots.iter_mut().find_map(|echo| due(echo).then_some(echo))?;
        echo.left -= 1;
        echo.sent_ns = Some(now_ns);
        Some(echo)
    }
}

impl Echo {
    fn write(&self, payload: &mut [u8]) -> usize {
        let Some(room) = payload.get_mut(..self.len_bytes) else { return 0 };
        room.copy_from_slice(&self.bytes[..self.len_bytes]);
        self.len_bytes
    }
}

impl Voice {
    pub(super) fn new(cgroups: &Arc<ArcSwap<CgroupNames>>, devices: Option<AnyDevice>) -> Self {
        Self {
            encoder: Encoder::new(),
            cgroups: Cache::new(Arc::clone(cgroups)),
            msgids: Box::new([0; TARGETS_MAX]),
            mouth: Mouth { devices, buffer: Box::new([0x20; 2048]), ip_id: 0 },
            echoes: Echoes::new(),
        }
    }

    /// Takes the numbers of the targets' last messages.
    pub(super) fn number_from(&mut self, msgid: impl Fn(usize) -> u32) {
        self.msgids.iter_mut().enumerate().for_each(|(target, last)| *last = msgid(target));
    }

    /// Sends one datagram; true if it was taken.
    pub(super) fn send(&mut self, way: &SpokenWay, write: impl FnOnce(&mut [u8]) -> usize) -> bool {
        self.mouth.send(way, write)
    }

    /// Sends a copy that is due.
    pub(super) fn echo(&mut self, plan: &Plan, now_ns: u64) {
        let Some(echo) = self.echoes.next_due(now_ns) else { return };
        if let Some(target) = plan.targets.iter().find(|target| target.place == echo.place) {
            self.mouth.send(&target.way, |payload| echo.write(payload));
        }
    }

    /// Sends a record to all targets that the pump has not handed it; 1 if at least one took it, 0 if
    /// none wants it.
    pub(super) fn say(
        &mut self,
        plan: &Plan,
        half: &RingRecord<'_>,
        Place { seq, position }: Place,
        progress: &mut Progress,
        parts: &SpeakerParts,
        dump: &mut DumpText,
    ) -> Result<u64, Refused> {
        let is_new = seq >= progress.next_seq;
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
        if is_new && parts.dumps.keeps_text() {
            dump.append(&record);
        }
        let (mut wanted, mut taken) = (0, 0);
        let missing = |target: &&Spoken| position >= parts.beacon.handed_position(target.place);
        for target in plan.targets.iter().filter(missing) {
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
        let mut sent = true;
        let count = datagrams.count();
        let Self { mouth, echoes, .. } = self;
        // A level that is not known may be a severe one.
        let severe = record.approximated || record.level <= SEVERE;
        let copies = if severe { settings.copies } else { 1 };
        for _ in 0..count {
            sent &= mouth.send(&target.way, |payload| {
                let len_bytes = datagrams.write_next(payload).unwrap_or(0);
                echoes.keep(target.place, copies, &payload[..len_bytes]);
                len_bytes
            });
        }
        if sent && let Some(last) = self.msgids.get_mut(target.place) {
            *last = msgid;
        }
        (count > 0).then_some(sent)
    }
}

impl Mouth {
    /// Sends what `write` writes; true if it was taken.
    fn send(&mut self, way: &SpokenWay, write: impl FnOnce(&mut [u8]) -> usize) -> bool {
        let Self { devices, buffer, ip_id } = self;
        let payload_bytes = write(buffer.get_mut(way.header_bytes()..).unwrap_or_default());
        *ip_id = ip_id.wrapping_add(1);
        payload_bytes > 0
            && retry(|| way.send(devices.as_ref(), &mut buffer[..], payload_bytes, *ip_id))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_apart_and_counted() {
        let mut echoes = Echoes::new();
        echoes.keep(1, 1, b"once");
        assert!(echoes.next_due(0).is_none());
        echoes.keep(1, 3, b"three times");
        // The first look begins the time.
        assert!(echoes.next_due(7).is_none() && echoes.next_due(6 + ECHO_APART_NS).is_none());
        let mut payload = [0; 32];
        let echo = echoes.next_due(7 + ECHO_APART_NS).unwrap();
        let len_bytes = echo.write(&mut payload);
        assert_eq!((echo.place, &payload[..len_bytes]), (1, &b"three times"[..]));
        assert!(echoes.next_due(8 + ECHO_APART_NS).is_none());
        assert!(echoes.next_due(7 + 2 * ECHO_APART_NS).is_some());
        assert!(echoes.next_due(u64::MAX).is_none());
        // Of too many the newest stay.
        (0..=ECHOES).for_each(|place| echoes.keep(place, 2, b"x"));
        assert!(echoes.next_due(0).is_none());
        let places: Vec<_> =
            std::iter::from_fn(|| echoes.next_due(ECHO_APART_NS).map(|echo| echo.place)).collect();
        assert_eq!(places.len(), ECHOES);
        assert!(!places.contains(&0));
    }
}
