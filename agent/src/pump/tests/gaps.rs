//! What the receiver is told of what is missing, and how far the checkpoint may go.

use super::*;

fn notices(handle: &MemoryHandle) -> Vec<String> {
    let all = handle.take_sent().into_iter().map(|(_, payload)| payload);
    let notices = all.filter(|payload| payload.starts_with(NOTICE));
    notices.map(|payload| String::from_utf8(payload).unwrap()).collect()
}

/// A line that is told again is no lost message, however often; one that cannot go at all is.
#[test]
fn a_line_about_missing_records_is_lost_only_if_it_is_not_told_again() {
    let (mut pump, mut control) = pump(vec![settings(7, None)], LOTS);
    let first = control.install(0, 64);
    control.bind(0, 0);
    pump.store.missing(0, 3, MissingReason::NotCaptured);
    pump.store_record(4, 6);
    let mut now_ns = 1;
    let mut rounds = |pump: &mut Pump| {
        for _ in 0..4 {
            now_ns += 10_000_000;
            pump.round(now_ns);
        }
    };
    first.drop_next(3);
    first.set_room(1);
    rounds(&mut pump);
    first.set_room(1);
    rounds(&mut pump);
    assert_eq!(notices(&first), [""; 0], "dropped");
    control.send(Command::Retire { index: 0 });
    rounds(&mut pump);
    assert_eq!((control.ledger(0).messages, control.ledger(0).messages_lost), (0, 0));
    let second = control.install(1, 64);
    control.bind(0, 1);
    rounds(&mut pump);
    let [told] = &notices(&second)[..] else { panic!("not one line") };
    assert!(told.contains("3 records lost, seq 0 to 2: not_captured 3"), "{told}");
    assert_eq!((control.ledger(0).messages, control.ledger(0).messages_lost), (1, 0));

    pump.store.missing(4, 1, MissingReason::NotCaptured);
    second.refuse_next(1);
    rounds(&mut pump);
    assert_eq!(notices(&second), [""; 0], "refused");
    assert_eq!((control.ledger(0).messages, control.ledger(0).messages_lost), (1, 1));
}
