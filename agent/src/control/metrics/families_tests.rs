//! The exposition against its definitions, the README's table and the example alerts.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use super::*;
use crate::{
    capture::bpf::ProgramRuns,
    control::{
        life::heal::{BUCKETS_S, Heals},
        metrics::view::TargetScrape,
        status::{CaptureStatus, RefusedStatus, after_crash::AfterCrashTarget},
    },
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A fresh agent with two targets.
fn scrape() -> Scrape {
    let target = |name: &str| TargetScrape {
        name: name.to_owned(),
        state: State::Active,
        since: SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_250),
        ledger: Ledger { first_seq: 10, next_seq: 17, sent: 5, waiting: 2, ..Ledger::default() },
        unbalanced: 0,
        suspected: 0,
        heals: Heals::default(),
        after_crash: AfterCrashTarget::default(),
    };
    Scrape {
        version: "1.2.3",
        started: SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000),
        config_generation: 1,
        config_good: true,
        store_bytes: 1 << 24,
        depths: [4096, 512, 7],
        capture: CaptureStatus { source: "tracepoint".to_owned(), ..CaptureStatus::default() },
        programs: vec![ProgramRuns {
            name: "printk_tp_btf",
            runs: 3,
            time: Duration::from_micros(2),
        }],
        refused: RefusedStatus::default(),
        still: [false; THREADS.len()],
        after_crash_dumps: 0,
        after_crash_unusable: 0,
        targets: vec![target("fleet"), target("debug")],
    }
}

/// Series of an exposition: their values by name and labels.
fn series(text: &str) -> BTreeMap<String, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let series: Vec<(String, f64)> = lines
        .map(|line| {
            let (series, value) = line.rsplit_once(' ').expect("a value");
            (series.to_owned(), value.parse().expect("a number"))
        })
        .collect();
    let map: BTreeMap<_, _> = series.iter().cloned().collect();
    assert_eq!(map.len(), series.len(), "each series once");
    map
}

#[test]
fn the_exposition_has_every_metric_once_with_its_type_and_help() {
    let page = scrape().page();
    assert!(page.good && page.content_type.starts_with("application/openmetrics-text"));
    assert!(page.body.ends_with("# EOF\n"));
    let mut names = BTreeSet::new();
    for family in FAMILIES {
        let full = family.full_name();
        assert!(names.insert(full.clone()), "{full} twice");
        let base = full.trim_end_matches("_total").trim_end_matches("_info");
        let type_line = format!("# TYPE {base} {}\n", family.kind.name());
        assert_eq!(page.body.matches(&type_line).count(), 1, "{type_line}");
        let help_line = format!("# HELP {base} {}\n", family.help);
        assert_eq!(page.body.matches(&help_line).count(), 1, "{help_line}");
        assert!(family.help.ends_with('.') && !family.help.contains(['\n', '\\', '|']), "{full}");
        assert_eq!(family.kind == Kind::Counter, full.ends_with("_total"), "{full}");
        assert!(full.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{full}");
    }
    assert_eq!(page.body.matches("# TYPE ").count(), FAMILIES.len());
}

#[test]
fn every_reason_and_state_is_there_from_the_start() {
    let series = series(&scrape().page().body);
    let value = |series_name: &str| {
        *series
            .get(&format!("netconsole_agent_{series_name}"))
            .unwrap_or_else(|| panic!("no {series_name}: {series:#?}"))
    };
    for target in ["fleet", "debug"] {
        for reason in LostReason::ALL {
            let name = reason.name();
            let lost = format!("records_lost_total{{target=\"{target}\",reason=\"{name}\"}}");
            assert_eq!(value(&lost), 0.0);
        }
        for kind in WaitKind::ALL {
            let name = kind.name();
            assert_eq!(
                value(&format!("target_waiting{{target=\"{target}\",reason=\"{name}\"}}")),
                0.0
            );
        }
        for state in State::NAMES {
            let is_it = value(&format!("target_state{{target=\"{target}\",state=\"{state}\"}}"));
            assert_eq!(is_it, if state == "active" { 1.0 } else { 0.0 });
        }
        let labels = format!("{{target=\"{target}\"}}");
        assert_eq!(value(&format!("records_seen_total{labels}")), 7.0);
        assert_eq!(value(&format!("records_sent_total{labels}")), 5.0);
        assert_eq!(value(&format!("records_waiting{labels}")), 2.0);
        assert_eq!(value(&format!("target_heal_duration_seconds_count{labels}")), 0.0);
        let since = value(&format!("target_state_since_timestamp_seconds{labels}"));
        assert_eq!(since, 1_700_000_000.25);
    }
    assert_eq!(value("build_info{version=\"1.2.3\"}"), 1.0);
    assert_eq!(value("capture_source_info{source=\"tracepoint\",hook=\"none\"}"), 1.0);
    assert_eq!(value("program_run_time_seconds_total{program=\"printk_tp_btf\"}"), 0.000_002);
    assert_eq!(value("control_refused_total{reason=\"malformed\"}"), 0.0);
}

#[test]
fn outages_are_in_cumulative_buckets() {
    let mut scrape = scrape();
    let waiting = State::Waiting(crate::target::state::Reason {
        kind: WaitKind::DeviceDown,
        text: String::new(),
    });
    let now = std::time::Instant::now();
    for millis in [20, 700, 30 * 3600 * 1000] {
        let heals = &mut scrape.targets[0].heals;
        heals.changed(now, &State::Active, &waiting);
        heals.changed(now + Duration::from_millis(millis), &waiting, &State::Active);
    }
    let series = series(&scrape.page().body);
    let bucket = |bound: &str| {
        let name = "netconsole_agent_target_heal_duration_seconds_bucket";
        series[&format!("{name}{{le=\"{bound}\",target=\"fleet\"}}")]
    };
    assert_eq!(
        (bucket("0.01"), bucket("0.025"), bucket("1.0"), bucket("+Inf")),
        (0.0, 1.0, 2.0, 3.0)
    );
    assert!(BUCKETS_S.is_sorted());
    let sum = series["netconsole_agent_target_heal_duration_seconds_sum{target=\"fleet\"}"];
    assert!((sum - 108_000.72).abs() < 1e-6, "{sum}");
}

/// `UPDATE_GOLDEN=1` writes the table.
#[test]
fn the_readme_has_the_table_of_all_metrics() {
    const BEGIN: &str = "<!-- metrics: made by the test of control/metrics/families.rs -->\n";
    const END: &str = "<!-- end of metrics -->\n";
    let path = root().join("README.md");
    let readme = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = readme.split_once(BEGIN).expect("where the table begins");
    let (shown, after) = rest.split_once(END).expect("where it ends");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(path, format!("{before}{BEGIN}{}{END}{after}", table())).unwrap();
        return;
    }
    assert_eq!(shown, table(), "UPDATE_GOLDEN=1 cargo test -p netconsole-agent --lib metrics::");
}

/// Names in an expression with the labels that are asked of each.
fn asked(expression: &str) -> Vec<(String, Vec<String>)> {
    let name = regex::Regex::new(r"(netconsole_agent_[a-z_]+)(\{[^}]*\})?").unwrap();
    let label = regex::Regex::new(r#"([a-z_]+)\s*(=~|!~|!=|=)\s*""#).unwrap();
    name.captures_iter(expression)
        .map(|found| {
            let labels = found.get(2).map_or("", |labels| labels.as_str());
            let labels = label.captures_iter(labels).map(|label| label[1].to_owned());
            (found[1].to_owned(), labels.collect())
        })
        .collect()
}

#[test]
fn the_example_alerts_ask_for_what_there_is() {
    let rules = std::fs::read_to_string(root().join("configs/alerts.yml")).unwrap();
    let expressions: String = rules
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .collect::<Vec<_>>()
        .join("\n");
    let asked = asked(&expressions);
    assert!(asked.len() >= 8, "{asked:?}");
    let known: BTreeMap<String, &Family> = FAMILIES
        .iter()
        .flat_map(|family| {
            let name = family.full_name();
            let parts = ["_bucket", "_sum", "_count"].map(|part| (format!("{name}{part}"), family));
            let whole = [(name, family)];
            if family.kind == Kind::Histogram { parts.to_vec() } else { whole.to_vec() }
        })
        .collect();
    for (name, labels) in asked {
        let family = known.get(&name).unwrap_or_else(|| panic!("no metric {name}"));
        for label in labels {
            let there =
                family.labels.contains(&label.as_str()) || ["job", "instance"].contains(&&*label);
            assert!(there, "{name} has no label {label}");
        }
    }
    // What piles up or falls for a target that an operator switched off wakes nobody.
    let disabled =
        "unless on (instance, target) netconsole_agent_target_state{state=\"disabled\"} == 1";
    for rule in rules.split("- alert:") {
        let of_backlog = ["records_lost_total", "records_waiting"];
        if of_backlog.iter().any(|name| rule.contains(&format!("netconsole_agent_{name}"))) {
            assert!(rule.contains(disabled), "{rule}");
        }
    }
    // Values of labels that are words of ours.
    let value = regex::Regex::new(r#"(reason|state)="([a-z_]+)""#).unwrap();
    for found in value.captures_iter(&expressions) {
        let is_reason = LostReason::ALL.iter().any(|reason| reason.name() == &found[2])
            || WaitKind::ALL.iter().any(|kind| kind.name() == &found[2]);
        assert!(is_reason || State::NAMES.contains(&&found[2]), "{}", &found[0]);
    }
}
