//! What must hold for any bytes from outside: one function per fuzz target.
//!
//! A function panics where something does not hold. libFuzzer calls it through
//! `fuzz_targets/`, and `tests/corpus.rs` calls it with the checked-in corpora, without
//! libFuzzer. How they are run is the business of `cargo xtask test` (`xtask/src/fuzz.rs`).

use std::{
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use netconsole_agent::{
    capture::{kmsg_record::KmsgRecord, ring_record::RingRecord},
    config::{self, ConfigError},
    control::protocol::Request,
    import,
    netconsole::{
        DATAGRAM_MAX_BYTES, Encoder, Extras, Format, Limits, Message, Reassembler,
        decode::{MESSAGE_MAX_BYTES, parse_record, split_body},
        format::record_limit_bytes,
        parse_header,
    },
    netoops::{
        Assembled, Assembler, Header, Kind, Limits as DumpLimits, Outcome, placeholder,
        wire::{DATA_BYTES, HEADER_BYTES, PACKET_BYTES, PACKETS_MAX, decode},
    },
    receive::{HOLD, Receiver},
};

/// What a fuzz target does with an input.
pub type Target = fn(&[u8]);

/// Every fuzz target by its name.
pub const TARGETS: [(&str, Target); 7] = [
    ("config", config),
    ("control", control),
    ("import", import),
    ("kmsg", kmsg),
    ("netoops", netoops),
    ("packet", packet),
    ("ring_record", ring_record),
];

/// Most bytes of a datagram with what the agent adds to a record.
const BUFFER_BYTES: usize = 8192;

/// Text as a configuration file: every problem lies inside of it.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let problems = match config::parse(text, "fuzz.toml") {
        Ok(config) => {
            assert!(!config.targets.is_empty(), "a configuration without a target");
            config.warnings.problems
        }
        Err(ConfigError::Invalid { report, problems }) => {
            assert!(!problems.is_empty() && !report.is_empty(), "an error that tells nothing");
            problems
        }
        Err(error) => panic!("no file was read: {error}"),
    };
    for problem in problems {
        let span = &problem.span;
        let inside = span.start <= span.end && span.end <= text.len();
        assert!(inside, "{problem:?} is outside of {} bytes", text.len());
    }
}

/// A line as a request on the control socket: what is understood is written back as the same.
pub fn control(data: &[u8]) {
    let Ok(request) = Request::parse(data) else { return };
    let line = request.to_line().unwrap_or_default();
    assert_eq!(Request::parse(line.as_bytes()).as_ref(), Ok(&request), "{line}");
}

/// Text as a `netconsole=` string: what is imported is a configuration.
pub fn import(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let import = import::string(text);
    if import.targets == 0 {
        assert!(!import.refusals.is_empty() || !import.notes.is_empty(), "nothing, and no word");
        return;
    }
    match config::parse(&import.toml, "import") {
        Ok(config) => assert_eq!(config.targets.len(), import.targets),
        Err(error) => panic!("{error}\n{}", import.toml),
    }
}

/// Bytes as a line of `/dev/kmsg`, by the rules of new and of old kernels: what is read is
/// sent, and received as the same.
pub fn kmsg(data: &[u8]) {
    for release in [b"6.12.0".as_slice(), b"6.1.0"] {
        let mut buffer = vec![0; data.len()];
        let limit = record_limit_bytes(release);
        let Ok(read) = parse_record(data, limit, &mut buffer) else { return };
        let mut record = KmsgRecord::default();
        record.set(&read);
        let record = record.as_record(None);
        let format = Format::extended(release);
        let mut encoder = Encoder::new();
        let mut datagrams = encoder.encode(&record, &format, 1, &Extras::default());
        let count = datagrams.count();
        assert!(count > 0, "an extended record is never empty");
        let mut out = [0; DATAGRAM_MAX_BYTES];
        let mut buffer = vec![0; BUFFER_BYTES];
        while let Some(len) = datagrams.write_next(&mut out) {
            let Ok((header, _)) = parse_header(&out[..len]) else {
                panic!("not decodable: {:?}", String::from_utf8_lossy(&out[..len]));
            };
            assert_eq!((header.seq, header.facility()), (record.seq, record.facility));
            assert_eq!((header.level(), header.caller), (record.level, record.caller));
            assert_eq!(header.fragment.is_some(), count > 1);
            if count == 1 {
                let sent = parse_record(&out[..len], limit, &mut buffer);
                let sent = sent.map(|sent| (sent.text, sent.subsystem, sent.device));
                assert_eq!(sent, Ok((record.text, record.subsystem, record.device)));
            }
        }
    }
}

/// Bytes of [`netoops`] that make one packet.
const STEP_BYTES: usize = 8;

/// Bytes as a packet of a dump, and then as the making of many packets from three hosts:
/// memory stays within its bounds, and each packet is in a dump or counted.
pub fn netoops(data: &[u8]) {
    let limits = DumpLimits { dumps: 4, dumps_per_source: 3, bytes: 8192, ..DumpLimits::default() };
    let mut assembler = Assembler::new(limits);
    let mut dumps = Vec::new();
    let mut now = Duration::ZERO;
    let mut taken = 0;
    let mut push = |assembler: &mut Assembler<u8>, now, source, packet: &[u8]| {
        match (assembler.push(now, source, packet), decode(packet)) {
            (Ok(outcome), Ok(_)) => {
                taken += 1;
                if let Outcome::Complete(dump) = outcome {
                    assert!(dump.missing.is_empty(), "whole, with {:?} missing", dump.missing);
                    dumps.push(*dump);
                }
            }
            (Err(_), Err(_)) => {}
            (_, read) => panic!("the assembler does not agree with {read:?}"),
        }
        dumps.extend(std::iter::from_fn(|| assembler.pop_incomplete(now)));
        assert!(assembler.open() <= limits.dumps, "{} dumps in the making", assembler.open());
        let bytes = assembler.bytes();
        assert!(bytes <= limits.bytes || assembler.open() == 1, "{bytes} bytes in the making");
    };
    push(&mut assembler, now, 0, data);
    if let Ok((header, text)) = decode(data) {
        let again = [&header.encode()[..], text].concat();
        assert_eq!(decode(&again), Ok((header, text)));
    }
    for step in data.chunks_exact(STEP_BYTES) {
        now += Duration::from_millis(u64::from(step[0]) * 40);
        push(&mut assembler, now, step[1] % 3, &packet_of(step));
    }
    dumps.extend(std::iter::from_fn(|| assembler.pop_incomplete(Duration::MAX)));
    assert_eq!((assembler.open(), assembler.bytes()), (0, 0), "something stays");
    assert_eq!(assembler.next_deadline(), None, "something still waits");
    let counters = assembler.counters();
    assert_eq!(counters.kept + counters.repeated + counters.conflicting, taken);
    assert_eq!(counters.complete + counters.incomplete, dumps.len() as u64);
    assert_eq!(counters.kept, dumps.iter().map(|dump| u64::from(dump.received)).sum::<u64>());
    dumps.iter().for_each(dump_holds);
}

/// A packet with fields near their bounds, of which few differ, so that dumps come about.
fn packet_of(step: &[u8]) -> Vec<u8> {
    let header = Header {
        arch: u16::from(step[2] >> 7),
        dump_id: u16::from(step[2] & 3),
        kind: if step[2] & 4 == 0 { Kind::Hard } else { Kind::Soft },
        packet_count: match step[3] {
            255 => PACKETS_MAX + 1,
            254 => PACKETS_MAX,
            count => u32::from(count % 9),
        },
        packet_no: match step[4] {
            255 => PACKETS_MAX - 1,
            no => u32::from(no % 9),
        },
        kernel_release: &step[5..5 + usize::from(step[2] >> 6 & 1)],
    };
    let mut packet = header.encode().to_vec();
    packet.resize(HEADER_BYTES + usize::from(step[6]) * 4, step[7]);
    packet.resize(PACKET_BYTES + usize::from(step[0] == 255), 0);
    packet
}

/// A dump has what arrived of it, and a line for each gap.
fn dump_holds(dump: &Assembled<u8>) {
    let missing = dump.missing.iter().map(|gap| u64::from(gap.end() - gap.start()) + 1);
    assert_eq!(missing.sum::<u64>() + u64::from(dump.received), u64::from(dump.packet_count));
    let lines: usize = dump.missing.iter().map(|gap| placeholder(gap).len() + 1).sum();
    assert!(dump.text.len() <= dump.received as usize * DATA_BYTES + lines);
    for gap in &dump.missing {
        let line = placeholder(gap);
        assert!(dump.text.windows(line.len()).any(|text| text == line.as_bytes()), "no {line}");
    }
}

/// Bytes as datagrams from the network, with a NUL between two of them and a moment for each
/// further NUL: memory stays within its bounds, and nothing is forgotten.
pub fn packet(data: &[u8]) {
    let source = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    let limits = Limits { messages: 4, bytes: 4096, timeout: HOLD };
    let mut reassembler = Reassembler::new(limits);
    let (mut receiver, mut events) = (Receiver::new(), Vec::new());
    let mut now = Duration::ZERO;
    let mut datagrams = 0;
    for datagram in data.split(|byte| *byte == 0) {
        if datagram.is_empty() {
            now += HOLD / 4;
            receiver.tick(now, &mut events);
            while reassembler.pop_incomplete(now).is_some() {}
            continue;
        }
        datagrams += 1;
        receiver.datagram(now, source, datagram, &mut events);
        let Ok((header, body)) = parse_header(datagram) else { continue };
        let (text, dict) = split_body(body);
        assert!(text.len() + dict.map(|line| line.key.len()).sum::<usize>() <= body.len());
        if let Some(fragment) = header.fragment {
            let whole = reassembler.push(now, source, &header, fragment, body);
            assert!(whole.is_none_or(|message| message.missing_bytes == 0));
            while reassembler.pop_incomplete(now).is_some() {}
        }
    }
    let left: Vec<Message<_>> =
        std::iter::from_fn(|| reassembler.pop_incomplete(Duration::MAX)).collect();
    let body_bytes = |message: &Message<_>| match parse_header(&message.datagram) {
        Ok((_, body)) => body.len(),
        Err(error) => panic!("a message without its header: {error}"),
    };
    let left_bytes: usize = left.iter().map(body_bytes).sum();
    assert!(left.len() <= limits.messages, "{} messages in the making", left.len());
    assert!(left_bytes <= limits.bytes.max(MESSAGE_MAX_BYTES), "{left_bytes} bytes in the making");
    receiver.finish(&mut events);
    assert_eq!(receiver.summary().datagrams, datagrams);
    assert_eq!(receiver.next_deadline(), None, "something still waits");
}

/// Bytes as an item of the ring buffer: every part lies inside of it.
pub fn ring_record(data: &[u8]) {
    let Some(record) = RingRecord::parse(data) else { return };
    assert!(record.text().len() <= data.len());
    let context = record.context();
    assert!(context.task.len() + context.cgroup.len() <= data.len());
    let whole = record.whole();
    assert_eq!(whole.is_some(), record.is_whole());
    if let Some(whole) = whole {
        assert!(whole.level <= 7, "level {}", whole.level);
        assert_eq!(whole.text, record.text());
        let mut copy = KmsgRecord::default();
        copy.set(&whole);
        assert!(whole.text.starts_with(copy.text()));
    }
}
