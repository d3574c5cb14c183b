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
