//! Properties of dumps on any network, and with any bytes.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;

use super::wire::{DATA_BYTES, PACKET_BYTES, PACKETS_MAX, decode};
use super::*;

const START: Duration = Duration::from_secs(1);

/// Text without NUL, which would be padding where a packet ends.
fn text() -> impl Strategy<Value = Vec<u8>> {
    let len = prop_oneof![
        Just(0_usize),
        Just(1),
        Just(1023),
        Just(1024),
        Just(1025),
        Just(2048),
        Just(65_536),
        0..10_000_usize,
    ];
    (len, 1..=255_u8, any::<u64>()).prop_map(|(len, last, seed)| {
        let mut random = seed;
        let mut byte = || {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (random >> 33) as u8
        };
        let mut text: Vec<u8> =
            (0..len).map(|_| if byte() < 10 { b'\n' } else { byte().max(1) }).collect();
        if let Some(byte) = text.last_mut() {
            *byte = last;
        }
        text
    })
}

/// What the network makes of one sent packet: how often it arrives, and how late.
fn fates() -> impl Strategy<Value = Vec<(u8, u16)>> {
    vec((prop_oneof![3 => Just(0_u8), 3 => Just(1), 1 => Just(2)], any::<u16>()), 1..64)
}

/// All passes of a dump as they arrive.
fn arriving(dump: &Dump, text: &[u8], fates: &[(u8, u16)]) -> Vec<Vec<u8>> {
    let mut arriving = Vec::new();
    for (index, (_, packet_no)) in dump.order().enumerate() {
        // The fates repeat with another phase in each pass.
        let (copies, late) = fates[(index * 7 + index / 5) % fates.len()];
        let mut packet = vec![0; PACKET_BYTES];
        assert_eq!(dump.packet(text, packet_no, &mut packet), PACKET_BYTES);
        for copy in 0..u16::from(copies) {
            arriving.push((late.wrapping_mul(copy + 1), packet.clone()));
        }
    }
    arriving.sort_by_key(|(late, _)| *late);
    arriving.into_iter().map(|(_, packet)| packet).collect()
}

fn numbers(packets: &[Vec<u8>]) -> BTreeSet<u32> {
    packets.iter().map(|packet| decode(packet).expect("a packet").0.packet_no).collect()
}

/// The text as it has to come out with only these packets of it.
fn expected(text: &[u8], count: u32, there: &BTreeSet<u32>) -> Vec<u8> {
    let mut out: Vec<u8> = Vec::new();
    let mut packet_no = count;
    while packet_no > 0 {
        packet_no -= 1;
        if there.contains(&packet_no) {
            let begin = (count - 1 - packet_no) as usize * DATA_BYTES;
            out.extend(&text[begin..text.len().min(begin + DATA_BYTES)]);
        } else if packet_no + 1 == count || there.contains(&(packet_no + 1)) {
            let newest = (0..packet_no).rev().find(|no| there.contains(no)).map_or(0, |no| no + 1);
            if !out.is_empty() && out.last() != Some(&b'\n') {
                out.push(b'\n');
            }
            out.extend(placeholder(&(newest..=packet_no)).as_bytes());
        }
    }
    out
}

proptest! {
    #[test]
    fn a_dump_comes_out_whole_or_tells_what_is_missing(
        text in text(),
        fates in fates(),
        id in any::<u16>(),
        hard in any::<bool>(),
        release in vec(1..=255_u8, 0..80),
    ) {
        let kind = if hard { Kind::Hard } else { Kind::Soft };
        let dump = Dump::new(id, kind, &release, text.len()).expect("short enough");
        let arriving = arriving(&dump, &text, &fates);
        let there = numbers(&arriving);
        let mut assembler = Assembler::new(Limits::default());
        let mut finished = Vec::new();
        for packet in &arriving {
            match assembler.push(START, 1_u8, packet).expect("a packet") {
                Outcome::Complete(dump) => finished.push(*dump),
                Outcome::Kept | Outcome::Repeated => {}
                Outcome::Conflicting => prop_assert!(false, "a conflict"),
            }
        }
        finished.extend(std::iter::from_fn(|| assembler.pop_incomplete(Duration::MAX)));
        prop_assert_eq!(finished.len(), usize::from(!there.is_empty()));
        let Some(assembled) = finished.pop() else { return Ok(()) };
        let missing: Vec<u32> = assembled.missing.iter().cloned().flatten().collect();
        let lost: Vec<u32> = (0..dump.packet_count()).filter(|no| !there.contains(no)).collect();
        if lost.is_empty() {
            prop_assert_eq!(&assembled.text, &text);
        }
        prop_assert_eq!(missing, lost);
        prop_assert_eq!(assembled.text, expected(&text, dump.packet_count(), &there));
        prop_assert_eq!((assembled.dump_id, assembled.kind), (id, kind));
        prop_assert_eq!(assembled.kernel_release, &release[..release.len().min(64)]);
        prop_assert_eq!(assembler.bytes(), 0);
    }

    #[test]
    fn dumps_in_a_mix_do_not_disturb_each_other(
        dumps in vec((text(), fates(), 0..3_u8, 0..3_u16), 1..6),
        mix in any::<u64>(),
    ) {
        let mut dumps = dumps;
        dumps.sort_by_key(|(_, _, host, id)| (*host, *id));
        dumps.dedup_by_key(|(_, _, host, id)| (*host, *id));
        let mut streams: Vec<_> = dumps
            .iter()
            .map(|(text, fates, host, id)| {
                let dump = Dump::new(*id, Kind::Hard, b"", text.len()).expect("short enough");
                let mut packets = arriving(&dump, text, fates);
                packets.reverse();
                (*host, *id, text, dump.packet_count(), numbers(&packets), packets)
            })
            .collect();
        let mut assembler = Assembler::new(Limits::default());
        let mut finished = Vec::new();
        let mut random = mix;
        while streams.iter().any(|(.., packets)| !packets.is_empty()) {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let index = (random >> 33) as usize % streams.len();
            let (host, _, _, _, _, packets) = &mut streams[index];
            let Some(packet) = packets.pop() else { continue };
            if let Ok(Outcome::Complete(dump)) = assembler.push(START, *host, &packet) {
                finished.push(*dump);
            }
        }
        finished.extend(std::iter::from_fn(|| assembler.pop_incomplete(Duration::MAX)));
        let arrived = streams.iter().filter(|(_, _, _, _, there, _)| !there.is_empty()).count();
        prop_assert_eq!(finished.len(), arrived);
        for dump in finished {
            let of = streams.iter().find(|(host, id, ..)| (*host, *id) == (dump.source, dump.dump_id));
            let (_, _, text, count, there, _) = of.expect("one that was sent");
            prop_assert_eq!(dump.text, expected(text, *count, there));
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in vec(any::<u8>(), 0..1300)) {
        let mut assembler = Assembler::new(Limits::default());
        prop_assert_eq!(assembler.push(START, 1_u8, &bytes).is_ok(), decode(&bytes).is_ok());
    }

    #[test]
    fn any_fields_are_within_their_bounds(
        fields in vec(any::<u8>(), 26),
        count in prop_oneof![0..3_u32, any::<u32>()],
        no in prop_oneof![0..3_u32, any::<u32>()],
        kind in prop_oneof![Just(1_u16), Just(3), any::<u16>()],
    ) {
        let mut packet = vec![0; PACKET_BYTES];
        packet[4..30].copy_from_slice(&fields);
        packet[..4].copy_from_slice(&[2, 0, 217, 0]);
        packet[8..10].copy_from_slice(&kind.to_le_bytes());
        packet[10..14].copy_from_slice(&count.to_le_bytes());
        packet[14..18].copy_from_slice(&no.to_le_bytes());
        let good = (kind == 1 || kind == 3) && count <= PACKETS_MAX && no < count;
        prop_assert_eq!(decode(&packet).is_ok(), good);
        if let Ok((header, _)) = decode(&packet) {
            prop_assert_eq!((header.packet_count, header.packet_no), (count, no));
            let again = [&header.encode()[..], &packet[217..]].concat();
            prop_assert_eq!(decode(&again).expect("a packet").0, header);
        }
    }
}
