//! From merged TOML to checked settings: the whole, and `[agent]`.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use bytesize::ByteSize;

use super::{
    Agent, Config, LastWords, Target, Warnings,
    diagnostic::Findings,
    keys,
    kind::{
        ABSOLUTE_PATH_FORMS, BUDGET_FORMS, GROUP_FORMS, GROUP_MAX_BYTES, HOLD_FORMS, RING_FORMS,
        SOCKET_PATH_FORMS, SOCKET_PATH_MAX_BYTES, STORE_FORMS, TARGET_NAME_MAX_BYTES,
    },
    merge::Merged,
    metrics,
    table::Table,
    target::{self, path},
};
use crate::{
    capture::{Choice, Replay, SourceKind},
    egress::EgressKind,
    netconsole::FormatKind,
};

/// Reads everything; what is wrong is noted, and something usable returned.
pub(super) fn config(merged: &Merged<'_>, findings: &mut Findings) -> Config {
    let mut config = Config {
        agent: Agent::default(),
        last_words: LastWords::default(),
        targets: Vec::new(),
        removed: merged.removed.clone(),
        warnings: Warnings::default(),
    };
    if let Some((table, span)) = &merged.agent {
        let table = Table::new(table, "[agent]".to_owned(), span.clone(), keys::AGENT, findings);
        config.agent = agent(table);
    }
    if let Some((table, span)) = &merged.last_words {
        let (name, span) = (format!("[{}]", keys::LAST_WORDS), span.clone());
        let table = Table::new(table, name, span, keys::LAST_WORDS_KEYS, findings);
        config.last_words = last_words(table);
    }
    if let Some((table, span)) = &merged.defaults {
        let name = "[defaults]".to_owned();
        let mut table = Table::new(table, name, span.clone(), keys::TARGET, findings);
        // Each target is checked with them, and they alone for what no target takes.
        target::values(&mut table);
        let known = keys::TARGET.iter().map(|key| key.name).filter(|key| *key != keys::REMOTE);
        table.finish_naming(known.collect());
    }
    config.targets = all_targets(merged, findings);
    // A file with other problems may well have its target behind them.
    if merged.targets.is_empty() && merged.removed.is_empty() && findings.is_empty() {
        let help = "the smallest one is:\n[target.fleet]\nremote = \"192.0.2.10:6666\"";
        let message = match &merged.files[..] {
            [_] => "the file has no target".to_owned(),
            files => format!("no file has a target: {}", files.join(", ")),
        };
        findings.problem(0..0, message, Some(help.to_owned()));
    }
    config
}

fn all_targets(merged: &Merged<'_>, findings: &mut Findings) -> Vec<Target> {
    let mut found: Vec<Target> = Vec::new();
    for merged in &merged.targets {
        let label = format!("[target.{}]", merged.name);
        let span = merged.span.clone();
        let mut table = Table::new(&merged.table, label, span.clone(), keys::TARGET, findings);
        check_name(&merged.name, &mut table);
        let Some(mut target) = target::target(&merged.name, &mut table) else {
            table.finish();
            continue;
        };
        if let Some(twin) = found.iter().find(|other| are_one_stream(other, &target)) {
            let message = format!("{} sends to the same receiver as {}", target.name, twin.name);
            let help = "netconsd tells senders apart by their address alone, and drops a sequence \
                        number that it has had";
            table.warning(span, message, help);
        }
        table.finish();
        target.live.clone_from(&merged.live);
        found.push(target);
    }
    found
}

/// Whether a receiver takes the records of both for those of one sender.
fn are_one_stream(one: &Target, other: &Target) -> bool {
    one.remote == other.remote
        && one.local_ip == other.local_ip
        && one.format == FormatKind::Extended
        && other.format == FormatKind::Extended
        && one.egress != Some(EgressKind::Pcap)
        && other.egress != Some(EgressKind::Pcap)
}

fn check_name(name: &str, table: &mut Table<'_, '_>) {
    let fits = (1..=TARGET_NAME_MAX_BYTES).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
    if !fits {
        let help = format!("letters, digits, `_`, `.` and `-`, at most {TARGET_NAME_MAX_BYTES}");
        table.problem(table.span.clone(), format!("{name:?} cannot be the name of a target"), help);
    }
}

fn agent(mut table: Table<'_, '_>) -> Agent {
    let mut agent = Agent::default();
    let path = table.parsed("control_socket", SOCKET_PATH_FORMS, |text| {
        absolute(text).filter(|_| text.len() <= SOCKET_PATH_MAX_BYTES)
    });
    if let Some(path) = path {
        agent.control_socket = path;
    }
    agent.control_group = table.parsed("control_group", GROUP_FORMS, |text| {
        let fits = (1..=GROUP_MAX_BYTES).contains(&text.len())
            && !text.chars().any(|c| c.is_control() || c.is_whitespace() || ":,".contains(c));
        fits.then(|| text.to_owned())
    });
    let help = "auto, commit, tracepoint or kmsg";
    let choice = table.parsed("capture", help, |text| match text {
        "auto" => Some(Choice::Auto),
        "commit" => Some(Choice::Only(SourceKind::Commit)),
        "tracepoint" => Some(Choice::Only(SourceKind::Tracepoint)),
        "kmsg" => Some(Choice::Only(SourceKind::Kmsg)),
        _ => None,
    });
    if let Some(choice) = choice {
        agent.capture = choice;
    }
    let replay = table.parsed("replay", "resume, boot or none", |text| match text {
        "resume" => Some(Replay::Resume),
        "boot" => Some(Replay::Boot),
        "none" => Some(Replay::None),
        _ => None,
    });
    if let Some(replay) = replay {
        agent.replay = replay;
    }
    let folder = table.parsed("runtime_dir", ABSOLUTE_PATH_FORMS, absolute);
    let beside = || agent.control_socket.parent().map(Path::to_owned);
    if let Some(folder) = folder.or_else(beside) {
        agent.runtime_dir = folder;
    }
    if let Some(folder) = table.parsed("state_dir", ABSOLUTE_PATH_FORMS, absolute) {
        agent.state_dir = folder;
    }
    let store = table.parsed("store", STORE_FORMS, |text| {
        size(text).filter(|bytes| (1 << 20..=1 << 30).contains(bytes))
    });
    if let Some(bytes) = store {
        agent.store_bytes = bytes as usize;
    }
    let ring = table.parsed("ring", RING_FORMS, |text| {
        size(text).filter(|bytes| (1 << 16..=1 << 28).contains(bytes) && bytes.is_power_of_two())
    });
    if let Some(bytes) = ring {
        agent.ring_bytes = bytes as u32;
    }
    agent.metrics = metrics::metrics(&mut table);
    if agent.store_bytes < 2 * agent.ring_bytes as usize {
        let message = "`store` must be at least twice as large as `ring`, or one full ring would \
                       push records out before they can be sent";
        table.problem(table.span.clone(), message, None);
    }
    table.finish();
    agent
}

fn last_words(mut table: Table<'_, '_>) -> LastWords {
    let mut read = LastWords::default();
    // The machine's own watchdogs wait no longer than seconds.
    let limits = [
        ("hold", &mut read.hold, Duration::from_secs(1), HOLD_FORMS),
        ("budget", &mut read.budget, Duration::from_secs(5), BUDGET_FORMS),
    ];
    for (key, value, max, help) in limits {
        let time = table.parsed(key, help, |text| {
            humantime::parse_duration(text).ok().filter(|time| *time <= max)
        });
        *value = time.unwrap_or(*value);
    }
    table.finish();
    read
}

fn absolute(text: &str) -> Option<PathBuf> {
    path(text).filter(|path| path.is_absolute())
}

fn size(text: &str) -> Option<u64> {
    text.parse::<ByteSize>().ok().map(|size| size.as_u64())
}
