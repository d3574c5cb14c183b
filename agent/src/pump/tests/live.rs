//! What comes and goes while the pump runs: targets, messages, taps.

use super::*;
use crate::pump::{message::Message, recall::Recall, tap::tap};

fn message(number: u32, text: &str) -> Box<Message> {
    Message::new(number, text.as_bytes().into())
}

fn returned(control: &mut Control) -> Vec<Returned> {
    std::iter::from_fn(|| control.end.take_back()).collect()
}

fn payloads(handle: &MemoryHandle) -> Vec<String> {
    handle.take_sent().into_iter().map(|(_, bytes)| String::from_utf8(bytes).unwrap()).collect()
}

#[test]
fn a_target_that_is_added_begins_with_the_next_record() {
    let (mut pump, mut control) = pump(vec![settings(7, None)], LOTS);
    let handle = control.install(0, 64);
    pump.store_record(4, 6);
    let ledger = Arc::new(SharedLedger::default());
    control.send(Command::Add { index: 1, target: seed(settings(7, None), &ledger) });
    control.bind(1, 0);
    pump.round(1);
    pump.store_record(4, 6);
    pump.round(2);
    pump.round(3);
    assert_eq!(seqs(&handle), [1]);
    let ledger = ledger.read();
    assert_eq!((ledger.first_seq, ledger.seen(), ledger.sent), (1, 1, 1));
}

#[test]
fn a_target_that_is_removed_loses_what_it_has_and_harms_nobody() {
    let (mut pump, mut control) = pump(vec![settings(7, None), settings(7, None)], LOTS);
    let handle = control.install(0, 64);
    handle.set_room(0);
    control.bind(0, 0);
    control.bind(1, 0);
    for _ in 0..3 {
        pump.store_record(4, 6);
    }
    pump.round(1);
    assert_eq!((control.ledger(0).in_flight, control.ledger(1).in_flight), (3, 3));
    control.send(Command::Remove { index: 0 });
    // Another one takes its index while its packets are still in the socket.
    let ledger = Arc::new(SharedLedger::default());
    control.send(Command::Add { index: 0, target: seed(settings(7, None), &ledger) });
    control.bind(0, 0);
    pump.round(2);
    pump.store_record(4, 6);
    handle.set_room(LOTS);
    pump.round(3);
    pump.round(4);
    let removed = control.ledger(0);
    assert_eq!(removed.lost[LostReason::Removed as usize], 3);
    assert!(removed.balances() && removed.queued() == 0, "{removed:?}");
    let new = ledger.read();
    assert_eq!((new.sent, new.in_flight, new.seen()), (1, 0, 1));
    assert_eq!(control.ledger(1).sent, 4);
    let back = returned(&mut control);
    assert!(back.iter().any(|back| matches!(back, Returned::Target { index: 0, .. })));
    assert_eq!(control.end.lent(), 5, "a socket, two routes, two targets");
}

#[test]
fn a_message_goes_out_before_the_next_record_and_is_no_record() {
    let (mut pump, mut control) = pump(vec![settings(7, None)], LOTS);
    let handle = control.install(0, 64);
    // It waits for a way like the records.
    control.send(Command::Message { target: 0, message: message(7, "first") });
    pump.store_record(4, 6);
    pump.round(1);
    assert!(payloads(&handle).is_empty());
    control.bind(0, 0);
    pump.round(2);
    pump.round(3);
    let sent = payloads(&handle);
    assert_eq!(sent[0], "first");
    assert!(sent[1].starts_with("6,0,"), "{sent:?}");
    let ledger = control.ledger(0);
    assert_eq!((ledger.messages, ledger.messages_lost, ledger.sent, ledger.seen()), (1, 0, 1, 1));
    let back = returned(&mut control);
    assert!(
        back.iter().any(|back| matches!(back, Returned::Message(message) if message.number == 7))
    );
}

#[test]
fn a_message_in_a_retired_socket_is_sent_by_the_next_one() {
    let (mut pump, mut control) = pump(vec![settings(7, None)], LOTS);
    let first = control.install(0, 64);
    first.set_room(0);
    control.bind(0, 0);
    for number in 0..3 {
        control.send(Command::Message { target: 0, message: message(number, &number.to_string()) });
    }
    pump.store_record(4, 6);
    pump.round(1);
    control.send(Command::Retire { index: 0 });
    let second = control.install(1, 64);
    control.bind(0, 1);
    pump.round(2);
    pump.round(3);
    let sent = payloads(&second);
    assert_eq!(sent[..3], ["0", "1", "2"]);
    assert!(sent[3].starts_with("6,0,"), "{sent:?}");
    assert_eq!((control.ledger(0).messages, control.ledger(0).sent), (3, 1));
}

#[test]
fn too_many_messages_come_back_and_none_is_forgotten() {
    let (mut pump, mut control) = pump(vec![settings(7, None)], LOTS);
    for number in 0..100 {
        control.send(Command::Message { target: 0, message: message(number, "x") });
    }
    pump.round(1);
    let refused = returned(&mut control).len() as u64;
    assert!(refused > 0 && refused < 100);
    control.send(Command::Remove { index: 0 });
    pump.round(2);
    assert_eq!(control.ledger(0).messages_lost, 100);
    assert_eq!(returned(&mut control).len() as u64, 100 - refused + 1);
}

#[test]
fn a_tap_sees_what_is_sent() {
    let (mut pump, mut control) = pump(vec![settings(7, None)], LOTS);
    let handle = control.install(0, 64);
    control.bind(0, 0);
    let (tap, mut reader) = tap();
    control.send(Command::Tap { target: 0, tap });
    control.send(Command::Message { target: 0, message: message(1, "hello") });
    pump.store_record(1000, 6);
    pump.round(1);
    pump.round(2);
    let tapped: Vec<String> = std::iter::from_fn(|| reader.read())
        .map(|packet| String::from_utf8(packet.payload).unwrap())
        .collect();
    assert!(tapped.len() > 3);
    assert_eq!(tapped, payloads(&handle));
    control.send(Command::Untap { target: 0 });
    pump.store_record(4, 6);
    pump.round(3);
    assert_eq!(reader.read(), None);
    assert!(returned(&mut control).iter().any(|back| matches!(back, Returned::Tap(_))));
}

#[test]
fn the_newest_records_can_be_recalled() {
    let (mut pump, mut control) = pump(vec![], LOTS);
    for _ in 0..9 {
        pump.store_record(4, 6);
    }
    control.send(Command::Recall { into: Recall::new(2) });
    pump.round(1);
    let [Returned::Recall(recall)] = &returned(&mut control)[..] else { panic!("no recall") };
    let mut seqs = Vec::new();
    recall.for_each(|record| seqs.push(record.seq));
    assert_eq!(seqs, [7, 8]);
}
