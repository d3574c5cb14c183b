use super::super::assembled::placeholder;
use super::super::dump::Dump;
use super::super::wire::PACKET_BYTES;
use super::*;

const HOST: u32 = 1;
const START: Duration = Duration::from_secs(100);
const SILENCE: Duration = Duration::from_secs(5);

fn text(len: usize) -> Vec<u8> {
    let line = b"<6>[    1.000000] all work and no play\n";
    (0..len).map(|index| line[index % line.len()]).collect()
}

/// The packets of one pass.
fn packets(id: u16, kind: Kind, text: &[u8]) -> Vec<Vec<u8>> {
    let dump = Dump::new(id, kind, b"6.1.0", text.len()).expect("short enough");
    let packet = |packet_no| {
        let mut out = vec![0; PACKET_BYTES];
        assert_eq!(dump.packet(text, packet_no, &mut out), PACKET_BYTES);
        out
    };
    (0..dump.packet_count()).map(packet).collect()
}

fn push(assembler: &mut Assembler<u32>, packet: &[u8]) -> Outcome<u32> {
    assembler.push(START, HOST, packet).expect("a packet")
}

fn rest(assembler: &mut Assembler<u32>) -> Vec<Assembled<u32>> {
    std::iter::from_fn(|| assembler.pop_incomplete(Duration::MAX)).collect()
}

#[test]
fn a_dump_is_its_text_and_further_passes_are_repetitions() {
    for len in [1, 1023, 1024, 1025, 65_536] {
        let text = text(len);
        let packets = packets(1, Kind::Hard, &text);
        let mut assembler = Assembler::new(Limits::default());
        let mut whole = Vec::new();
        for packet in packets.iter().chain(&packets).chain(&packets) {
            if let Outcome::Complete(assembled) = push(&mut assembler, packet) {
                whole.push(*assembled);
            }
        }
        let count = packets.len() as u32;
        let expected = Assembled {
            source: HOST,
            dump_id: 1,
            kind: Kind::Hard,
            arch: super::super::wire::ARCH,
            kernel_release: b"6.1.0".to_vec(),
            packet_count: count,
            received: count,
            missing: Vec::new(),
            repeated: 0,
            conflicting: 0,
            text,
        };
        assert_eq!(whole, [expected]);
        let counters = assembler.counters();
        assert_eq!((counters.kept, counters.repeated), (count.into(), 2 * u64::from(count)));
        assert_eq!((assembler.open(), assembler.bytes()), (0, 0));
        assert_eq!(assembler.next_deadline(), None);
    }
}

#[test]
fn missing_packets_are_told_and_seen_in_the_text() {
    let text = text(5 * 1024);
    let packets = packets(1, Kind::Soft, &text);
    let mut assembler = Assembler::new(Limits::default());
    // The newest, one in between, and two more: 0, 2 and 3 are missing.
    assert_eq!(push(&mut assembler, &packets[4]), Outcome::Kept);
    assert_eq!(push(&mut assembler, &packets[1]), Outcome::Kept);
    assert_eq!(push(&mut assembler, &packets[1]), Outcome::Repeated);
    assert_eq!(assembler.next_deadline(), Some(START + SILENCE));
    assert_eq!(assembler.pop_incomplete(START + SILENCE - Duration::from_nanos(1)), None);
    let assembled = assembler.pop_incomplete(START + SILENCE).expect("finished");
    assert_eq!(assembled.missing, [0..=0, 2..=3]);
    assert_eq!((assembled.received, assembled.packet_count, assembled.repeated), (2, 5, 1));
    let mut expected = text[..1024].to_vec();
    expected.extend(b"\n-- netoops: packets 3 to 2 are missing here (up to 2 KiB) --\n");
    expected.extend(&text[3072..4096]);
    expected.extend(b"\n-- netoops: packet 0 is missing here (up to 1 KiB) --\n");
    assert_eq!(String::from_utf8(assembled.text), String::from_utf8(expected));
    assert_eq!(assembler.counters().incomplete, 1);
    assert_eq!(assembler.bytes(), 0);
}

#[test]
fn the_oldest_may_be_missing_too() {
    let text = text(3 * 1024);
    let packets = packets(1, Kind::Soft, &text);
    let mut assembler = Assembler::new(Limits::default());
    push(&mut assembler, &packets[0]);
    let assembled = assembler.pop_incomplete(Duration::MAX).expect("finished");
    assert_eq!(assembled.missing, [1..=2]);
    let placeholder = placeholder(&(1..=2));
    assert_eq!(assembled.text[..placeholder.len()], *placeholder.as_bytes());
    assert_eq!(assembled.text[placeholder.len()..], text[2048..]);
}

#[test]
fn padding_may_be_in_any_packet() {
    // As the patch sends a buffer that has wrapped: the end of the older half is padded, too.
    let mut packets = packets(1, Kind::Hard, &text(3 * 1024));
    packets[1][PACKET_BYTES - 1000..].fill(0);
    let mut assembler = Assembler::new(Limits::default());
    push(&mut assembler, &packets[0]);
    push(&mut assembler, &packets[1]);
    let Outcome::Complete(assembled) = push(&mut assembler, &packets[2]) else {
        panic!("not complete");
    };
    assert_eq!(assembled.text.len(), 1024 + 24 + 1024);
    assert!(!assembled.text.contains(&0));
}

#[test]
fn what_contradicts_is_told_and_not_used() {
    let text = text(2 * 1024);
    let packets = packets(1, Kind::Hard, &text);
    let mut assembler = Assembler::new(Limits::default());
    assert_eq!(push(&mut assembler, &packets[1]), Outcome::Kept);
    // The count, the release, the architecture, and the text of the same number.
    for (at, byte) in [(10, 3), (25, b'7'), (4, 9), (PACKET_BYTES - 1, b'!')] {
        let mut other = packets[1].clone();
        other[at] = byte;
        let later = START + SILENCE - Duration::from_secs(1);
        let outcome = assembler.push(later, HOST, &other).expect("a packet");
        assert_eq!(outcome, Outcome::Conflicting, "byte {at}");
    }
    // They did not keep it open either.
    assert_eq!(assembler.next_deadline(), Some(START + SILENCE));
    let Outcome::Complete(assembled) = push(&mut assembler, &packets[0]) else {
        panic!("not complete");
    };
    assert_eq!((assembled.text, assembled.conflicting), (text, 4));
    assert_eq!(assembler.counters().conflicting, 4);
}

#[test]
fn hosts_ids_and_kinds_are_dumps_of_their_own() {
    let dumps: Vec<(u32, u16, Kind)> =
        vec![(1, 1, Kind::Hard), (1, 1, Kind::Soft), (1, 2, Kind::Hard), (2, 1, Kind::Hard)];
    let text_of = |index: usize| text(3000 + index);
    let mut assembler = Assembler::new(Limits::default());
    let mut whole = 0;
    for packet_no in [2, 0, 1] {
        for (index, &(host, id, kind)) in dumps.iter().enumerate() {
            let text = text_of(index);
            let packet = &packets(id, kind, &text)[packet_no];
            if let Outcome::Complete(assembled) =
                assembler.push(START, host, packet).expect("a packet")
            {
                assert_eq!(assembled.text, text);
                assert_eq!((assembled.source, assembled.dump_id), (host, id));
                whole += 1;
            }
        }
    }
    assert_eq!(whole, 4);
}

#[test]
fn an_id_may_come_again_after_the_silence_or_with_another_count() {
    let (first, second) = (text(1000), text(2000));
    let mut assembler = Assembler::new(Limits::default());
    let one = &packets(1, Kind::Hard, &first)[0];
    assert!(matches!(push(&mut assembler, one), Outcome::Complete(_)));
    assert_eq!(push(&mut assembler, one), Outcome::Repeated);
    let two = packets(1, Kind::Hard, &second);
    assert_eq!(push(&mut assembler, &two[0]), Outcome::Kept);
    let Outcome::Complete(assembled) = push(&mut assembler, &two[1]) else {
        panic!("not complete");
    };
    assert_eq!(assembled.text, second);
    // Each repetition counts anew.
    let later = START + SILENCE - Duration::from_secs(1);
    assert_eq!(assembler.push(later, HOST, one), Ok(Outcome::Repeated));
    let again = assembler.push(later + SILENCE, HOST, one);
    assert!(matches!(again, Ok(Outcome::Complete(_))), "{again:?}");
}

#[test]
fn a_dump_that_never_becomes_whole_ends_nevertheless() {
    let packets = packets(1, Kind::Hard, &text(2048));
    let mut assembler = Assembler::new(Limits::default());
    let mut now = START;
    let finished = loop {
        assembler.push(now, HOST, &packets[0]).expect("a packet");
        if let Some(finished) = assembler.pop_incomplete(now) {
            break finished;
        }
        now += SILENCE / 2;
        assert!(now < START + Duration::from_secs(700), "it does not end");
    };
    assert_eq!(finished.missing, [1..=1]);
}

#[test]
fn those_silent_for_longest_go_first_and_a_source_pushes_out_its_own() {
    let limits = Limits { dumps: 4, dumps_per_source: 2, ..Limits::default() };
    let mut assembler = Assembler::new(limits);
    let packet = |id| packets(id, Kind::Hard, &text(2048)).swap_remove(1);
    let mut at = START;
    let mut push = |host: u32, id: u16| {
        at += Duration::from_millis(1);
        assembler.push(at, host, &packet(id)).expect("a packet");
        assert!(assembler.open() <= 4);
        assembler.pop_incomplete(at).map(|dump| (dump.source, dump.dump_id))
    };
    assert_eq!(push(1, 1), None);
    assert_eq!(push(1, 2), None);
    assert_eq!(push(2, 1), None);
    assert_eq!(push(1, 1), None);
    assert_eq!(push(1, 3), Some((1, 2)));
    assert_eq!(push(3, 1), None);
    assert_eq!(push(4, 1), Some((2, 1)));
    assert_eq!(push(5, 1), Some((1, 1)));
    assert_eq!(rest(&mut assembler).len(), 4);
}

#[test]
fn memory_is_bounded_by_bytes() {
    let limits = Limits { bytes: 20 * 1024, ..Limits::default() };
    let mut assembler = Assembler::new(limits);
    let text = text(100 * 1024);
    let mut received = 0;
    for (index, id) in [1, 2, 1].into_iter().enumerate() {
        for packet in &packets(id, Kind::Hard, &text)[index * 30..][..30] {
            push(&mut assembler, packet);
            while let Some(dump) = assembler.pop_incomplete(START) {
                received += dump.received;
            }
            assert!(assembler.open() == 1 || assembler.bytes() <= limits.bytes);
        }
    }
    // The one that is alone goes on, whatever it takes, up to the longest dump.
    let last = rest(&mut assembler);
    assert_eq!(last.len(), 1);
    assert_eq!(received + last[0].received, 90);
}

#[test]
fn a_claimed_count_takes_no_memory() {
    let mut packet = packets(1, Kind::Hard, b"x").swap_remove(0);
    packet[10..14].copy_from_slice(&16_384_u32.to_le_bytes());
    packet[14..18].copy_from_slice(&16_383_u32.to_le_bytes());
    let mut assembler = Assembler::new(Limits::default());
    assert_eq!(push(&mut assembler, &packet), Outcome::Kept);
    assert!(assembler.bytes() < 200);
    let dump = assembler.pop_incomplete(Duration::MAX).expect("finished");
    assert_eq!(dump.missing, [0..=16_382]);
    assert!(dump.text.len() < 200);
}

#[test]
fn what_is_no_packet_changes_nothing() {
    let mut assembler = Assembler::<u32>::new(Limits::default());
    assert!(assembler.push(START, HOST, b"6,10,1000001,-;not a dump\n").is_err());
    assert!(assembler.push(START, HOST, b"").is_err());
    assert_eq!(assembler.counters(), Counters::default());
    assert_eq!(assembler.next_deadline(), None);
}
