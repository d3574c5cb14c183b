//! The figures of the whole agent on the running kernel: what it costs the
//! printing CPU, what it stands, how late it is, and what it takes when idle.
//!
//! ```text
//! cargo build --release -p netconsole-agent
//! cargo bench -p agent-tests --bench whole [-- --report] [cost|load|backlog|latency|idle …]
//! ```
//!
//! Needs root; about three minutes. One line per figure; the exit code says whether
//! all targets are met, unless `--report` asks for the table alone. What is a
//! comparison is taken in rounds that take turns within one run, and told as the
//! median of the rounds: the machine may be busy with other things. What is
//! absolute (latency, idle) says nothing on a machine that is busy: the table ends
//! with what else ran.
//!
//! The pure parts and the bare egress have benches of their own
//! (`cargo bench -p netconsole-agent`).

#[path = "whole/backlog.rs"]
mod backlog;
#[path = "whole/cost.rs"]
mod cost;
#[path = "whole/figure.rs"]
mod figure;
#[path = "whole/idle.rs"]
mod idle;
#[path = "whole/latency.rs"]
mod latency;
#[path = "whole/load.rs"]
mod load;

use std::process::ExitCode;

use agent_tests::{
    kmsg::Unlimited,
    netns::{Pair, root_or_skip},
    process,
};

use figure::Table;

/// The receiver's port.
const PORT: u16 = 6666;
/// One target, by AF_XDP.
const TARGET: &str =
    "[target.peer]\nremote = \"192.0.2.2:6666\"\negress = \"xdp\"\npace = \"off\"\n";

/// A part of the bench: what it is called on the command line, and what it does.
type Part = (&'static str, fn(&Pair, &mut Table));

const PARTS: [Part; 5] = [
    ("cost", cost::measure),
    ("load", load::measure),
    ("backlog", backlog::measure),
    ("latency", latency::measure),
    ("idle", idle::measure),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let given = |word: &str| arguments.iter().any(|argument| argument == word);
    // `cargo test --benches` starts it too, without this argument.
    if !given("--bench") {
        println!("SKIPPED: measures only under `cargo bench`");
        return ExitCode::SUCCESS;
    }
    let known = |word: &str| PARTS.iter().any(|(name, _)| *name == word);
    if let Some(word) = arguments
        .iter()
        .find(|word| !["--bench", "--report"].contains(&word.as_str()) && !known(word))
    {
        eprintln!(
            "unknown argument {word}: --report, or some of cost, load, backlog, latency, idle"
        );
        return ExitCode::from(2);
    }
    if !root_or_skip("whole") {
        return ExitCode::SUCCESS;
    }
    let all = !arguments.iter().any(|word| known(word));
    let pair = Pair::new();
    let _unlimited = Unlimited::new();
    let before = process::machine_times();
    let mut table = Table::default();
    for (name, measure) in PARTS {
        if all || given(name) {
            measure(&pair, &mut table);
        }
    }
    let (busy, stolen) = process::machine_times().shares_since(&before);
    println!(
        "The machine: {:.0} % busy, {:.1} % taken by its host; other agents running: {}.",
        busy * 100.0,
        stolen * 100.0,
        process::count_named("netconsole-agen"),
    );
    if table.all_met() || given("--report") { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
