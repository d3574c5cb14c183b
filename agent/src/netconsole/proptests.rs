//! Properties that hold for any record, any settings and any network.

use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;

use super::decode::{MESSAGE_MAX_BYTES, parse_record, split_body};
use super::*;
use crate::record::{Caller, Context, Record};

/// A record that owns its bytes.
#[derive(Clone, Debug)]
struct Owned {
    seq: u64,
    ts_us: u64,
    prio: u16,
    cont: bool,
    caller: Option<Caller>,
    text: Vec<u8>,
    subsystem: Vec<u8>,
    device: Vec<u8>,
    approximated: bool,
}

impl Owned {
    fn record(&self) -> Record<'_> {
        Record {
            seq: self.seq,
            ts_ns: self.ts_us * 1000,
            facility: (self.prio >> 3) as u8,
            level: (self.prio & 7) as u8,
            cont: self.cont,
            caller: self.caller,
            text: &self.text,
            subsystem: &self.subsystem,
            device: &self.device,
            context: Some(Context {
                cpu: 3,
                pid: 4,
                task: b"kworker/3:1",
                cgroup_id: 5,
                cgroup: b"x",
            }),
            approximated: self.approximated,
            backfilled: false,
        }
    }
}

/// Bytes with many of those that need an escape.
fn bytes(max: usize) -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![
        4 => b' '..=b'~',
        2 => any::<u8>(),
        1 => Just(b'\\'),
        1 => Just(b'x'),
        1 => Just(b'\n'),
    ];
    vec(byte, 0..=max)
}

fn records() -> impl Strategy<Value = Owned> {
    let caller = prop_oneof![
        Just(None),
        any::<u32>().prop_map(|id| Some(Caller::Task(id))),
        any::<u32>().prop_map(|id| Some(Caller::Cpu(id))),
    ];
    (
        (any::<u64>(), 0..u64::MAX / 1000, 0..2048u16, any::<bool>()),
        (caller, any::<bool>()),
        bytes(1024),
        (bytes(15), bytes(47)),
    )
        .prop_map(
            |((seq, ts_us, prio, cont), (caller, approximated), text, (subsystem, device))| Owned {
                seq,
                ts_us,
                prio,
                cont,
                caller,
                text,
                subsystem,
                device,
                approximated,
            },
        )
}

fn formats() -> impl Strategy<Value = Format> {
    (
        (any::<[bool; 8]>(), any::<[bool; 15]>()),
        prop_oneof![Just("6.1.0"), Just("7.2.12-rc1"), Just("linux")],
        vec(b' '..=b'~', 0..3000),
        // As small as the encoder honours, so that cuts are frequent.
        256..2100usize,
    )
        .prop_map(|((switch, wanted), release, mut userdata, limit)| {
            let mut format = if switch[0] {
                Format::basic(release.as_bytes())
            } else {
                Format::extended(release.as_bytes())
            };
            userdata.push(b'\n');
            format.userdata = userdata.into();
            format.release_prefix = switch[1];
            let keys = SysdataKey::ALL.into_iter().zip(wanted);
            format.sysdata = keys.filter(|(_, on)| *on).map(|(key, _)| key).collect();
            format.host = HostLines::new(format.sysdata, 1, |key| Some(key.name().as_bytes()));
            format.basic.syslog_prefix = switch[6];
            format.basic.caller = switch[7];
            format.basic.buffer_bytes = limit;
            format.record_limit_bytes = limit;
            format
        })
}

fn datagrams(record: &Record<'_>, format: &Format) -> Vec<Vec<u8>> {
    datagrams_with(record, format, &Extras::default())
}

fn datagrams_with(record: &Record<'_>, format: &Format, extras: &Extras<'_>) -> Vec<Vec<u8>> {
    let mut encoder = Encoder::new();
    let mut datagrams = encoder.encode(record, format, 7, extras);
    let mut all = Vec::with_capacity(datagrams.count());
    let mut frame = [0; DATAGRAM_MAX_BYTES];
    while let Some(len) = datagrams.write_next(&mut frame) {
        all.push(frame[..len].to_vec());
    }
    all
}

/// The record as the kernel would format it, uncut by datagrams.
fn kmsg_line(record: &Record<'_>, limit: usize) -> Vec<u8> {
    let mut format = Format::extended(b"");
    format.record_limit_bytes = limit;
    let all = datagrams(record, &format);
    if let [one] = &all[..] {
        return one.clone();
    }
    let first = parse_header(&all[0]).expect("own header").0;
    let mut line = format!("{},{},{},{}", first.prio, first.seq, first.ts_us, first.flag.as_char())
        .into_bytes();
    let fields = String::from_utf8_lossy(first.fields).into_owned();
    for field in fields.split(',').filter(|f| !f.starts_with("ncfrag")) {
        line.push(b',');
        line.extend_from_slice(field.as_bytes());
    }
    line.push(b';');
    for datagram in &all {
        line.extend_from_slice(parse_header(datagram).expect("own header").1);
    }
    line
}

proptest! {
    #[test]
    fn no_datagram_is_longer_than_the_kernels(owned in records(), format in formats()) {
        for datagram in datagrams(&owned.record(), &format) {
            prop_assert!(datagram.len() <= DATAGRAM_MAX_BYTES);
            prop_assert!(!datagram.is_empty());
        }
    }

    #[test]
    fn a_kmsg_line_is_reproduced_even_if_it_was_cut(owned in records(), limit in 256..2100usize) {
        let line = kmsg_line(&owned.record(), limit);
        prop_assert!(line.len() <= limit);
        let mut buf = vec![0; line.len()];
        let record = parse_record(&line, limit, &mut buf).expect("own line");
        prop_assert_eq!(kmsg_line(&record, limit), line.clone());
        if line.len() < limit {
            prop_assert_eq!(record.text, owned.text.as_slice());
            prop_assert_eq!(record.subsystem, owned.subsystem.as_slice());
            prop_assert_eq!(record.device, owned.device.as_slice());
            prop_assert_eq!(record.prio(), u32::from(owned.prio));
        }
    }

    #[test]
    fn what_is_lost_is_counted_and_the_rest_is_identical(
        owned in records(),
        mut format in formats(),
        fate in vec((0..10u8, any::<u16>()), 16),
    ) {
        format.kind = FormatKind::Extended;
        format.release_prefix = false;
        let sent = datagrams(&owned.record(), &format);
        prop_assume!(sent.len() > 1 && sent.len() <= fate.len());
        let body: Vec<u8> = sent
            .iter()
            .flat_map(|d| parse_header(d).expect("own header").1.to_vec())
            .collect();

        // Fate 0 loses a fragment, 1 and 2 repeat it; the number reorders.
        let mut network: Vec<(u16, &[u8])> = Vec::new();
        for (datagram, &(what, order)) in sent.iter().zip(&fate) {
            let copies = match what { 0 => 0, 1 | 2 => 2, _ => 1 };
            for copy in 0..copies {
                network.push((order.wrapping_add(copy * 7919), datagram));
            }
        }
        network.sort_by_key(|&(order, _)| order);
        let lost = fate[..sent.len()].iter().any(|&(what, _)| what == 0);
        let arrived = network.len();

        let mut reassembler = Reassembler::new(Limits::default());
        let mut whole = Vec::new();
        for (_, datagram) in network {
            let (header, payload) = parse_header(datagram).expect("own header");
            let fragment = header.fragment.expect("own fragment");
            whole.extend(reassembler.push(Duration::ZERO, 0u8, &header, fragment, payload));
        }
        let given_up = reassembler.pop_incomplete(Duration::from_secs(1));
        let counters = reassembler.counters();
        if lost {
            prop_assert!(whole.is_empty());
            prop_assert_eq!(counters.completed, 0);
            prop_assert_eq!(counters.incomplete, u64::from(arrived > 0));
            prop_assert_eq!(given_up.is_some(), arrived > 0);
            if let Some(message) = given_up {
                prop_assert!(message.missing_bytes > 0);
                let (_, joined) = parse_header(&message.datagram).expect("own header");
                prop_assert_eq!(joined.len(), body.len());
            }
        } else {
            prop_assert_eq!(whole.len(), 1);
            let (_, joined) = parse_header(&whole[0].datagram).expect("own header");
            prop_assert_eq!(joined, &body);
            prop_assert_eq!(counters.duplicates as usize, arrived - sent.len());
            prop_assert_eq!(given_up, None);
        }
    }

    #[test]
    fn no_input_makes_the_decoder_panic(
        line in prop_oneof![
            vec(any::<u8>(), 0..1200),
            "[0-9a-f.,;=+c\\\\x\n -]{0,200}".prop_map(String::into_bytes),
            "[67],[0-9]{1,3},[0-9]{1,3},[-c](,(ncfrag=[0-9]{1,4}/[0-9]{1,6}|ncemg=1|caller=[TC]1)){0,2};.{0,90}(\n( [A-Z]{1,3}(=[a-z\\\\]{0,4})?)){0,3}"
                .prop_map(String::into_bytes),
        ],
        limit in 0..1200usize,
        size in 0..1200usize,
    ) {
        let mut buf = vec![0; size];
        let _ = parse_record(&line, limit, &mut buf);
        if let Ok((header, body)) = parse_header(&line) {
            prop_assert!(header.prio <= 2047 && header.level() < 8);
            let (text, dict) = split_body(body);
            prop_assert!(text.len() <= body.len());
            prop_assert!(dict.count() <= body.len());
            if let Some(fragment) = header.fragment {
                prop_assert!(fragment.offset_bytes + body.len() <= fragment.total_bytes);
                prop_assert!(fragment.total_bytes <= MESSAGE_MAX_BYTES);
                let mut reassembler = Reassembler::new(Limits::default());
                reassembler.push(Duration::ZERO, 0u8, &header, fragment, body);
            }
        }
    }

    #[test]
    fn each_key_has_one_line_whatever_its_value_holds(
        owned in records(),
        names in [bytes(300), bytes(300), bytes(40), bytes(300), bytes(80)],
    ) {
        let [cgroup, unit, nic, host, leaf] = &names;
        let mut format = Format::extended(b"7.2.12");
        format.sysdata = SysdataKey::ALL.into_iter().collect();
        format.host = HostLines::new(format.sysdata, 0, |_| Some(host));
        let extras = Extras { cgroup: Some(cgroup), unit: Some(unit), nic };
        let mut record = Record { text: b"x", subsystem: b"", device: b"", ..owned.record() };
        let context = record.context.as_mut().expect("records have one");
        context.cgroup = leaf;
        let mut body = Vec::new();
        for datagram in datagrams_with(&record, &format, &extras) {
            body.extend_from_slice(parse_header(&datagram).expect("own header").1);
        }
        prop_assert!(!body.contains(&0));
        let is_known = |key: &SysdataKey| match key {
            SysdataKey::Cgroup => !cgroup.is_empty(),
            SysdataKey::Unit => !unit.is_empty(),
            SysdataKey::Nic => !nic.is_empty(),
            SysdataKey::Hostname | SysdataKey::BootId | SysdataKey::Livepatch
            | SysdataKey::Taint | SysdataKey::Thp | SysdataKey::SchedExt => !host.is_empty(),
            _ => true,
        };
        let keys = SysdataKey::ALL.iter().filter(|key| is_known(key));
        let mut lines = body.split_inclusive(|&b| b == b'\n');
        prop_assert_eq!(lines.next(), Some(b"x\n".as_slice()));
        for key in keys {
            let line = lines.next().expect("its line");
            let begin = format!(" {}=", key.name());
            prop_assert!(line.starts_with(begin.as_bytes()));
            prop_assert!(line.ends_with(b"\n") && line.len() <= key.line_max_bytes());
        }
        prop_assert_eq!(lines.next(), None);
    }

    #[test]
    fn unescape_writes_no_more_than_it_reads(text in vec(any::<u8>(), 0..200)) {
        let mut out = vec![0; text.len()];
        prop_assert!(escape::unescape_into(&text, &mut out) <= text.len());
        prop_assert!(escape::unescape_cut_into(&text, &mut out) <= text.len());
    }
}
