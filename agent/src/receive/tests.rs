//! The receiver as a whole: datagrams in, events out.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const T0: Duration = Duration::from_secs(9);

fn source(last: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, last])
}

fn take(receiver: &mut Receiver, now: Duration, from: u8, datagram: &str) -> Vec<Event> {
    let mut events = Vec::new();
    receiver.datagram(now, source(from), datagram.as_bytes(), &mut events);
    events
}

fn text_of(event: &Event) -> String {
    match event {
        Event::Record(_, record) => String::from_utf8_lossy(&record.text).into_owned(),
        other => format!("{other:?}"),
    }
}

#[test]
fn a_record_is_decoded_with_its_dictionary() {
    let mut receiver = Receiver::new();
    let events = take(
        &mut receiver,
        T0,
        1,
        "6.12.1,12,437,6377716,c,caller=T1,approx=1;tab\\x09\n SUBSYSTEM=a\\x20b\n k=a\\x20b\n odd\n",
    );
    let entry = |key: &str, value: &str| (key.into(), Some(value.into()));
    assert_eq!(
        events,
        [Event::Record(
            source(1),
            Box::new(Received {
                release: Some(b"6.12.1".to_vec()),
                facility: 1,
                level: 4,
                seq: 437,
                ts_us: 6_377_716,
                flag: Flag::Cont,
                caller: Some(Caller::Task(1)),
                approximated: true,
                text: b"tab\t".to_vec(),
                dict: vec![
                    entry("SUBSYSTEM", "a b"),
                    entry("k", "a\\x20b"),
                    (b"odd".to_vec(), None)
                ],
                fragments: 1,
                missing_bytes: 0,
                late: false,
            })
        )]
    );
}

#[test]
fn plain_text_and_foreign_sources_do_not_disturb_the_order() {
    let mut receiver = Receiver::new();
    take(&mut receiver, T0, 1, "6,10,1,-;a\n");
    assert_eq!(
        take(&mut receiver, T0, 1, "ping from agent\n"),
        [Event::Plain(source(1), b"ping from agent".to_vec())]
    );
    assert_eq!(take(&mut receiver, T0, 2, "6,90,1,-;b\n").len(), 1);
    assert_eq!(take(&mut receiver, T0, 1, "6,11,1,-;c\n").len(), 1);
    let summary = receiver.summary();
    assert_eq!((summary.records, summary.plain, summary.sources), (3, 1, 2));
    assert_eq!((summary.datagrams, summary.missing), (4, 0));
}

#[test]
fn an_ipv4_source_is_the_same_through_an_ipv6_socket() {
    let mut receiver = Receiver::new();
    let mapped = IpAddr::from([0, 0, 0, 0, 0, 0xffff, 0x0a00, 0x0001]);
    let mut events = Vec::new();
    receiver.datagram(T0, mapped, b"x", &mut events);
    assert_eq!(events, [Event::Plain(source(1), b"x".to_vec())]);
}

#[test]
fn fragments_are_joined_and_ordered_with_whole_records() {
    let mut receiver = Receiver::new();
    take(&mut receiver, T0, 1, "6,10,1,-;a\n");
    assert_eq!(take(&mut receiver, T0, 1, "6,12,3,-;c\n"), []);
    assert_eq!(take(&mut receiver, T0, 1, "6,11,2,-,ncfrag=2/5;b\n "), []);
    let events = take(&mut receiver, T0, 1, "6,11,2,-,ncfrag=0/5;bb");
    assert_eq!(events.iter().map(text_of).collect::<Vec<_>>(), ["bbb", "c"]);
    let Event::Record(_, record) = &events[0] else {
        panic!("not a record: {events:?}");
    };
    assert_eq!((record.fragments, record.missing_bytes), (2, 0));
}

#[test]
fn an_incomplete_message_is_told_in_time_with_what_there_is() {
    let mut receiver = Receiver::new();
    take(&mut receiver, T0, 1, "6,10,1,-;a\n");
    take(&mut receiver, T0, 1, "6,11,2,-,ncfrag=2/5;bb\n");
    let later = T0 + Duration::from_millis(1);
    take(&mut receiver, later, 1, "6,12,3,-;c\n");
    let deadline = receiver.next_deadline().expect("something waits");
    assert_eq!(deadline, T0 + HOLD);
    let mut events = Vec::new();
    receiver.tick(deadline, &mut events);
    assert_eq!(events.iter().map(text_of).collect::<Vec<_>>(), ["??bb", "c"]);
    assert_eq!(receiver.summary().incomplete, 1);
    assert_eq!(receiver.summary().missing, 0);
    assert_eq!(receiver.next_deadline(), None);
}

#[test]
fn the_end_tells_all_that_waits() {
    let mut receiver = Receiver::new();
    take(&mut receiver, T0, 1, "6,10,1,-;a\n");
    take(&mut receiver, T0, 1, "6,12,3,-;c\n");
    take(&mut receiver, T0, 1, "6,14,2,-,ncfrag=0/5;bb");
    let mut events = Vec::new();
    receiver.finish(&mut events);
    assert_eq!(events.len(), 4, "{events:?}");
    assert_eq!(receiver.summary().missing, 2);
    assert_eq!(receiver.held_bytes, 0);
}

#[test]
fn a_late_record_is_no_longer_missing() {
    let mut receiver = Receiver::new();
    take(&mut receiver, T0, 1, "6,10,1,-;a\n");
    take(&mut receiver, T0, 1, "6,12,3,-;c\n");
    receiver.tick(T0 + HOLD, &mut Vec::new());
    assert_eq!(receiver.summary().missing, 1);
    let events = take(&mut receiver, T0 + HOLD, 1, "6,11,2,-;b\n");
    assert!(matches!(&events[..], [Event::Record(_, record)] if record.late));
    assert_eq!((receiver.summary().missing, receiver.summary().late), (0, 1));
}

#[test]
fn the_source_silent_for_longest_makes_room() {
    let mut receiver = Receiver::new();
    for n in 0..=SOURCES_MAX as u32 {
        let address = IpAddr::from(n.to_be_bytes());
        let now = T0 + Duration::from_micros(u64::from(n));
        receiver.datagram(now, address, b"6,1,1,-;a", &mut Vec::new());
        receiver.datagram(now, address, b"6,3,1,-;a", &mut Vec::new());
    }
    assert_eq!(receiver.sources.len(), SOURCES_MAX);
    assert!(!receiver.sources.contains_key(&IpAddr::from([0, 0, 0, 0])));
    // What waited of the first one was told.
    assert_eq!(receiver.summary().missing, 1);
}

proptest! {
    #[test]
    fn whatever_the_network_does_each_record_is_told_once_and_gaps_add_up(
        fates in vec((0..8u8, 0..40u16), 1..200),
    ) {
        // Fate 0 loses a record, 1 repeats it; the number delays it.
        let mut network = Vec::new();
        for (index, &(fate, delay)) in fates.iter().enumerate() {
            let seq = index as u64;
            let copies = match fate { 0 if index > 0 => 0, 1 => 2, _ => 1 };
            for copy in 0..copies {
                // The first one is first, because the count begins with it.
                let at = if index == 0 { 0 } else { index as u64 + u64::from(delay) + copy };
                network.push((at, seq));
            }
        }
        network.sort_by_key(|&(at, _)| at);
        let sent: std::collections::BTreeSet<u64> = network.iter().map(|&(_, seq)| seq).collect();

        let mut receiver = Receiver::new();
        let mut events = Vec::new();
        for &(at, seq) in &network {
            // No record waits longer than the receiver holds.
            let now = Duration::from_millis(at);
            receiver.tick(now, &mut events);
            let datagram = format!("6,{seq},{},-;x\n", 5_000_000 + seq);
            receiver.datagram(now, source(1), datagram.as_bytes(), &mut events);
        }
        receiver.finish(&mut events);

        let mut told = Vec::new();
        let mut next = 0;
        for event in &events {
            match event {
                Event::Record(_, record) => {
                    prop_assert_eq!(record.seq, next);
                    prop_assert!(!record.late);
                    told.push(record.seq);
                    next = record.seq + 1;
                }
                Event::Gap { first_seq, last_seq, .. } => {
                    prop_assert_eq!(*first_seq, next);
                    next = last_seq + 1;
                }
                other => prop_assert!(false, "unexpected {:?}", other),
            }
        }
        prop_assert_eq!(told.iter().copied().collect::<std::collections::BTreeSet<_>>(), sent.clone());
        let summary = receiver.summary();
        prop_assert_eq!(summary.records as usize, sent.len());
        prop_assert_eq!(summary.duplicates as usize, network.len() - sent.len());
        prop_assert_eq!(summary.missing + summary.records, next);
    }

    #[test]
    fn no_datagram_makes_the_receiver_panic(
        datagrams in vec(
            ("[67],[0-9]{1,4},[0-9]{1,9},[-c](,ncfrag=[0-9]{1,2}/[0-9]{1,2}|,approx=1)?;[a-z\\\\\n =]{0,9}|.{0,20}", 0..400u64),
            0..40,
        ),
    ) {
        let mut receiver = Receiver::new();
        let mut events = Vec::new();
        let mut now = Duration::ZERO;
        for (datagram, pause) in datagrams {
            now += Duration::from_millis(pause);
            receiver.tick(now, &mut events);
            receiver.datagram(now, source(1), datagram.as_bytes(), &mut events);
        }
        receiver.finish(&mut events);
        prop_assert_eq!(receiver.held_bytes, 0);
        prop_assert_eq!(receiver.next_deadline(), None);
        for event in &events {
            prop_assert!(render::text(event).ends_with('\n'));
            let parsed = serde_json::from_str::<serde_json::Value>(&render::json(event));
            prop_assert!(parsed.is_ok_and(|value| value.is_object()));
        }
    }
}

#[test]
fn seqs_beyond_32_bits_keep_their_order_and_gaps() {
    for first in [(1_u64 << 32) - 2, (1 << 40) - 2, u64::MAX - 9] {
        let mut receiver = Receiver::new();
        let seqs = [first, first + 1, first + 3, first + 2, first + 5];
        let mut events: Vec<Event> = seqs
            .iter()
            .flat_map(|seq| take(&mut receiver, T0, 1, &format!("6,{seq},1,-;{seq}\n")))
            .collect();
        receiver.finish(&mut events);
        let texts: Vec<String> =
            events.iter().filter(|event| matches!(event, Event::Record(..))).map(text_of).collect();
        let wanted = [first, first + 1, first + 2, first + 3, first + 5];
        assert_eq!(texts, wanted.map(|seq| seq.to_string()));
        let summary = receiver.summary();
        assert_eq!((summary.records, summary.missing), (5, 1), "{first}");
    }
}
