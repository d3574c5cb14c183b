//! The pump over memory in place of sockets: what is retired, bound and unbound at
//! any time, what arrives, and what the account says of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use proptest::prelude::*;
use rtrb::{Producer, RingBuffer};

use super::*;
use crate::{
    capture::{
        kmsg::Wanted,
        sequencer::{Begin, MissingReason, RingContent, Sink as _},
        wake::Waker,
    },
    checkpoint::{Checkpoint, Checkpoints},
    egress::memory::{self, MemoryHandle},
    handover::{ControlEnd, handover},
    ledger::{Ledger, LostReason, SharedLedger},
    message::Kind,
    netconsole::{Format, SysdataKey},
    record::Record,
    target::{
        Pace, TargetSettings,
        filter::{Filter, FilterSpec},
    },
};

mod far;
mod gaps;
mod live;
mod overload;

const SLOT_BYTES: usize = 2048;
const LOTS: usize = 1 << 20;

/// What the control thread holds, and the other ends of everything.
struct Control {
    end: ControlEnd<Command, Returned>,
    kmsg: Producer<KmsgRecord>,
    waker: Arc<Waker>,
    stats: Arc<PumpStats>,
    ledgers: Vec<Arc<SharedLedger>>,
}

fn settings(max_level: u8, pace: Option<Pace>) -> TargetSettings {
    let mut format = Format::extended(b"6.12.0");
    format.sysdata = [SysdataKey::Msgid].into_iter().collect();
    let filter =
        Filter::compile(FilterSpec { max_level, facilities: None, rules: vec![], rate: None });
    TargetSettings {
        name: "test".to_owned(),
        format,
        filter: Arc::new(filter.unwrap()),
        names_cgroups: false,
        copies: 1,
        pace,
    }
}

fn seed(settings: TargetSettings, ledger: &Arc<SharedLedger>) -> Box<PumpTarget> {
    seed_keeping(settings, ledger, None)
}

fn seed_keeping(
    settings: TargetSettings,
    ledger: &Arc<SharedLedger>,
    checkpoint: Option<Checkpoint>,
) -> Box<PumpTarget> {
    PumpTarget::new(TargetSeed {
        settings: Arc::new(ArcSwap::from_pointee(settings)),
        ledger: Arc::clone(ledger),
        first_seq: None,
        checkpoint,
    })
}

/// Asks nobody.
fn backfill() -> Backfill {
    let waker = Arc::new(Waker::new().unwrap());
    Backfill { wanted: Arc::new(Wanted::all_from(0)), waker }
}

fn pump(targets: Vec<TargetSettings>, store_bytes: usize) -> (Pump, Control) {
    pump_from(Begin::at(0), targets, store_bytes)
}

fn pump_from(begin: Begin, targets: Vec<TargetSettings>, store_bytes: usize) -> (Pump, Control) {
    pump_keeping(begin, targets, store_bytes, None)
}

/// The checkpoint of each target is called by its index.
fn pump_keeping(
    begin: Begin,
    targets: Vec<TargetSettings>,
    store_bytes: usize,
    checkpoints: Option<&Checkpoints>,
) -> (Pump, Control) {
    let (end, pump_end) = handover(1000);
    let (producer, kmsg) = RingBuffer::new(1000);
    let waker = Arc::new(Waker::new().unwrap());
    let stats = Arc::new(PumpStats::default());
    let ledgers: Vec<_> = targets.iter().map(|_| Arc::new(SharedLedger::default())).collect();
    let pump = Pump::new(PumpParts {
        ring: None,
        doorbell: None,
        kmsg,
        backfill: backfill(),
        waker: Arc::clone(&waker),
        sequencer: Sequencer::new(RingContent::Nothing, begin, false),
        store: Store::new(store_bytes, 0),
        handover: pump_end,
        cgroups: Arc::default(),
        unnamed: RingBuffer::new(8).0,
        stats: Arc::clone(&stats),
        last_words: None,
    });
    let mut control = Control { end, kmsg: producer, waker, stats, ledgers };
    for (index, settings) in targets.into_iter().enumerate() {
        let checkpoint = checkpoints.map(|all| all.of(&index.to_string()).unwrap().0);
        let target = seed_keeping(settings, &control.ledgers[index], checkpoint);
        control.send(Command::Add { index, target });
    }
    let mut pump = pump.unwrap();
    pump.obey(0);
    (pump, control)
}

impl Control {
    fn send(&mut self, command: Command) {
        let boxes = usize::from(command.lends());
        assert!(self.end.send(command, boxes).is_ok());
        self.waker.wake();
    }

    fn install(&mut self, index: usize, slots: usize) -> MemoryHandle {
        let (egress, handle) = memory::open(slots, SLOT_BYTES);
        self.send(Command::Install { index, egress });
        handle
    }

    fn bind(&mut self, target: usize, egress: usize) {
        let route = Box::new(Route { egress, header: None, mtu_bytes: 1500, nic: Box::default() });
        self.send(Command::Bind { target, route });
    }

    fn ledger(&self, target: usize) -> Ledger {
        self.ledgers[target].read()
    }

    fn say(&mut self, seq: u64) {
        self.say_as(seq, 6);
    }

    fn say_as(&mut self, seq: u64, level: u8) {
        let mut record = KmsgRecord::default();
        (record.seq, record.level) = (seq, level);
        record.set_text(b"said");
        self.kmsg.push(record).unwrap();
        self.waker.wake();
    }
}

impl Pump {
    fn store_record(&mut self, len_bytes: usize, level: u8) {
        let text = vec![1; len_bytes];
        let record = Record {
            seq: self.store.next_seq(),
            ts_ns: 0,
            facility: 0,
            level,
            cont: false,
            caller: None,
            // Escaped to four bytes each.
            text: &text,
            subsystem: b"",
            device: b"",
            context: None,
            approximated: false,
            backfilled: false,
        };
        self.store.record(&record);
    }

    /// A round without the wait.
    fn whole_round(&mut self, now_ns: u64) -> Progress {
        let progress = self.sequencer.poll(now_ns, &mut self.ring, &mut self.kmsg, &mut self.store);
        self.round(now_ns);
        progress
    }

    /// A round without capture and wait.
    fn round(&mut self, now_ns: u64) {
        self.obey(now_ns);
        self.deliver(now_ns);
        self.flush_and_reap(now_ns);
        self.make_room(now_ns);
        self.publish();
    }

    fn stop_of(&self, target: usize) -> Stop {
        self.targets[target].as_ref().unwrap().stop()
    }
}

/// One datagram as a receiver reads it.
#[derive(Debug, PartialEq, Eq)]
struct Datagram {
    seq: u64,
    /// Where its part of the message begins and ends, and the length of the whole.
    part: (usize, usize, usize),
    msgid: Option<u32>,
}

fn parse(payload: &[u8]) -> Datagram {
    let text = std::str::from_utf8(payload).unwrap();
    let (header, body) = text.split_once(';').unwrap();
    let seq = header.split(',').nth(1).unwrap().parse().unwrap();
    let part = match header.split_once(",ncfrag=") {
        Some((_, fragment)) => {
            let (offset, total) = fragment.split_once('/').unwrap();
            let offset = offset.parse().unwrap();
            (offset, offset + body.len(), total.parse().unwrap())
        }
        None => (0, body.len(), body.len()),
    };
    let msgid = body.rsplit_once(" msgid=").and_then(|(_, id)| id.trim().parse().ok());
    Datagram { seq, part, msgid }
}

/// What the receiver is told about missing records is none of them.
const NOTICE: &[u8] = Kind::Notice.prefix().as_bytes();

fn sent(handle: &MemoryHandle) -> Vec<Datagram> {
    let all = handle.take_sent();
    let records = all.iter().filter(|(_, payload)| !payload.starts_with(NOTICE));
    records.map(|(_, payload)| parse(payload)).collect()
}

fn seqs(handle: &MemoryHandle) -> Vec<u64> {
    sent(handle).iter().map(|datagram| datagram.seq).collect()
}

/// What a receiver of one target has seen.
#[derive(Debug, Default)]
struct Receiver {
    newest_seq: u64,
    /// End of what came of the newest message without a gap.
    joined: usize,
    /// msgids of whole messages, by seq.
    whole: BTreeMap<u64, u32>,
    /// Records in several parts of which a device really dropped one. That part may have come
    /// by another socket before; the record is sent again all the same.
    may_repeat: BTreeSet<u64>,
    /// Records of which a part came more than once, and where the parts of each began.
    twice: BTreeSet<u64>,
    begins: BTreeMap<u64, BTreeSet<usize>>,
    /// First and last seq of the lines about missing records.
    told: Vec<(u64, u64)>,
}

impl Receiver {
    fn take(&mut self, datagram: &Datagram) {
        let Datagram { seq, part: (begin, end, total), msgid } = *datagram;
        if !self.begins.entry(seq).or_default().insert(begin) {
            self.twice.insert(seq);
        }
        assert!(seq >= self.newest_seq, "{seq} after {}", self.newest_seq);
        if self.may_repeat.contains(&seq) && self.whole.contains_key(&seq) {
            return;
        }
        assert!(!self.whole.contains_key(&seq), "{seq} came again after it was whole");
        if begin == 0 {
            self.joined = 0;
        }
        self.newest_seq = seq;
        if begin == self.joined {
            self.joined = end;
            if end == total {
                // Two fragments may share the digits.
                let earlier = self.whole.values().next_back().copied().unwrap_or_default();
                assert!(msgid.is_none_or(|msgid| msgid > earlier), "{datagram:?}");
                self.whole.insert(seq, msgid.unwrap_or(earlier));
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Op {
    Record { len_bytes: usize, level: u8 },
    Storm(usize),
    Missing(u64),
    Deliver,
    Flush,
    Room(usize, usize),
    Refuse(usize, usize),
    Drop(usize, usize),
    Full(usize, bool),
    Down(usize, bool),
    Install(usize, usize),
    Retire(usize),
    Bind(usize, usize),
    Unbind(usize),
    Pass(u64),
}

const TARGETS: usize = 2;
const PLACES: usize = 3;

fn ops() -> impl Strategy<Value = Op> {
    let place = 0..PLACES;
    let target = 0..TARGETS;
    prop_oneof![
        6 => (prop_oneof![3 => Just(9usize), 1 => 0usize..1025], 0u8..8)
            .prop_map(|(len_bytes, level)| Op::Record { len_bytes, level }),
        1 => (1usize..80).prop_map(Op::Storm),
        1 => (1u64..50).prop_map(Op::Missing),
        6 => Just(Op::Deliver),
        6 => Just(Op::Flush),
        3 => (place.clone(), prop_oneof![0usize..12, Just(LOTS)])
            .prop_map(|(place, room)| Op::Room(place, room)),
        1 => (place.clone(), 0usize..3).prop_map(|(place, count)| Op::Refuse(place, count)),
        1 => (place.clone(), 0usize..3).prop_map(|(place, count)| Op::Drop(place, count)),
        1 => (place.clone(), any::<bool>()).prop_map(|(place, full)| Op::Full(place, full)),
        1 => (place.clone(), any::<bool>()).prop_map(|(place, down)| Op::Down(place, down)),
        2 => (place.clone(), 1usize..20).prop_map(|(place, slots)| Op::Install(place, slots)),
        1 => place.clone().prop_map(Op::Retire),
        3 => (target.clone(), place).prop_map(|(target, place)| Op::Bind(target, place)),
        1 => target.prop_map(Op::Unbind),
        3 => (0u64..30_000_000).prop_map(Op::Pass),
    ]
}

/// The pump with everything that is known of it.
struct World {
    pump: Pump,
    control: Control,
    sockets: [Option<MemoryHandle>; PLACES],
    receivers: [Receiver; TARGETS],
    now_ns: u64,
    /// Seqs that the second target does not want, and seqs that nobody has.
    unwanted: u64,
    missing: u64,
    /// By seq; `None` if nobody has it.
    levels: Vec<Option<u8>>,
}

impl World {
    fn new(store_bytes: usize) -> Self {
        Self::keeping(store_bytes, None)
    }

    fn keeping(store_bytes: usize, checkpoints: Option<&Checkpoints>) -> Self {
        let pace = Pace { per_second: 1000, burst: 7 };
        let targets = vec![settings(7, None), settings(4, Some(pace))];
        let (pump, control) = pump_keeping(Begin::at(0), targets, store_bytes, checkpoints);
        let receivers = Default::default();
        let sockets = Default::default();
        let levels = Vec::new();
        Self { pump, control, sockets, receivers, now_ns: 1, unwanted: 0, missing: 0, levels }
    }

    fn act(&mut self, op: &Op) {
        let told = |place: &usize| self.sockets[*place].as_ref();
        match op {
            Op::Record { len_bytes, level } => {
                self.unwanted += u64::from(*level > 4);
                self.levels.push(Some(*level));
                self.pump.store_record(*len_bytes, *level);
            }
            Op::Storm(count) => {
                (0..*count).for_each(|_| self.pump.store_record(1000, 3));
                self.levels.extend(std::iter::repeat_n(Some(3), *count));
            }
            Op::Missing(count) => {
                let next_seq = self.pump.store.next_seq();
                self.missing += count;
                self.levels.extend(std::iter::repeat_n(None, *count as usize));
                self.pump.store.missing(next_seq, *count, MissingReason::NotCaptured);
            }
            Op::Deliver => {
                self.pump.deliver(self.now_ns);
            }
            Op::Flush => {
                self.pump.flush_and_reap(self.now_ns);
            }
            Op::Room(place, room) => told(place).into_iter().for_each(|s| s.set_room(*room)),
            Op::Refuse(place, count) => {
                told(place).into_iter().for_each(|s| s.refuse_next(*count));
            }
            Op::Drop(place, count) => {
                told(place).into_iter().for_each(|s| s.drop_next(*count));
            }
            Op::Full(place, full) => told(place).into_iter().for_each(|s| s.set_full(*full)),
            Op::Down(place, down) => {
                let errno = down.then_some(libc::ENETDOWN);
                told(place).into_iter().for_each(|s| s.set_flush_error(errno));
            }
            Op::Install(place, slots) => {
                self.sockets[*place] = Some(self.control.install(*place, *slots));
            }
            Op::Retire(index) => {
                self.sockets[*index] = None;
                self.control.send(Command::Retire { index: *index });
            }
            Op::Bind(target, place) => self.control.bind(*target, *place),
            Op::Unbind(target) => self.control.send(Command::Unbind { target: *target }),
            Op::Pass(time_ns) => self.now_ns += time_ns,
        }
        self.pump.obey(self.now_ns);
        self.check();
    }

    /// What holds after every step.
    fn check(&mut self) {
        self.pump.publish();
        while self.control.end.take_back().is_some() {}
        for handle in self.sockets.iter().flatten() {
            for dropped in handle.take_dropped().into_iter().map(tag::Datagram::from) {
                if !(dropped.first && dropped.last) {
                    let receiver = &mut self.receivers[dropped.target];
                    receiver.may_repeat.insert(dropped.seq_low.into());
                }
            }
            for (tag, payload) in handle.take_sent() {
                let receiver = &mut self.receivers[tag::Datagram::from(tag).target];
                if payload.starts_with(NOTICE) {
                    receiver.told.push(gaps::told(&payload));
                } else {
                    receiver.take(&parse(&payload));
                }
            }
        }
        for (target, receiver) in self.receivers.iter().enumerate() {
            let ledger = self.control.ledger(target);
            assert!(ledger.balances(), "{ledger:?}");
            assert_eq!(self.control.ledgers[target].unbalanced(), 0, "{ledger:?}");
            assert_eq!(ledger.next_seq, self.pump.store.next_seq());
            // In memory everything that was taken is reaped at once. Of a record of which
            // a part was refused, the first socket's part may have made it whole.
            // So may that of one whose other part was dropped.
            let refused = ledger.lost[LostReason::Refused as usize]
                + ledger.lost[LostReason::Backlog as usize]
                + receiver.may_repeat.len() as u64;
            let whole = receiver.whole.len() as u64;
            assert!((ledger.sent..=ledger.sent + refused).contains(&whole), "{ledger:?}");
            // One may be on its way for the second time, or lost in the end.
            let twice = receiver.twice.len() as u64;
            let other = ledger.lost_total() + ledger.queued().min(1);
            assert!((ledger.doubled..=ledger.doubled + other).contains(&twice), "{ledger:?}");
        }
    }

    /// Gives every target a socket that works, and all the time it needs.
    fn finish(&mut self) -> [Ledger; TARGETS] {
        self.act(&Op::Install(0, 8));
        for place in 1..PLACES {
            self.act(&Op::Retire(place));
        }
        for target in 0..TARGETS {
            self.act(&Op::Bind(target, 0));
        }
        for _ in 0..20_000 {
            self.now_ns += 20_000_000;
            self.act(&Op::Deliver);
            self.act(&Op::Flush);
            if (0..TARGETS).all(|target| self.control.ledger(target).queued() == 0) {
                break;
            }
        }
        [0, 1].map(|target| self.control.ledger(target))
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    /// A small store, sockets that refuse: each seq ends once, in order.
    #[test]
    fn each_seq_ends_once_and_in_order(ops in proptest::collection::vec(ops(), 1..400)) {
        let mut world = World::new(1 << 16);
        for op in &ops {
            world.act(op);
        }
        for ledger in world.finish() {
            prop_assert_eq!(ledger.queued(), 0, "{:?}", ledger);
            prop_assert!(ledger.lost[LostReason::NotCaptured as usize] <= world.missing);
            prop_assert!(ledger.filtered <= world.unwanted);
        }
    }

    /// A store with room for everything, sockets that refuse nothing: nothing is
    /// lost, whatever is retired and bound.
    #[test]
    fn nothing_is_lost_between_sockets(ops in proptest::collection::vec(ops(), 1..400)) {
        let mut world = World::new(4 << 20);
        for op in ops.iter().filter(|op| !matches!(op, Op::Refuse(..) | Op::Drop(..))) {
            world.act(op);
        }
        let unwanted = [0, world.unwanted];
        for (ledger, unwanted) in world.finish().iter().zip(unwanted) {
            prop_assert_eq!(ledger.filtered, unwanted);
            prop_assert_eq!(ledger.lost_total(), world.missing, "{:?}", ledger);
            prop_assert_eq!(ledger.lost[LostReason::NotCaptured as usize], world.missing);
            prop_assert_eq!(ledger.sent, ledger.seen() - world.missing - unwanted);
        }
        for (target, receiver) in world.receivers.iter().enumerate() {
            let doubled = world.control.ledger(target).doubled;
            prop_assert_eq!(doubled, receiver.twice.len() as u64, "{:?}", receiver.twice);
        }
    }
}

#[test]
fn what_a_device_drops_is_sent_again_in_order() {
    let (mut pump, mut control) = pump(vec![settings(7, None)], 1 << 16);
    let socket = control.install(0, 100);
    control.bind(0, 0);
    (0..3).for_each(|_| pump.store_record(9, 6));
    // No carrier: whatever is given is dropped, for a second.
    socket.drop_next(usize::MAX);
    let mut now_ns = 1;
    for _ in 0..100 {
        pump.round(now_ns);
        now_ns += 10_000_000;
        assert!(seqs(&socket).is_empty());
        let ledger = control.ledger(0);
        assert_eq!((ledger.sent, ledger.lost_total(), ledger.queued()), (0, 0, 3));
    }
    pump.store_record(9, 6);
    socket.drop_next(0);
    pump.round(now_ns);
    assert_eq!(seqs(&socket), [0, 1, 2, 3]);
    assert_eq!(control.ledger(0).sent, 4);
}

/// Of a record in two fragments the device drops the first and sends the last: what it
/// dropped before is not sent after that.
#[test]
fn what_was_dropped_is_not_sent_after_a_part_of_what_is_newer() {
    let (mut pump, mut control) = pump(vec![settings(7, None)], LOTS);
    let handle = control.install(0, 64);
    handle.set_room(0);
    control.bind(0, 0);
    pump.store_record(4, 6);
    pump.store_record(300, 6);
    pump.round(1);
    handle.set_room(LOTS);
    handle.drop_next(2);
    for now_ns in [2, 10_000_000, 20_000_000, 30_000_000] {
        pump.round(now_ns);
    }
    let all: Vec<_> = sent(&handle).iter().map(|sent| (sent.seq, sent.part.0 == 0)).collect();
    assert_eq!(all, [(1, false), (1, true), (1, false)]);
    let ledger = control.ledger(0);
    assert_eq!((ledger.sent, ledger.lost[LostReason::Refused as usize]), (1, 1));
    assert_eq!(ledger.doubled, 1);
}

/// Other settings in the middle of a record: it begins anew with them.
#[test]
fn a_record_in_part_begins_anew_with_other_settings() {
    let (mut pump, mut control) = pump(vec![], LOTS);
    let ledger = Arc::new(SharedLedger::default());
    let shared = Arc::new(ArcSwap::from_pointee(settings(7, None)));
    let target = PumpTarget::new(TargetSeed {
        settings: Arc::clone(&shared),
        ledger: Arc::clone(&ledger),
        first_seq: None,
        checkpoint: None,
    });
    control.send(Command::Add { index: 0, target });
    let handle = control.install(0, 1);
    control.bind(0, 0);
    pump.obey(0);
    pump.store_record(300, 6);
    pump.round(1);
    let mut other = settings(7, None);
    other.format.userdata = b" key=value\n".as_slice().into();
    let old = shared.swap(Arc::new(other));
    for now_ns in 2..9 {
        pump.round(now_ns);
    }
    drop(old);
    let parts: Vec<_> = sent(&handle).iter().map(|sent| sent.part).collect();
    let [first, rest @ ..] = &parts[..] else { panic!("nothing") };
    assert_eq!(first.0, 0);
    assert_eq!((rest[0].0, rest.len()), (0, 2), "{parts:?}");
    assert_eq!(rest[1].2, first.2 + 11, "{parts:?}");
    assert_eq!((ledger.read().sent, ledger.read().doubled), (1, 1));
}

#[test]
fn what_a_device_drops_for_good_is_lost() {
    let (mut pump, mut control) = pump(vec![settings(7, None)], 1 << 16);
    let socket = control.install(0, 100);
    control.bind(0, 0);
    pump.store_record(9, 6);
    socket.drop_next(usize::MAX);
    for second in 0..5 {
        pump.round(1 + second * 1_000_000_000);
    }
    assert_eq!(control.ledger(0).lost[LostReason::Refused as usize], 1);
}

#[test]
fn what_was_dropped_is_not_sent_after_what_is_newer() {
    let (mut pump, mut control) = pump(vec![settings(7, None)], 1 << 16);
    let socket = control.install(0, 100);
    control.bind(0, 0);
    (0..4).for_each(|_| pump.store_record(9, 6));
    // The device drops two, takes the other two, and is well again.
    socket.drop_next(2);
    pump.round(1);
    pump.round(1_000_000_000);
    assert_eq!(seqs(&socket), [2, 3]);
    let ledger = control.ledger(0);
    assert_eq!((ledger.sent, ledger.lost[LostReason::Refused as usize]), (2, 2));
}

#[test]
fn what_a_retired_socket_had_goes_out_first_with_its_old_msgid() {
    let (mut pump, mut control) = pump(vec![settings(7, None)], 1 << 16);
    let first = control.install(0, 100);
    control.bind(0, 0);
    (0..3).for_each(|_| pump.store_record(9, 6));
    first.set_room(1);
    pump.round(1);
    assert_eq!(seqs(&first), [0]);
    control.send(Command::Retire { index: 0 });
    (0..2).for_each(|_| pump.store_record(9, 6));
    pump.round(2);
    let ledger = control.ledger(0);
    assert_eq!((ledger.sent, ledger.in_flight, ledger.waiting), (1, 0, 4));

    let second = control.install(1, 100);
    control.bind(0, 1);
    pump.round(3);
    let told: Vec<_> = sent(&second).iter().map(|sent| (sent.seq, sent.msgid)).collect();
    assert_eq!(told, [(1, Some(2)), (2, Some(3)), (3, Some(4)), (4, Some(5))]);
    let ledger = control.ledger(0);
    assert_eq!((ledger.sent, ledger.queued(), ledger.lost_total()), (5, 0, 0));
    assert_eq!(control.end.lent(), 5);
    while control.end.take_back().is_some() {}
    assert_eq!(control.end.lent(), 3);
}

#[test]
fn a_target_waits_for_what_it_has_in_another_socket() {
    let (mut pump, mut control) = pump(vec![settings(7, None), settings(7, None)], 1 << 16);
    let (old, new) = (control.install(0, 100), control.install(1, 100));
    control.bind(0, 0);
    control.bind(1, 1);
    old.set_room(0);
    (0..3).for_each(|_| pump.store_record(9, 6));
    pump.round(1);
    control.bind(0, 1);
    pump.store_record(9, 6);
    for now in 2..10 {
        pump.round(now);
        assert_eq!(pump.stop_of(0), Stop::OtherSocket);
    }
    // The other target is not held up.
    assert_eq!(seqs(&new), [0, 1, 2, 3]);
    old.set_room(2);
    pump.round(10);
    assert_eq!((pump.stop_of(0), seqs(&old)), (Stop::OtherSocket, vec![0, 1]));
    control.send(Command::Retire { index: 0 });
    pump.round(11);
    assert_eq!((pump.stop_of(0), seqs(&new)), (Stop::Done, vec![2, 3]));
    assert_eq!(control.ledger(0).sent, 4);
}

#[test]
fn a_record_in_part_goes_on_in_its_socket_and_starts_anew_in_the_next() {
    let (mut pump, mut control) = pump(vec![settings(7, None)], 1 << 16);
    let handle = control.install(0, 2);
    control.bind(0, 0);
    pump.store_record(1000, 6);
    pump.round(1);
    let parts = |handle: &MemoryHandle| -> Vec<usize> {
        sent(handle).iter().map(|datagram| datagram.part.0).collect()
    };
    let begun = parts(&handle);
    assert_eq!((begun.len(), begun[0], pump.stop_of(0)), (2, 0, Stop::Full));
    control.send(Command::Unbind { target: 0 });
    pump.round(2);
    assert_eq!((parts(&handle), pump.stop_of(0)), (vec![], Stop::Done));
    assert_eq!(control.ledger(0).waiting, 1);
    control.bind(0, 0);
    pump.round(3);
    assert!(parts(&handle)[0] > begun[1]);
    assert_eq!((control.ledger(0).sent, control.ledger(0).packets), (1, 3));
    assert_eq!(control.ledger(0).doubled, 0);

    pump.store_record(1000, 6);
    pump.round(4);
    assert_eq!(parts(&handle).len(), 2);
    let next = control.install(0, 100);
    pump.round(5);
    let parts = parts(&next);
    assert_eq!((parts[0], parts.len()), (0, 3));
    assert_eq!((control.ledger(0).sent, control.ledger(0).packets), (2, 8));
    assert_eq!(control.ledger(0).doubled, 1);
}

#[test]
fn what_falls_off_while_it_is_to_be_sent_again_is_lost_once() {
    let (mut pump, mut control) = pump(vec![settings(7, None)], 1 << 16);
    let handle = control.install(0, 100);
    handle.set_room(0);
    control.bind(0, 0);
    (0..5).for_each(|_| pump.store_record(900, 6));
    pump.round(1);
    control.send(Command::Retire { index: 0 });
    (0..200).for_each(|_| pump.store_record(900, 6));
    // Another round tells what had to make room for the next one.
    (0..2).for_each(|_| pump.round(2));
    // It is told without waiting for a socket.
    let ledger = control.ledger(0);
    let lost = ledger.lost[LostReason::Backlog as usize];
    assert!((100..205).contains(&lost), "{ledger:?}");
    assert_eq!((ledger.waiting, ledger.sent), (205 - lost, 0));
    assert_eq!(lost, ledger.lost_total());
    let handle = control.install(1, 100);
    control.bind(0, 1);
    (3..100).for_each(|now| pump.round(now));
    let mut told = seqs(&handle);
    told.dedup();
    assert_eq!(told, (lost..205).collect::<Vec<_>>());
    assert_eq!(control.ledger(0).queued(), 0);
}

#[test]
fn the_errno_of_the_last_flush_is_shown() {
    let (mut pump, mut control) = pump(vec![settings(7, None)], 1 << 16);
    let shown = |control: &Control| control.stats.socket_errno[2].load(Ordering::Relaxed);
    let handle = control.install(2, 100);
    control.bind(0, 2);
    handle.set_flush_error(Some(libc::ENXIO));
    pump.round(1);
    assert_eq!(shown(&control), 0);
    pump.store_record(9, 6);
    pump.round(2);
    assert_eq!(shown(&control), libc::ENXIO);
    let handle = control.install(2, 100);
    handle.set_flush_error(Some(libc::ENETDOWN));
    pump.obey(1);
    assert_eq!(shown(&control), 0);
    pump.round(3);
    assert_eq!(shown(&control), libc::ENETDOWN);
    handle.set_flush_error(None);
    pump.round(4);
    assert_eq!((shown(&control), seqs(&handle)), (0, vec![0]));
}

#[test]
fn a_record_is_not_torn_apart_by_its_pace() {
    let pace = Pace { per_second: 1000, burst: 2 };
    let (mut pump, mut control) = pump(vec![settings(7, Some(pace))], 1 << 16);
    let handle = control.install(0, 100);
    control.bind(0, 0);
    (0..2).for_each(|_| pump.store_record(1000, 6));
    pump.round(1);
    // Two tokens and one on credit, so two more must come for the next one.
    assert_eq!(seqs(&handle), [0; 3]);
    assert_eq!(pump.stop_of(0), Stop::Paced(1 + 2_000_000));
    pump.round(2_000_000);
    assert!(sent(&handle).is_empty());
    pump.round(2_000_001);
    assert_eq!(seqs(&handle), [1; 3]);
    assert_eq!((pump.stop_of(0), control.ledger(0).sent), (Stop::Done, 2));
}

#[test]
fn a_flight_never_holds_more_than_it_has_room_for() {
    let mut flight = flight::Flight::new(2, 0);
    for record in 1..=2 {
        assert!(flight.has_room() && flight.may_use(7));
        flight.pushed();
        flight.is_in_flight(record);
    }
    assert!(!flight.has_room());
    flight.settled(true);
    flight.given_back(true);
    // What is to be sent again has its room.
    flight.pushed();
    flight.is_in_flight(2);
    assert!(flight.has_room());
    flight.pushed();
    flight.is_in_flight(3);
    assert!(!flight.has_room());
}

/// The pump on a thread of its own.
struct Running {
    control: Control,
    thread: JoinHandle<()>,
}

impl Running {
    fn start(targets: Vec<TargetSettings>, act: impl FnOnce(&mut Control)) -> Self {
        let (mut pump, mut control) = pump(targets, 1 << 20);
        act(&mut control);
        Self { control, thread: std::thread::spawn(move || pump.run()) }
    }

    fn wakeups(&self) -> u64 {
        self.control.stats.wakeups.load(Ordering::Relaxed)
    }

    fn wait_for_sent(&self, target: usize, count: u64) -> Duration {
        let begin = Instant::now();
        while self.control.ledger(target).sent < count {
            assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", self.control.ledger(target));
            std::thread::sleep(Duration::from_micros(200));
        }
        begin.elapsed()
    }

    fn stop(mut self) {
        self.control.send(Command::Stop { deadline_ns: now_ns() + 10_000_000_000 });
        self.thread.join().unwrap();
    }
}

#[test]
fn a_paced_backlog_goes_out_in_time_with_few_wake_ups() {
    let pace = Pace { per_second: 2000, burst: 10 };
    let running = Running::start(vec![settings(7, Some(pace))], |control| {
        control.install(0, 1000);
        control.bind(0, 0);
        (0..810).for_each(|seq| control.say(seq));
    });
    // 400 ms.
    let took = running.wait_for_sent(0, 810);
    assert!(took > Duration::from_millis(390), "{took:?}");
    // One a millisecond, and what else there is; a busy loop has thousands.
    let wakeups = running.wakeups();
    assert!(wakeups < 600, "{wakeups} wake-ups");
    running.stop();
}

#[test]
fn a_paced_backlog_goes_out_before_the_pump_ends() {
    let pace = Pace { per_second: 1000, burst: 10 };
    let running = Running::start(vec![settings(7, Some(pace))], |control| {
        control.install(0, 1000);
        control.bind(0, 0);
        (0..310).for_each(|seq| control.say(seq));
    });
    let ledger = Arc::clone(&running.control.ledgers[0]);
    running.stop();
    assert_eq!((ledger.read().sent, ledger.read().queued()), (310, 0));
}

#[test]
fn a_blocked_pump_sleeps_and_a_command_ends_that() {
    let mut handles = Vec::new();
    let targets = vec![settings(7, None), settings(7, None)];
    let mut running = Running::start(targets, |control| {
        handles = vec![control.install(0, 100), control.install(1, 100)];
        // A device that is down, and a target that waits for it to move.
        handles[0].set_flush_error(Some(libc::ENETDOWN));
        control.bind(0, 0);
        control.bind(1, 0);
        (0..20).for_each(|seq| control.say(seq));
    });
    while running.control.ledger(1).in_flight < 20 {
        std::thread::sleep(Duration::from_millis(1));
    }
    running.control.bind(1, 1);
    (20..40).for_each(|seq| running.control.say(seq));
    std::thread::sleep(Duration::from_millis(300));
    let before = running.wakeups();
    std::thread::sleep(Duration::from_millis(500));
    // It naps as long as it may by now: nobody might wake it for a record.
    let wakeups = running.wakeups() - before;
    assert!(wakeups <= 45, "{wakeups} wake-ups");
    assert_eq!(running.control.ledger(1).sent, 0);

    handles[0].set_flush_error(None);
    running.control.bind(0, 0);
    let took = running.wait_for_sent(0, 40).max(running.wait_for_sent(1, 40));
    assert!(took < Duration::from_millis(30), "{took:?}");
    assert_eq!(seqs(&handles[1]), (20..40).collect::<Vec<_>>());
    running.stop();
}
