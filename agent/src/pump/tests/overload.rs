//! More comes in than can leave: what falls, for whom, and what the account says of it.

use super::*;

/// Of ten lines that the kernel prints at a bad moment.
const LEVELS: [u8; 10] = [7, 6, 7, 3, 6, 7, 4, 0, 5, 2];

fn level_of(seq: u64) -> u8 {
    LEVELS[(seq % 10) as usize]
}

fn flood(pump: &mut Pump, records: u64) {
    for n in 0..records {
        pump.store_record(60, level_of(pump.store.next_seq()));
        if n % 50 == 49 {
            pump.round(1);
        }
    }
    pump.round(1);
}

/// Gives the target a way and returns what arrives.
fn arrives(pump: &mut Pump, control: &mut Control) -> Vec<u64> {
    let handle = control.install(0, 1000);
    control.bind(0, 0);
    let mut arrived = Vec::new();
    while control.ledger(0).queued() > 0 || arrived.is_empty() {
        pump.round(2);
        arrived.extend(seqs(&handle));
    }
    arrived.dedup();
    arrived
}

/// A target without a way, and floods of several sizes into a store of 1 MiB, which holds about
/// 7000 of these records besides the room it keeps for the next round.
#[test]
fn the_least_severe_fall_and_the_account_says_how_many() {
    // How many come, and the levels of which all, some, and none arrive.
    for (records, none, some) in [
        (6_000, &[][..], None),
        (8_000, &[], Some(7)),
        (12_000, &[7], Some(6)),
        (16_000, &[7, 6], Some(5)),
        (40_000, &[7, 6, 5, 4], Some(3)),
    ] {
        let (mut pump, mut control) = pump(vec![settings(7, None)], 1 << 20);
        flood(&mut pump, records);
        let arrived = arrives(&mut pump, &mut control);
        assert!(arrived.is_sorted());
        let ledger = control.ledger(0);
        let lost = ledger.lost[LostReason::Backlog as usize];
        assert_eq!((ledger.sent, ledger.lost_total()), (arrived.len() as u64, lost));
        assert_eq!(arrived.len() as u64 + lost, records);
        let came: BTreeSet<u64> = arrived.into_iter().collect();
        for level in [0, 2, 3, 4, 5, 6, 7] {
            let all = || (0..records).filter(|seq| level_of(*seq) == level);
            let kept: Vec<u64> = all().filter(|seq| came.contains(seq)).collect();
            let newest: Vec<u64> = all().skip(all().count() - kept.len()).collect();
            assert_eq!(kept, newest, "the oldest of level {level} did not go first");
            let (kept, all) = (kept.len(), all().count());
            if none.contains(&level) {
                // What came since room was made last: a segment at most.
                assert!(kept < 40, "{records} records, level {level}: {kept}");
            } else if some.is_some_and(|some| some == level || (some <= 3 && level <= 3)) {
                assert!(
                    0 < kept && kept < all,
                    "{records} records, level {level}: {kept} of {all}"
                );
            } else {
                assert_eq!(kept, all, "{records} records, level {level}");
            }
        }
    }
}

/// One target is stuck and the store overflows again and again; the other one gets everything,
/// the debug records too.
#[test]
fn a_target_that_can_send_loses_nothing_because_another_one_is_stuck() {
    let (mut pump, mut control) = pump(vec![settings(7, None), settings(7, None)], 1 << 20);
    let handle = control.install(0, 1000);
    control.bind(1, 0);
    let mut arrived = Vec::new();
    let records = 40_000u64;
    for seq in 0..records {
        pump.store_record(60, level_of(seq));
        // A round may bring so many, and there are messages too.
        if (seq + 1).is_multiple_of(ROUND_ENTRIES as u64) {
            for number in 0..20 {
                let message = message::Message::new(number, b"=;m".as_slice().into());
                control.send(Command::Message { target: 1, message });
            }
            pump.round(1);
            while control.end.take_back().is_some() {}
            let payloads = handle.take_sent();
            arrived.extend(
                payloads
                    .iter()
                    .filter(|(_, one)| !one.starts_with(b"="))
                    .map(|(_, one)| parse(one).seq),
            );
        }
    }
    (0..10).for_each(|_| pump.round(2));
    arrived.extend(seqs(&handle));
    arrived.dedup();
    assert_eq!(arrived, (0..records).collect::<Vec<_>>());
    assert_eq!(control.ledger(1).lost_total(), 0);
    assert!(control.ledger(0).waiting > 0);
}

/// One target has been stuck for long, and the store is full of errors that it needs; then comes
/// more at once than a round settles. The other one gets all of it.
#[test]
fn a_burst_into_a_full_store_costs_a_target_nothing_that_can_send() {
    let (mut pump, mut control) = pump(vec![settings(7, None), settings(7, None)], 1 << 20);
    let handle = control.install(0, 1000);
    control.bind(1, 0);
    let mut next_seq = 0;
    for (level, count) in [(3, 20_000), (6, 5_000)] {
        let end_seq = next_seq + count;
        while next_seq < end_seq {
            // The queue is full at each round: it is to be emptied first.
            while next_seq < end_seq && control.kmsg.slots() > 0 {
                control.say_as(next_seq, level);
                next_seq += 1;
            }
            pump.whole_round(1);
        }
        while pump.whole_round(1).more {}
    }
    (0..10).for_each(|_| pump.round(2));
    assert!(control.ledger(0).lost_total() > 5_000, "the store was full");
    let ledger = control.ledger(1);
    assert_eq!((ledger.sent, ledger.lost_total()), (25_000, 0));
    let mut arrived = seqs(&handle);
    arrived.dedup();
    assert_eq!(arrived, (0..25_000).collect::<Vec<_>>());
}

/// The kernel has more than the store holds, and it is read as fast as it is taken: a round each
/// millisecond. Returns how many milliseconds the replay took.
fn replay(pump: &mut Pump, control: &mut Control) -> u64 {
    let (mut next_seq, mut now_ns) = (0, 1);
    while pump.sequencer.is_replaying() {
        while next_seq < REPLAYED && control.kmsg.slots() > 0 {
            control.say_as(next_seq, level_of(next_seq));
            next_seq += 1;
        }
        pump.whole_round(now_ns);
        while control.end.take_back().is_some() {}
        assert!(now_ns < 60_000_000_000, "it takes for ever");
        now_ns += 1_000_000;
    }
    now_ns / 1_000_000
}

const REPLAYED: u64 = 30_000;

fn begin() -> Begin {
    Begin { first_seq: 0, attached_seq: REPLAYED, live_seq: REPLAYED }
}

#[test]
fn a_replay_waits_in_the_kernel_for_a_paced_target() {
    let pace = Pace { per_second: 10_000, burst: 256 };
    let targets = vec![settings(7, Some(pace)), settings(7, None)];
    let (mut pump, mut control) = pump_from(begin(), targets, 1 << 20);
    let handle = control.install(0, 1000);
    control.bind(0, 0);
    control.bind(1, 0);
    let took_ms = replay(&mut pump, &mut control);
    // Its pace, less what the store holds in the end.
    assert!((1_500..3_000).contains(&took_ms), "{took_ms} ms");
    for now_ns in 1..2_000 {
        pump.round((took_ms + now_ns) * 1_000_000);
    }
    for target in 0..2 {
        let ledger = control.ledger(target);
        assert_eq!((ledger.sent, ledger.lost_total()), (REPLAYED, 0));
    }
    assert_eq!(handle.take_sent().len() as u64, 2 * REPLAYED);
}

/// Neither one without a way nor one whose socket takes nothing holds it up for the others.
#[test]
fn a_replay_waits_neither_for_a_target_that_cannot_send_nor_for_ever() {
    let targets = || vec![settings(7, None), settings(7, None)];
    let (mut pump, mut control) = pump_from(begin(), targets(), 1 << 20);
    let handle = control.install(0, 1000);
    control.bind(0, 0);
    let took_ms = replay(&mut pump, &mut control);
    assert!(took_ms < 1_000, "{took_ms} ms");
    assert_eq!((control.ledger(0).sent, handle.take_sent().len() as u64), (REPLAYED, REPLAYED));

    let (mut pump, mut control) = pump_from(begin(), targets(), 1 << 20);
    let _handle = control.install(0, 1000);
    control.install(1, 1000).set_flush_error(Some(libc::ENETDOWN));
    control.bind(0, 0);
    control.bind(1, 1);
    let took_ms = replay(&mut pump, &mut control);
    assert!((3_000..4_000).contains(&took_ms), "{took_ms} ms");
    assert_eq!(control.ledger(0).sent, REPLAYED);

    // So slow that it would be minutes.
    let pace = Pace { per_second: 10, burst: 1 };
    let slow = vec![settings(7, None), settings(7, Some(pace))];
    let (mut pump, mut control) = pump_from(begin(), slow, 1 << 20);
    let _handle = control.install(0, 1000);
    (0..2).for_each(|target| control.bind(target, 0));
    let took_ms = replay(&mut pump, &mut control);
    assert!((30_000..31_000).contains(&took_ms), "{took_ms} ms");
    assert_eq!(control.ledger(0).sent, REPLAYED);
}

#[test]
fn the_depths_of_the_queues_are_shown() {
    let (mut pump, mut control) = pump(vec![settings(7, None)], 1 << 20);
    let shown = |control: &Control| {
        let stats = &control.stats;
        let [store, kmsg] = [&stats.store_needed_bytes, &stats.kmsg_waiting];
        [store, kmsg].map(|depth| depth.load(Ordering::Relaxed))
    };
    (0..400).for_each(|_| pump.store_record(60, 6));
    pump.round(1);
    (0..5).for_each(|seq| control.say(seq));
    pump.show_depths(DEPTHS_NS);
    let [store_bytes, kmsg] = shown(&control);
    assert!((400 * 60..400 * 400).contains(&store_bytes), "{store_bytes}");
    assert_eq!(kmsg, 5);
    control.install(0, 1000);
    control.bind(0, 0);
    (2..5).for_each(|now_ns| pump.round(now_ns));
    pump.show_depths(DEPTHS_NS + 1);
    assert_eq!(shown(&control)[0], store_bytes, "not in every round");
    pump.show_depths(2 * DEPTHS_NS);
    assert_eq!(shown(&control)[0], 0, "nobody needs it any more");
}
