//! How long a filter takes to decide upon one record.

use std::{hint::black_box, time::Duration};

use criterion::{Criterion, criterion_group, criterion_main};
use netconsole_agent::{
    record::{Context, Record},
    target::filter::{
        Decision, Filter, FilterError, FilterSpec,
        spec::{Action, Rate, Rule, TextMatch},
    },
};

const REGEXES: [&str; 5] = [
    r"martian source \d+\.\d+",
    r"^(usb|pci|nvme) [0-9:.-]+: ",
    r"segfault at [0-9a-f]+ ip .* in libfoo",
    r"(?i)link is (up|down)",
    r"EXT4-fs error \(device sd[a-z]\d*\)",
];
const TEXTS: [&str; 11] = [
    "martian destination",
    "audit: backlog",
    "TCP: request_sock",
    "UFW BLOCK",
    "nf_conntrack: table full",
    "apparmor=\"DENIED\"",
    "ACPI Error",
    "perf: interrupt took",
    "entered promiscuous",
    "thermal throttled",
    "IPv6: ADDRCONF",
];

fn rule() -> Rule {
    Rule {
        text: None,
        subsystem: None,
        device: None,
        task: None,
        cgroup: None,
        cpus: Vec::new(),
        action: Action::Drop,
    }
}

/// 20 rules, 5 of them regular expressions, 11 texts, 4 globs.
fn spec(rate: Option<Rate>) -> FilterSpec {
    let regexes = REGEXES.map(|regex| Some(TextMatch::Regex(regex.to_owned())));
    let texts = TEXTS.map(|text| Some(TextMatch::Contains(text.to_owned())));
    let texts = regexes.into_iter().chain(texts).map(|text| Rule { text, ..rule() });
    let globs = [
        Rule { subsystem: Some("usb*".to_owned()), ..rule() },
        Rule { device: Some("+pci:0000:3b:*".to_owned()), ..rule() },
        Rule { task: Some("kworker/*:noisy".to_owned()), ..rule() },
        Rule { cgroup: Some("/system.slice/**/noisy-*.service".to_owned()), ..rule() },
    ];
    FilterSpec {
        max_level: 7,
        facilities: Some(vec![0, 1]),
        rules: texts.chain(globs).collect(),
        rate,
    }
}

fn record(text: &[u8]) -> Record<'_> {
    Record {
        seq: 1_234_567,
        ts_ns: 123_456_789_012_345,
        facility: 0,
        level: 6,
        cont: false,
        caller: None,
        text,
        subsystem: b"pci",
        device: b"+pci:0000:00:03.0",
        context: Some(Context {
            cpu: 3,
            pid: 4711,
            task: b"kworker/3:1",
            cgroup_id: 1,
            cgroup: b"nginx.service",
        }),
        approximated: false,
        backfilled: false,
    }
}

fn repeat(piece: &[u8], len: usize) -> Vec<u8> {
    piece.iter().copied().cycle().take(len).collect()
}

fn decide(c: &mut Criterion) {
    let plain = b"e1000e 0000:00:03.0 eth1: (PCI Express:2.5GT/s:Width x1) 52:54:00:12:34:56 ";
    // Beginnings of the patterns, and bytes that the searches look for.
    let nearly = b"martian source 1 martian destinatio segfault at 1 ip EXT4-fs error (device sd";
    let rate = Rate { count: u32::MAX, period: Duration::from_secs(1) };
    let path = b"/system.slice/nginx.service";
    let measure = |c: &mut Criterion, name: &str, rate: Option<Rate>, text: &[u8]| {
        let filter = Filter::compile(spec(rate))?;
        let record = record(text);
        if filter.decide(&record, Some(path), 1) != Decision::Send {
            return Ok::<_, FilterError>(());
        }
        c.bench_function(name, |b| {
            b.iter(|| filter.decide(black_box(&record), Some(black_box(path)), 1));
        });
        Ok(())
    };
    for (name, rate, text) in [
        ("20 rules, none matches, 100 bytes", None, repeat(plain, 100)),
        ("20 rules and a rate of the target, 100 bytes", Some(rate), repeat(plain, 100)),
        ("20 rules, none matches, 1024 bytes", None, repeat(plain, 1024)),
        ("20 rules, nearly matching, 100 bytes", None, repeat(nearly, 100)),
        ("20 rules, nearly matching, 1024 bytes", None, repeat(nearly, 1024)),
        ("20 rules, m, 1024 bytes", None, repeat(b"m", 1024)),
        (
            "20 rules and a rate of the target, newlines, 1024 bytes",
            Some(rate),
            repeat(b"\n", 1024),
        ),
        (
            "20 rules and a rate of the target, w and newline, 1024 bytes",
            Some(rate),
            repeat(b"watchdog: \n", 1024),
        ),
    ] {
        if let Err(error) = measure(c, name, rate, &text) {
            eprintln!("{name}: {error}");
        }
    }
    c.bench_function("compile 20 rules", |b| b.iter(|| Filter::compile(black_box(spec(None)))));
}

criterion_group!(benches, decide);
criterion_main!(benches);
