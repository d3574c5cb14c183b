//! Metrics as any scraper would get and read them: plain HTTP/1.1 over any stream, and the
//! OpenMetrics text. What is read strictly here is what Prometheus reads.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{Read, Write},
};

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Such as 200.
    pub status: u16,
    /// Status line and headers.
    pub head: String,
    /// What follows.
    pub body: String,
}

/// Asks for a page; `None` if the other end hangs up without an answer.
#[must_use]
pub fn request(mut stream: impl Read + Write, method: &str, path: &str) -> Option<Answer> {
    let text = format!("{method} {path} HTTP/1.1\r\nHost: agent\r\n\r\n");
    stream.write_all(text.as_bytes()).ok()?;
    read_answer(stream)
}

/// Reads an answer up to its end.
#[must_use]
pub fn read_answer(mut stream: impl Read) -> Option<Answer> {
    let mut bytes = Vec::new();
    let mut part = [0; 4096];
    loop {
        match stream.read(&mut part) {
            Ok(0) => break,
            Ok(len) => bytes.extend_from_slice(&part[..len]),
            // Reset with our bytes unread counts as closed.
            Err(_) => break,
        }
    }
    let text = String::from_utf8(bytes).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split_whitespace().nth(1)?.parse().ok()?;
    Some(Answer { status, head: head.to_owned(), body: body.to_owned() })
}

/// The series of an exposition.
#[derive(Clone, Debug)]
pub struct Series(BTreeMap<String, f64>);

impl Series {
    /// Reads an exposition, and checks that it is one: metadata before its series, each metric
    /// in one piece, each series once, suffixes by the type, the end marked.
    ///
    /// # Panics
    /// If it is none.
    #[must_use]
    pub fn read(text: &str) -> Self {
        let text = text.strip_suffix("# EOF\n").expect("the end is marked");
        let mut families = BTreeSet::new();
        let mut series = BTreeMap::new();
        let (mut name, mut kind) = ("", "");
        for line in text.lines() {
            if let Some(meta) = line.strip_prefix("# ") {
                let mut words = meta.splitn(3, ' ');
                let mut word = || words.next().unwrap_or_else(|| panic!("{line}"));
                match (word(), word(), word()) {
                    ("HELP", of, help) => {
                        assert!(families.insert(of), "{of} comes twice");
                        assert!(!help.is_empty(), "{line}");
                        (name, kind) = (of, "");
                    }
                    ("TYPE", of, as_kind) => {
                        assert_eq!((of, kind), (name, ""), "{line}");
                        kind = as_kind;
                    }
                    ("UNIT", of, unit) => {
                        assert!(of == name && of.ends_with(unit), "{line}");
                    }
                    _ => panic!("{line}"),
                }
                continue;
            }
            let (id, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
            let value: f64 = value.parse().unwrap_or_else(|_| panic!("{line}"));
            let bare = id.split('{').next().unwrap_or_default();
            let suffix = bare.strip_prefix(name).unwrap_or_else(|| panic!("{line} after {name}"));
            let allowed: &[&str] = match kind {
                "counter" => &["_total"],
                "gauge" => &[""],
                "info" => &["_info"],
                "histogram" => &["_bucket", "_sum", "_count"],
                other => panic!("{other:?} is no type: {line}"),
            };
            assert!(allowed.contains(&suffix), "{line} of a {kind}");
            assert!(kind != "counter" || value >= 0.0, "{line}");
            assert_eq!(series.insert(id.to_owned(), value), None, "{id} comes twice");
        }
        Self(series)
    }

    /// The value of a series, such as `records_sent_total{target="x"}`, without the prefix.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn get(&self, series: &str) -> f64 {
        let name = format!("netconsole_agent_{series}");
        *self.0.get(&name).unwrap_or_else(|| panic!("no {name} in {:#?}", self.0))
    }
}
