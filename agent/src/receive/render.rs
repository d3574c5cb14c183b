//! Events as lines: for people, much like `dmesg`, or as JSON.
//!
//! Nothing that a sender puts into a record reaches the terminal as a control
//! character: such characters, those that turn the writing direction, and bytes
//! that are no UTF-8 are shown as `\xNN` (in JSON as `\u00NN`).

use std::fmt::Write as _;

use serde::Serialize;

use super::{Event, Received, Summary};
use crate::record::Caller;

const LEVELS: [&str; 8] = ["emerg", "alert", "crit", "err", "warn", "notice", "info", "debug"];
const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv",
    "ftp", "ntp", "security", "console", "clock", "local0", "local1", "local2", "local3", "local4",
    "local5", "local6", "local7",
];

/// One event for people to read, each of its lines with a newline.
#[must_use]
pub fn text(event: &Event) -> String {
    match event {
        Event::Record(source, record) => record_text(&source.to_string(), record),
        Event::Plain(source, text) => lines(&format!("{source} - - "), text, ""),
        Event::Gap { source, first_seq, last_seq } => {
            let count = (last_seq - first_seq).saturating_add(1);
            let (noun, range) = if count == 1 {
                ("record", first_seq.to_string())
            } else {
                ("records", format!("{first_seq}..{last_seq}"))
            };
            format!("{source} -- {count} {noun} missing: seq {range} --\n")
        }
        Event::Restart(source) => format!("{source} -- the sequence starts anew: rebooted --\n"),
    }
}

fn record_text(source: &str, record: &Received) -> String {
    let facility = FACILITIES.get(usize::from(record.facility));
    let facility = facility.map_or_else(|| record.facility.to_string(), ToString::to_string);
    let level = LEVELS[usize::from(record.level & 7)];
    let (seconds, micros) = (record.ts_us / 1_000_000, record.ts_us % 1_000_000);
    let mut prefix =
        format!("{source} {} {facility}.{level} [{seconds:5}.{micros:06}]", record.seq);
    if let Some(caller) = record.caller {
        // Writing to a String cannot fail.
        let _ = write!(prefix, "[{:>6}]", caller_text(caller));
    }
    prefix.push(' ');

    let mut notes = String::new();
    if !record.dict.is_empty() {
        let entries = record.dict.iter().map(|(key, value)| match value {
            Some(value) => format!("{}={}", printable(key), printable(value)),
            None => printable(key),
        });
        let _ = write!(notes, "  {{{}}}", entries.collect::<Vec<_>>().join(" "));
    }
    if let Some(release) = &record.release {
        let _ = write!(notes, " ({})", printable(release));
    }
    if record.approximated {
        notes.push_str(" (approximated)");
    }
    if record.late {
        notes.push_str(" (late)");
    }
    if record.missing_bytes > 0 {
        let _ = write!(notes, " ({} bytes missing)", record.missing_bytes);
    }
    lines(&prefix, &record.text, &notes)
}

/// The lines of a text: the first with the prefix, the others indented, so that
/// no text can pass for a further record.
fn lines(prefix: &str, text: &[u8], notes: &str) -> String {
    let mut out = String::from(prefix);
    for (index, line) in text.split(|&byte| byte == b'\n').enumerate() {
        if index > 0 {
            let _ = write!(out, "\n{:indent$}", "", indent = prefix.chars().count());
        }
        out.push_str(&printable(line));
    }
    out.push_str(notes);
    out.push('\n');
    out
}

fn caller_text(caller: Caller) -> String {
    match caller {
        Caller::Task(id) => format!("T{id}"),
        Caller::Cpu(id) => format!("C{id}"),
    }
}

/// The text with all that is unfit for a terminal as `\xNN`. Tabs stay.
pub(crate) fn printable(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for char in chunk.valid().chars() {
            if char != '\t' && is_unfit(char) {
                escape_bytes(char.encode_utf8(&mut [0; 4]).as_bytes(), &mut out);
            } else {
                out.push(char);
            }
        }
        escape_bytes(chunk.invalid(), &mut out);
    }
    out
}

/// The text with bytes that are no UTF-8 as `\xNN`.
pub(super) fn utf8(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        out.push_str(chunk.valid());
        escape_bytes(chunk.invalid(), &mut out);
    }
    out
}

fn escape_bytes(bytes: &[u8], out: &mut String) {
    for byte in bytes {
        let _ = write!(out, "\\x{byte:02x}");
    }
}

/// Controls, and what changes how the text around it is shown.
fn is_unfit(char: char) -> bool {
    char.is_control()
        || matches!(char, '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{2069}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
}

/// A record or plain text. `null` where plain text has no such field.
#[derive(Default, Serialize)]
struct JsonRecord {
    source: String,
    release: Option<String>,
    prio: Option<u16>,
    facility: Option<u8>,
    level: Option<u8>,
    seq: Option<u64>,
    ts_us: Option<u64>,
    flag: Option<char>,
    caller: Option<String>,
    approx: bool,
    text: String,
    /// The bytes of the text, if they are no UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    text_hex: Option<String>,
    dict: Vec<JsonEntry>,
    fragments: u32,
    missing_bytes: usize,
    late: bool,
}

#[derive(Serialize)]
struct JsonEntry {
    key: String,
    value: Option<String>,
}

/// One event as a JSON object on a line of its own.
#[must_use]
pub fn json(event: &Event) -> String {
    match event {
        Event::Record(source, record) => json_line(&JsonRecord {
            source: source.to_string(),
            release: record.release.as_deref().map(utf8),
            prio: Some(u16::from(record.facility) << 3 | u16::from(record.level)),
            facility: Some(record.facility),
            level: Some(record.level),
            seq: Some(record.seq),
            ts_us: Some(record.ts_us),
            flag: Some(record.flag.as_char()),
            caller: record.caller.map(caller_text),
            approx: record.approximated,
            text: utf8(&record.text),
            text_hex: hex_unless_utf8(&record.text),
            dict: record
                .dict
                .iter()
                .map(|(key, value)| JsonEntry { key: utf8(key), value: value.as_deref().map(utf8) })
                .collect(),
            fragments: record.fragments,
            missing_bytes: record.missing_bytes,
            late: record.late,
        }),
        Event::Plain(source, text) => json_line(&JsonRecord {
            source: source.to_string(),
            text: utf8(text),
            text_hex: hex_unless_utf8(text),
            fragments: 1,
            ..JsonRecord::default()
        }),
        Event::Gap { source, first_seq, last_seq } => json_line(&serde_json::json!({"gap": {
            "source": source.to_string(),
            "first_seq": first_seq,
            "last_seq": last_seq,
            "count": (last_seq - first_seq).saturating_add(1),
        }})),
        Event::Restart(source) => {
            json_line(&serde_json::json!({"restart": {"source": source.to_string()}}))
        }
    }
}

/// The summary for people.
#[must_use]
pub fn summary_text(summary: &Summary) -> String {
    let line = format!(
        "-- {} and {} in {} from {}; {} missing",
        counted(summary.records, "record"),
        counted(summary.plain, "plain line"),
        counted(summary.datagrams, "datagram"),
        counted(summary.sources, "source"),
        summary.missing
    );
    let rest = [
        (summary.incomplete, "incomplete"),
        (summary.late, "late"),
        (summary.duplicates, "repeated"),
        (summary.restarts, "restarts"),
    ];
    summary_line(line, &rest)
}

/// A number of things, in words.
pub(super) fn counted(count: u64, noun: &str) -> String {
    match count {
        1 => format!("1 {noun}"),
        _ => format!("{count} {noun}s"),
    }
}

/// Ends the line of a summary with what there is of the rest.
pub(super) fn summary_line(mut line: String, rest: &[(u64, &str)]) -> String {
    for (count, what) in rest.iter().filter(|(count, _)| *count > 0) {
        let _ = write!(line, ", {count} {what}");
    }
    line + " --\n"
}

/// The summary as a JSON object on a line of its own.
#[must_use]
pub fn summary_json(summary: &Summary) -> String {
    json_line(&serde_json::json!({ "summary": summary }))
}

pub(super) fn json_line(value: &impl Serialize) -> String {
    // Strings and numbers only: there is nothing in it that could fail.
    let json = serde_json::to_string(value).unwrap_or_default();
    let mut line = String::with_capacity(json.len() + 1);
    // serde_json escapes the controls below 0x20; the others that a terminal may
    // heed stand in strings as they are. All of them are in the first plane.
    for char in json.chars() {
        if is_unfit(char) {
            let _ = write!(line, "\\u{:04x}", u32::from(char));
        } else {
            line.push(char);
        }
    }
    line.push('\n');
    line
}

fn hex_unless_utf8(bytes: &[u8]) -> Option<String> {
    std::str::from_utf8(bytes).is_err().then(|| {
        let mut hex = String::with_capacity(bytes.len() * 2);
        for byte in bytes {
            let _ = write!(hex, "{byte:02x}");
        }
        hex
    })
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;
    use crate::netconsole::Flag;

    const SOURCE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 2, 15));

    fn record(text: &[u8]) -> Received {
        Received {
            release: None,
            facility: 0,
            level: 6,
            seq: 437,
            ts_us: 6_377_716,
            flag: Flag::Whole,
            caller: None,
            approximated: false,
            text: text.to_vec(),
            dict: Vec::new(),
            fragments: 1,
            missing_bytes: 0,
            late: false,
        }
    }

    fn event(record: Received) -> Event {
        Event::Record(SOURCE, Box::new(record))
    }

    #[test]
    fn a_record_reads_like_dmesg() {
        assert_eq!(
            text(&event(record(b"e1000e: Intel(R)"))),
            "10.0.2.15 437 kern.info [    6.377716] e1000e: Intel(R)\n"
        );
        let full = Received {
            release: Some(b"6.1.0".to_vec()),
            facility: 30,
            level: 0,
            caller: Some(Caller::Task(17)),
            approximated: true,
            dict: vec![(b"DEVICE".to_vec(), Some(b"n2".to_vec())), (b"x".to_vec(), None)],
            missing_bytes: 3,
            late: true,
            ..record(b"two\nlines")
        };
        assert_eq!(
            text(&event(full)),
            "10.0.2.15 437 30.emerg [    6.377716][   T17] two\n\
             \u{20}                                             \
             lines  {DEVICE=n2 x} (6.1.0) (approximated) (late) (3 bytes missing)\n"
        );
        let plain = Event::Plain(SOURCE, b"[    1.0] hi".to_vec());
        assert_eq!(text(&plain), "10.0.2.15 - - [    1.0] hi\n");
    }

    #[test]
    fn gaps_and_restarts_are_lines() {
        let gap = |first_seq, last_seq| Event::Gap { source: SOURCE, first_seq, last_seq };
        assert_eq!(text(&gap(10, 12)), "10.0.2.15 -- 3 records missing: seq 10..12 --\n");
        assert_eq!(text(&gap(10, 10)), "10.0.2.15 -- 1 record missing: seq 10 --\n");
        assert_eq!(
            json(&gap(10, 12)),
            "{\"gap\":{\"count\":3,\"first_seq\":10,\"last_seq\":12,\"source\":\"10.0.2.15\"}}\n"
        );
        assert!(text(&Event::Restart(SOURCE)).contains("anew"));
        assert!(json(&Event::Restart(SOURCE)).starts_with("{\"restart\""));
        // The range of all numbers is one more than a u64 holds.
        assert!(text(&gap(0, u64::MAX)).contains("records missing"));
    }

    #[test]
    fn json_has_every_field_and_keeps_the_bytes() {
        let line = json(&event(Received {
            caller: Some(Caller::Cpu(2)),
            dict: vec![(b"cpu".to_vec(), Some(b"1".to_vec()))],
            ..record(b"a\xff\"\n")
        }));
        assert_eq!(
            line,
            "{\"source\":\"10.0.2.15\",\"release\":null,\"prio\":6,\"facility\":0,\"level\":6,\
             \"seq\":437,\"ts_us\":6377716,\"flag\":\"-\",\"caller\":\"C2\",\"approx\":false,\
             \"text\":\"a\\\\xff\\\"\\n\",\"text_hex\":\"61ff220a\",\
             \"dict\":[{\"key\":\"cpu\",\"value\":\"1\"}],\"fragments\":1,\
             \"missing_bytes\":0,\"late\":false}\n"
        );
        let plain = json(&Event::Plain(SOURCE, b"x".to_vec()));
        assert!(plain.contains("\"seq\":null") && plain.contains("\"text\":\"x\""));
    }

    #[test]
    fn nothing_commands_the_terminal() {
        // Every control, C1 as bytes and as UTF-8, and a direction override.
        let mut hostile: Vec<u8> = (0..=255).collect();
        hostile.extend("\u{9b}31m\u{202e}\u{7f}\u{2028}\u{feff}".as_bytes());
        let all = Received {
            release: Some(hostile.clone()),
            dict: vec![(hostile.clone(), Some(hostile.clone()))],
            ..record(&hostile)
        };
        for event in [event(all), Event::Plain(SOURCE, hostile)] {
            for line in [text(&event), json(&event)] {
                let bad = |c: char| is_unfit(c) && c != '\n' && c != '\t';
                assert!(!line.contains(bad), "{line:?}");
            }
            let line = json(&event);
            assert_eq!(line.matches('\n').count(), 1);
            assert!(serde_json::from_str::<serde_json::Value>(&line).is_ok());
        }
    }

    #[test]
    fn the_summary_names_what_there_was() {
        let summary = Summary {
            datagrams: 5,
            records: 3,
            plain: 1,
            sources: 2,
            missing: 4,
            late: 1,
            ..Summary::default()
        };
        assert_eq!(
            summary_text(&summary),
            "-- 3 records and 1 plain line in 5 datagrams from 2 sources; 4 missing, 1 late --\n"
        );
        assert!(summary_json(&summary).starts_with("{\"summary\":{\"datagrams\":5,"));
    }
}
