//! Seqs beyond 32 bits, which no kernel gets to in a test: from the store to the datagram,
//! its tag and the account.

use super::*;

/// The first of a run of seqs that crosses a power of two in its middle.
const FIRSTS: [u64; 3] = [(1 << 31) - 5, (1 << 32) - 5, (1 << 40) - 5];

fn pump_from(first_seq: u64) -> (Pump, Control, MemoryHandle) {
    let (mut pump, mut control) = pump(Vec::new(), 1 << 16);
    pump.store = Store::new(1 << 16, first_seq);
    control.ledgers.push(Arc::default());
    let target = seed(settings(7, None), &control.ledgers[0]);
    control.send(Command::Add { index: 0, target });
    let handle = control.install(0, 100);
    control.bind(0, 0);
    pump.round(1);
    (pump, control, handle)
}

#[test]
fn each_seq_arrives_and_the_account_balances() {
    for first in FIRSTS {
        let (mut pump, control, handle) = pump_from(first);
        (0..3).for_each(|_| pump.store_record(10, 6));
        // Across the power of two.
        pump.store.missing(first + 3, 4, MissingReason::KernelOverwrote);
        (0..3).for_each(|_| pump.store_record(10, 6));
        pump.round(2);
        let wanted: Vec<u64> = (first..first + 3).chain(first + 7..first + 10).collect();
        assert_eq!(seqs(&handle), wanted);
        let ledger = control.ledger(0);
        assert!(ledger.balances(), "{ledger:?}");
        assert_eq!((ledger.first_seq, ledger.next_seq), (first, first + 10));
        assert_eq!((ledger.seen(), ledger.sent, ledger.lost_total()), (10, 6, 4));
    }
}

/// The tag holds the low half of the seq; what is older is told by it.
#[test]
fn what_is_dropped_is_sent_again_in_order() {
    for first in FIRSTS {
        let (mut pump, control, handle) = pump_from(first);
        handle.drop_next(10);
        (0..10).for_each(|_| pump.store_record(10, 6));
        pump.round(2);
        assert_eq!(control.ledger(0).sent, 0);
        pump.round(1_000_000_000);
        assert_eq!(seqs(&handle), (first..first + 10).collect::<Vec<u64>>());
        let ledger = control.ledger(0);
        assert!(ledger.balances() && ledger.sent == 10, "{ledger:?}");
    }
}

#[test]
fn what_was_dropped_before_a_newer_one_was_sent_is_lost() {
    for first in FIRSTS {
        let (mut pump, control, handle) = pump_from(first);
        // Of ten on their way five are dropped, and the others, beyond the power of two, sent.
        handle.drop_next(5);
        (0..10).for_each(|_| pump.store_record(10, 6));
        pump.round(2);
        pump.round(1_000_000_000);
        assert_eq!(seqs(&handle), (first + 5..first + 10).collect::<Vec<u64>>());
        let ledger = control.ledger(0);
        assert_eq!((ledger.sent, ledger.lost[LostReason::Refused as usize]), (5, 5));
        assert!(ledger.balances(), "{ledger:?}");
    }
}
