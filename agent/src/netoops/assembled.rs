//! A dump as it came out of its packets: the text, and what is missing of it.
//!
//! How packets are told apart and when a dump is finished is the business of `assemble`.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use super::wire::Kind;

/// A finished dump.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assembled<K> {
    /// Where it came from.
    pub source: K,
    /// The sender's number of the dump.
    pub dump_id: u16,
    /// Why there is a dump.
    pub kind: Kind,
    /// Architecture of the sender, see [`super::wire::arch_name`].
    pub arch: u16,
    /// Kernel release of the sender; any bytes, at most 64.
    pub kernel_release: Vec<u8>,
    /// Packets that the dump has.
    pub packet_count: u32,
    /// Packets that arrived.
    pub received: u32,
    /// Numbers of those that did not, from the newest kilobyte on.
    pub missing: Vec<RangeInclusive<u32>>,
    /// Packets that came again.
    pub repeated: u64,
    /// Packets that contradicted earlier ones and were not used.
    pub conflicting: u64,
    /// The text, oldest first, with a line of its own where packets are missing.
    pub text: Vec<u8>,
}

/// The numbers that are not there, from the newest kilobyte on.
pub(super) fn missing(
    packets: &BTreeMap<u32, Box<[u8]>>,
    packet_count: u32,
) -> Vec<RangeInclusive<u32>> {
    let mut missing = Vec::new();
    let mut next = 0;
    for &packet_no in packets.keys().chain([&packet_count]) {
        if packet_no > next {
            missing.push(next..=packet_no - 1);
        }
        next = packet_no + 1;
    }
    missing
}

/// The line that stands for packets that are missing.
#[must_use]
pub fn placeholder(missing: &RangeInclusive<u32>) -> String {
    let (newest, oldest) = (missing.start(), missing.end());
    if newest == oldest {
        format!("-- netoops: packet {newest} is missing here (up to 1 KiB) --\n")
    } else {
        let count = u64::from(oldest - newest) + 1;
        format!(
            "-- netoops: packets {oldest} to {newest} are missing here (up to {count} KiB) --\n"
        )
    }
}

/// The text of a dump: the highest number is the oldest.
pub(super) fn joined(
    packets: &BTreeMap<u32, Box<[u8]>>,
    missing: &[RangeInclusive<u32>],
) -> Vec<u8> {
    let mut text = Vec::with_capacity(packets.values().map(|text| text.len()).sum());
    let mut packets = packets.iter().rev().peekable();
    let mut missing = missing.iter().rev().peekable();
    loop {
        let packet_no = packets.peek().map(|(packet_no, _)| **packet_no);
        if let Some(gap) = missing.next_if(|gap| packet_no.is_none_or(|no| *gap.start() > no)) {
            if text.last().is_some_and(|&byte| byte != b'\n') {
                text.push(b'\n');
            }
            text.extend_from_slice(placeholder(gap).as_bytes());
        } else if let Some((_, packet)) = packets.next() {
            text.extend_from_slice(packet);
        } else {
            return text;
        }
    }
}
