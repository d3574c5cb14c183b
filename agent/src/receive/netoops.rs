//! Dumps as lines and file names: for people, or as JSON.
//!
//! Pure; the files are written by `cli::receive`. Nothing of a name comes from a packet but
//! numbers, and what a line shows of a packet holds no control characters (`render`).

use std::fmt::Write as _;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::SystemTime;

use serde::Serialize;

use super::render::{counted, json_line, printable, summary_line, utf8};
use crate::netoops::Assembled;
use crate::netoops::wire::arch_name;

/// Ranges of missing packets that a line for people names.
const RANGES_SHOWN: usize = 8;

/// What has been received so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Datagrams taken.
    pub datagrams: u64,
    /// Dumps told, the incomplete ones included.
    pub dumps: u64,
    /// Of these, dumps with packets missing.
    pub incomplete: u64,
    /// Of these, dumps whose file could not be written.
    pub not_written: u64,
    /// Datagrams that are no packets of a dump.
    pub refused: u64,
    /// Packets that came again.
    pub repeated: u64,
    /// Packets that contradicted earlier ones.
    pub conflicting: u64,
}

/// Name of a dump's file: source, number and kind of the dump, the time of its end in UTC, and
/// behind that which `attempt` it is, from 1 on. It has only letters, digits, `-`, `_` and `.`, and
/// no colon, so that `scp` does not take it for a host.
#[must_use]
pub fn file_name(dump: &Assembled<IpAddr>, at: SystemTime, attempt: u32) -> String {
    let source = dump.source.to_string().replace(':', "_");
    // humantime knows no time before 1970.
    let at = humantime::format_rfc3339_seconds(at.max(SystemTime::UNIX_EPOCH)).to_string();
    let at = at.replace(['-', ':'], "");
    let mut name = format!("netoops-{source}-{:05}-{}-{at}", dump.dump_id, dump.kind.name());
    if attempt > 1 {
        // Writing to a String cannot fail.
        let _ = write!(name, "-{attempt}");
    }
    name + ".txt"
}

/// One dump for people to read, with a newline; without a path it could not be written.
#[must_use]
pub fn text(dump: &Assembled<IpAddr>, path: Option<&Path>) -> String {
    let mut line = format!("{} dump {} {}", dump.source, dump.dump_id, dump.kind.name());
    let _ = write!(line, ", kernel {}", printable(&dump.kernel_release));
    if let Some(arch) = arch_name(dump.arch) {
        let _ = write!(line, " ({arch})");
    }
    let _ = write!(line, ": {} of {} packets", dump.received, dump.packet_count);
    if !dump.missing.is_empty() {
        let shown: Vec<_> = dump.missing.iter().take(RANGES_SHOWN).map(range_text).collect();
        let _ = write!(line, ", missing {}", shown.join(", "));
        if dump.missing.len() > RANGES_SHOWN {
            line.push_str(", …");
        }
    }
    if dump.conflicting > 0 {
        let _ = write!(line, ", {} conflicting", dump.conflicting);
    }
    match path {
        Some(path) => {
            let _ = write!(line, ", {}", printable(path.as_os_str().as_encoded_bytes()));
        }
        None => line.push_str(", not written"),
    }
    line.push('\n');
    line
}

fn range_text(range: &RangeInclusive<u32>) -> String {
    if range.start() == range.end() {
        range.start().to_string()
    } else {
        format!("{}..{}", range.start(), range.end())
    }
}

#[derive(Serialize)]
struct JsonDump {
    source: String,
    dump_id: u16,
    kind: &'static str,
    arch: u16,
    kernel: String,
    packets: u32,
    received: u32,
    missing: Vec<[u32; 2]>,
    repeated: u64,
    conflicting: u64,
    text_bytes: usize,
    path: Option<String>,
}

/// One dump as a JSON object on a line of its own; `missing` has the first and the last number
/// of each gap.
#[must_use]
pub fn json(dump: &Assembled<IpAddr>, path: Option<&Path>) -> String {
    json_line(&JsonDump {
        source: dump.source.to_string(),
        dump_id: dump.dump_id,
        kind: dump.kind.name(),
        arch: dump.arch,
        kernel: utf8(&dump.kernel_release),
        packets: dump.packet_count,
        received: dump.received,
        missing: dump.missing.iter().map(|range| [*range.start(), *range.end()]).collect(),
        repeated: dump.repeated,
        conflicting: dump.conflicting,
        text_bytes: dump.text.len(),
        path: path.map(|path| utf8(path.as_os_str().as_encoded_bytes())),
    })
}

/// The summary for people.
#[must_use]
pub fn summary_text(summary: &Summary) -> String {
    let dumps = counted(summary.dumps, "dump");
    let line = format!("-- {dumps} in {}", counted(summary.datagrams, "datagram"));
    let rest = [
        (summary.incomplete, "incomplete"),
        (summary.not_written, "not written"),
        (summary.repeated, "repeated"),
        (summary.conflicting, "conflicting"),
        (summary.refused, "refused"),
    ];
    summary_line(line, &rest)
}

/// The summary as a JSON object on a line of its own.
#[must_use]
pub fn summary_json(summary: &Summary) -> String {
    json_line(&serde_json::json!({ "summary": summary }))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::netoops::Kind;

    fn dump(source: &str) -> Assembled<IpAddr> {
        Assembled {
            source: source.parse().expect("an address"),
            dump_id: 42,
            kind: Kind::Hard,
            arch: 2,
            kernel_release: b"6.12.48".to_vec(),
            packet_count: 64,
            received: 64,
            missing: Vec::new(),
            repeated: 128,
            conflicting: 0,
            text: b"hello\n".to_vec(),
        }
    }

    #[test]
    fn a_file_name_has_nothing_from_a_packet_but_numbers() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        assert_eq!(
            file_name(&dump("192.0.2.7"), at, 1),
            "netoops-192.0.2.7-00042-hard-20231114T221320Z.txt"
        );
        let soft = Assembled {
            kind: Kind::Soft,
            kernel_release: b"../../etc/passwd".to_vec(),
            ..dump("2001:db8::2")
        };
        assert_eq!(
            file_name(&soft, at, 3),
            "netoops-2001_db8__2-00042-soft-20231114T221320Z-3.txt"
        );
        let before = SystemTime::UNIX_EPOCH - Duration::from_secs(1);
        assert!(file_name(&soft, before, 1).ends_with("-19700101T000000Z.txt"));
    }

    #[test]
    fn a_line_tells_what_there_is_and_what_is_missing() {
        let path = Path::new("/var/crash/x.txt");
        assert_eq!(
            text(&dump("192.0.2.7"), Some(path)),
            "192.0.2.7 dump 42 hard, kernel 6.12.48 (x86): 64 of 64 packets, /var/crash/x.txt\n"
        );
        let holes = Assembled {
            arch: 77,
            received: 60,
            missing: vec![0..=0, 5..=7],
            conflicting: 2,
            ..dump("192.0.2.7")
        };
        assert_eq!(
            text(&holes, None),
            "192.0.2.7 dump 42 hard, kernel 6.12.48: 60 of 64 packets, missing 0, 5..7, \
             2 conflicting, not written\n"
        );
        let many = Assembled { missing: (0..9).map(|no| 2 * no..=2 * no).collect(), ..holes };
        assert!(text(&many, None).contains("missing 0, 2, 4, 6, 8, 10, 12, 14, …, 2"));
    }

    #[test]
    fn json_has_every_field() {
        let holes = Assembled { received: 60, missing: vec![0..=0, 5..=7], ..dump("192.0.2.7") };
        assert_eq!(
            json(&holes, Some(Path::new("/var/crash/x.txt"))),
            "{\"source\":\"192.0.2.7\",\"dump_id\":42,\"kind\":\"hard\",\"arch\":2,\
             \"kernel\":\"6.12.48\",\"packets\":64,\"received\":60,\"missing\":[[0,0],[5,7]],\
             \"repeated\":128,\"conflicting\":0,\"text_bytes\":6,\"path\":\"/var/crash/x.txt\"}\n"
        );
        assert!(json(&holes, None).contains("\"path\":null"));
    }

    #[test]
    fn nothing_commands_the_terminal() {
        let mut release: Vec<u8> = (1..64).collect();
        release.extend("\u{9b}31m\u{202e}\x7f".as_bytes());
        let hostile = Assembled { kernel_release: release, ..dump("192.0.2.7") };
        for line in [text(&hostile, None), json(&hostile, None)] {
            let line = line.strip_suffix('\n').expect("a line");
            assert!(!line.contains(|c: char| c != '\t' && c.is_control()), "{line:?}");
            assert!(!line.contains('\u{202e}'), "{line:?}");
        }
    }

    #[test]
    fn the_summary_names_what_there_was() {
        let summary = Summary { datagrams: 7, dumps: 1, refused: 2, ..Summary::default() };
        assert_eq!(summary_text(&summary), "-- 1 dump in 7 datagrams, 2 refused --\n");
        let json: serde_json::Value = serde_json::from_str(&summary_json(&summary)).expect("JSON");
        assert_eq!(json["summary"]["datagrams"], 7);
    }
}
