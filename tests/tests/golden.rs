//! The wire format against real kernels: what their netconsole sent, decoded
//! into records and encoded again with the settings of the same target, is the
//! same bytes. No capture shows a defect of a kernel, so no difference is
//! excused. How the data was made is told in `golden/README.md`.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::time::Duration;

use netconsole_agent::netconsole::decode::{parse_record, split_body};
use netconsole_agent::netconsole::format::{record_limit_bytes, userdata};
use netconsole_agent::netconsole::{
    Encoder, Extras, Format, Limits, Reassembler, SysdataKey, escape, parse_header,
};
use netconsole_agent::record::{Context, Record};
use serde::Deserialize;

const KERNELS: [&str; 3] = ["6.1.0-56-amd64", "6.12.95+deb12-amd64", "7.2.12+deb13-amd64"];
const CAPTURES: [&str; 3] = ["run", "panic", "panic-reboot"];

#[derive(Deserialize)]
struct Line {
    port: u16,
    hex: String,
}

fn unhex(hex: &str) -> Vec<u8> {
    hex.as_bytes()
        .chunks(2)
        .map(|pair| {
            let pair = std::str::from_utf8(pair).expect("ASCII");
            u8::from_str_radix(pair, 16).expect("hex digits")
        })
        .collect()
}

fn golden(name: &str) -> String {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "golden", name].iter().collect();
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Datagrams of one capture by port, in order.
fn capture(kernel: &str, name: &str) -> BTreeMap<u16, Vec<Vec<u8>>> {
    let mut ports = BTreeMap::<u16, Vec<Vec<u8>>>::new();
    for line in golden(&format!("{kernel}/{name}.jsonl")).lines() {
        let line: Line = serde_json::from_str(line).expect("a captured datagram");
        ports.entry(line.port).or_default().push(unhex(&line.hex));
    }
    ports
}

/// A record with what the target added to it.
#[derive(Debug)]
struct Decoded {
    line: Vec<u8>,
    cpu: Option<u32>,
    task: Vec<u8>,
    msgid: Option<u32>,
    /// The datagrams that it came in.
    datagrams: Vec<Vec<u8>>,
}

impl Decoded {
    /// Undoes the format of the target: joins, strips the release and the lines
    /// that are not the record's.
    fn new(message: &[u8], datagrams: Vec<Vec<u8>>) -> Self {
        let (header, body) = parse_header(message).expect("a header");
        let skip = header.release.map_or(0, |release| release.len() + 1);
        let mut line = header.raw[skip..].to_vec();
        line.push(b';');
        let (text, dict) = split_body(body);
        line.extend_from_slice(text);
        line.push(b'\n');
        let mut decoded =
            Self { line: Vec::new(), cpu: None, task: Vec::new(), msgid: None, datagrams };
        for entry in dict {
            let value = entry.value.expect("a value");
            let number = || std::str::from_utf8(value).expect("text").parse().expect("number");
            match entry.key {
                b"SUBSYSTEM" | b"DEVICE" => {
                    line.push(b' ');
                    line.extend_from_slice(entry.key);
                    line.push(b'=');
                    line.extend_from_slice(value);
                    line.push(b'\n');
                }
                b"cpu" => decoded.cpu = Some(number()),
                b"taskname" => decoded.task = value.to_vec(),
                b"msgid" => decoded.msgid = Some(number()),
                b"site" | b"role" | b"release" => {}
                key => panic!("unexpected entry {}", String::from_utf8_lossy(key)),
            }
        }
        decoded.line = line;
        decoded
    }

    fn record<'a>(&'a self, kernel: &str, buf: &'a mut [u8]) -> Record<'a> {
        let limit = record_limit_bytes(kernel.as_bytes());
        let mut record = parse_record(&self.line, limit, buf).expect("a record");
        record.context = self.cpu.map(|cpu| Context {
            cpu,
            pid: 0,
            task: &self.task,
            cgroup_id: 0,
            cgroup: b"",
        });
        record
    }
}

/// Decodes the datagrams of one extended target; fails if a fragment is missing.
fn decode(datagrams: &[Vec<u8>]) -> Vec<Decoded> {
    let mut reassembler = Reassembler::new(Limits::default());
    let mut fragments = Vec::new();
    let mut all = Vec::new();
    for datagram in datagrams {
        let (header, body) = parse_header(datagram).expect("an extended datagram");
        let Some(fragment) = header.fragment else {
            all.push(Decoded::new(datagram, vec![datagram.clone()]));
            continue;
        };
        fragments.push(datagram.clone());
        let whole = reassembler.push(Duration::ZERO, (), &header, fragment, body);
        if let Some(message) = whole {
            let came_in = std::mem::take(&mut fragments);
            all.push(Decoded::new(&message.datagram, came_in));
        }
    }
    assert!(fragments.is_empty(), "a message lacks fragments");
    all
}

fn encode(record: &Record<'_>, format: &Format, msgid: u32) -> Vec<Vec<u8>> {
    let mut encoder = Encoder::new();
    let mut datagrams = encoder.encode(record, format, msgid, &Extras::default());
    let mut all = Vec::with_capacity(datagrams.count());
    let mut frame = [0; 1500];
    while let Some(len) = datagrams.write_next(&mut frame) {
        all.push(frame[..len].to_vec());
    }
    all
}

/// The settings of the extended target behind that port, as far as that kernel
/// knows them.
fn extended_format(kernel: &str, port: u16) -> Format {
    let mut format = Format::extended(kernel.as_bytes());
    let knows_release = !kernel.starts_with("6.1.");
    format.release_prefix = port == 6664 && knows_release;
    if port == 6665 && knows_release {
        format.userdata =
            userdata([("site", "fra1 rack=7"), ("role", "db")]).expect("valid userdata");
    }
    let knows_sysdata = kernel.starts_with("7.");
    if port == 6665 && knows_sysdata {
        format.sysdata = SysdataKey::ALL[..4].iter().copied().collect();
    }
    format
}

/// Compares as text, because that is readable when it fails.
fn compare(what: &str, ours: &[Vec<u8>], theirs: &[Vec<u8>]) {
    if ours != theirs {
        let text = |d: &Vec<u8>| d.escape_ascii().to_string();
        let ours: Vec<_> = ours.iter().map(text).collect();
        let theirs: Vec<_> = theirs.iter().map(text).collect();
        assert_eq!(ours, theirs, "{what}");
    }
}

#[test]
fn every_captured_record_is_encoded_as_the_kernel_did() {
    let mut compared = BTreeMap::<&str, usize>::new();
    for kernel in KERNELS {
        for name in CAPTURES {
            let ports = capture(kernel, name);
            for (&port, datagrams) in &ports {
                let count = if matches!(port, 6661 | 6662) {
                    compare_basic(kernel, name, port, datagrams, &ports[&6663])
                } else {
                    compare_extended(kernel, name, port, datagrams)
                };
                *compared.entry(kernel).or_default() += count;
            }
        }
    }
    // Nothing of the captures may fall out of the comparison unseen.
    let all = |kernel: &str| -> usize {
        let captures = CAPTURES.map(|name| capture(kernel, name));
        captures.iter().flat_map(BTreeMap::values).map(Vec::len).sum()
    };
    assert_eq!(compared, KERNELS.map(|kernel| (kernel, all(kernel))).into());
}

/// Returns the number of datagrams compared.
fn compare_extended(kernel: &str, name: &str, port: u16, datagrams: &[Vec<u8>]) -> usize {
    let format = extended_format(kernel, port);
    let mut compared = 0;
    for (index, decoded) in decode(datagrams).iter().enumerate() {
        let mut buf = vec![0; decoded.line.len()];
        let record = decoded.record(kernel, &mut buf);
        // The kernel numbers the messages of a target from 1.
        let msgid = index as u32 + 1;
        assert!(decoded.msgid.is_none_or(|theirs| theirs == msgid));
        let ours = encode(&record, &format, msgid);
        let what = format!("{kernel} {name} port {port} seq {}", record.seq);
        compare(&what, &ours, &decoded.datagrams);
        compared += decoded.datagrams.len();
    }
    compared
}

/// Compares the basic target with the records of the extended one; returns the
/// number of datagrams compared.
fn compare_basic(
    kernel: &str,
    name: &str,
    port: u16,
    basic: &[Vec<u8>],
    extended: &[Vec<u8>],
) -> usize {
    let decoded = decode(extended);
    let mut by_time = BTreeMap::<u64, VecDeque<&Decoded>>::new();
    for decoded in &decoded {
        let ts_us = parse_header(&decoded.line).expect("a header").0.ts_us;
        by_time.entry(ts_us).or_default().push_back(decoded);
    }
    let extended_since = by_time.keys().next().copied();
    let format = Format::basic(kernel.as_bytes());
    let mut rest = basic;
    while let Some(first) = rest.first() {
        let (ts_us, text) = basic_line(first);
        let from_extended = by_time.get_mut(&ts_us).and_then(VecDeque::pop_front);
        let mut buf;
        let record = match from_extended {
            Some(decoded) => {
                buf = vec![0; decoded.line.len()];
                decoded.record(kernel, &mut buf)
            }
            // Logged before the extended target existed: only the layout of
            // the line can be compared.
            None => {
                assert!(extended_since.is_some_and(|since| ts_us < since));
                Record {
                    seq: 0,
                    ts_ns: ts_us * 1000,
                    facility: 0,
                    level: 6,
                    cont: false,
                    caller: None,
                    text,
                    subsystem: b"",
                    device: b"",
                    context: None,
                    approximated: false,
                    backfilled: false,
                }
            }
        };
        let ours = encode(&record, &format, 1);
        assert!(!ours.is_empty());
        let (theirs, later) = rest.split_at(ours.len().min(rest.len()));
        let what = format!("{kernel} {name} port {port} time {ts_us}");
        compare(&what, &ours, theirs);
        rest = later;
    }
    let unused: usize = by_time.values().map(VecDeque::len).sum();
    assert_eq!(unused, 0, "{kernel} {name} {port}: records without basic text");
    basic.len()
}

/// Time in microseconds and text of a line `[    3.374921] text`.
fn basic_line(line: &[u8]) -> (u64, &[u8]) {
    let end = line.iter().position(|&b| b == b']').expect("a time stamp");
    let digits: String =
        line[..end].iter().filter(|b| b.is_ascii_digit()).map(|&b| b as char).collect();
    let text = &line[end + 2..];
    (digits.parse().expect("a time"), text.strip_suffix(b"\n").unwrap_or(text))
}

#[derive(Deserialize)]
struct Kmsg {
    written: String,
    line: String,
}

#[test]
fn a_dev_kmsg_line_is_reproduced_from_what_was_written_and_from_itself() {
    let limit = 2048;
    let mut cut = 0;
    for line in golden("6.18.44/kmsg.jsonl").lines() {
        let case: Kmsg = serde_json::from_str(line).expect("a case");
        let (written, line) = (unhex(&case.written), unhex(&case.line));
        let mut buf = vec![0; line.len()];
        let decoded = parse_record(&line, limit, &mut buf).expect("a record");
        let original = Record { text: &written, ..decoded };
        if line.len() == limit {
            cut += 1;
        } else {
            assert_eq!(decoded, original);
        }
        for record in [decoded, original] {
            let ours = join(&encode(&record, &Format::extended(b"6.18.44"), 1));
            assert_eq!(String::from_utf8_lossy(&ours), String::from_utf8_lossy(&line));
        }
    }
    assert_eq!(cut, 42);
}

/// The record as it was before it was cut into datagrams.
fn join(datagrams: &[Vec<u8>]) -> Vec<u8> {
    if let [one] = datagrams {
        return one.clone();
    }
    let header = String::from_utf8_lossy(&datagrams[0]).into_owned();
    let end = header.find(",ncfrag=").expect("fragments");
    let bodies = datagrams.iter().map(|d| parse_header(d).expect("a header").1);
    let mut line = header.as_bytes()[..end].to_vec();
    line.push(b';');
    line.extend(bodies.flatten());
    line
}

#[test]
fn escapes_of_a_captured_line_are_undone() {
    let datagrams = &capture(KERNELS[2], "run")[&6663];
    let text = datagrams
        .iter()
        .map(|d| split_body(parse_header(d).expect("a header").1).0)
        .find(|text| text.starts_with(b"tab"))
        .expect("the line with escapes");
    let mut out = [0; 100];
    let len = escape::unescape_into(text, &mut out);
    assert_eq!(&out[..len], b"tab\there back\\slash bell\x07 hi\xff utf8 \xc3\xa9 end");
}
