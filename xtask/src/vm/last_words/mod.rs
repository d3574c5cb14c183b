//! `cargo xtask vm --last-words`: guests crash, and the lines that left them are compared with
//! those they had printed, for the agent and, in runs of its own, for the kernel's netconsole.
//!
//! `crashes` is the table of what happens, `guest` makes it happen in a VM (`machine`), `judge`
//! compares, `lab` does it over and over, `results` keeps the results below
//! `target/vm/last-words` and makes the table; `module` builds the module that some crashes
//! need. Everything happens in QEMU: this machine is not touched.

mod crashes;
mod guest;
mod judge;
mod lab;
mod machine;
mod module;
mod results;

use std::collections::VecDeque;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use self::crashes::{CRASHES, Crash};
use self::lab::{Bench, Item, Lab};
use self::results::{Outcome, Row};
use crate::run::{root, target_dir};
use crate::signals::Interrupt;
use crate::summary::Count;
use crate::toolchain::Toolchain;

/// Whether the agent of the second boot is started with `after_crash = true` and what it tells
/// of the first one is counted.
const AFTER_CRASH: bool = true;

const README: &str = "README.md";
/// Crashes of the short form.
const SHORT: &[&str] = &["sysrq-cpu0", "sysrq-cpu1", "dump"];

/// Who sends the last words.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub(super) enum Subject {
    /// This project's agent.
    Agent,
    /// The kernel's own netconsole, extended format.
    Netconsole,
}

impl Subject {
    fn name(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Netconsole => "netconsole",
        }
    }
}

/// The subjects of a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Subjects {
    Agent,
    Netconsole,
    Both,
}

impl Subjects {
    fn list(self) -> &'static [Subject] {
        match self {
            Self::Agent => &[Subject::Agent],
            Self::Netconsole => &[Subject::Netconsole],
            Self::Both => &[Subject::Agent, Subject::Netconsole],
        }
    }
}

/// Arguments that go with `--last-words`.
#[derive(clap::Args)]
#[group(id = "last_words_args")]
#[command(next_help_heading = "Last words")]
pub(crate) struct Args {
    /// Let guests crash and measure which of their last lines arrive
    #[arg(long)]
    last_words: bool,
    /// Crashes by name; all without it
    #[arg(long = "crash", value_name = "NAME", value_delimiter = ',', requires = "last_words")]
    crashes: Vec<String>,
    /// So many runs of each crash, whatever there is already; without it, those that are missing
    /// for the whole series
    #[arg(long, value_name = "N", requires = "last_words")]
    runs: Option<usize>,
    /// Whom to look at
    #[arg(long, value_enum, default_value = "both", requires = "last_words")]
    subject: Subjects,
    /// Guests at a time; more than one disturb each other on a small machine
    #[arg(long, value_name = "N", default_value_t = 1, requires = "last_words")]
    jobs: usize,
    /// Only `sysrq c` on both CPUs with the agent on the last kernel; all lines must arrive
    #[arg(long, requires = "last_words", conflicts_with_all = ["crashes", "runs", "subject"])]
    short: bool,
    /// Forget earlier results
    #[arg(long, requires = "last_words")]
    fresh: bool,
    /// Run nothing, only make the table of what is there
    #[arg(long, requires = "last_words")]
    table_only: bool,
    /// Put the table into the marked section of the README
    #[arg(long, requires = "last_words")]
    write_readme: bool,
}

impl Args {
    /// Whether this is what was asked for.
    pub(super) fn wanted(&self) -> bool {
        self.last_words
    }
}

/// Runs the series.
pub(super) fn run(
    args: &Args,
    kernels: &[String],
    refresh: bool,
    toolchain: &Toolchain,
    interrupt: &Interrupt,
) -> Result<()> {
    if args.short {
        let series = kernels.last().context("no kernel was named")?;
        let count = short(series, toolchain, interrupt)?;
        println!("{count}");
        ensure!(count.failed == 0, "last words were lost");
        return Ok(());
    }
    let dir = directory()?;
    let file = dir.join("results.jsonl");
    if args.fresh && file.exists() {
        fs::remove_file(&file).with_context(|| format!("remove {}", file.display()))?;
    }
    let outcome = if args.table_only {
        Ok(())
    } else {
        let chosen = chosen(&args.crashes)?;
        let bench = Bench::new(toolchain, &dir)?;
        kernels.iter().try_for_each(|series| {
            let lab = bench.lab(series, refresh)?;
            let list = to_do(args, &chosen, &lab, &results::read(&file)?);
            lab.series(list, args.jobs, &file, interrupt)
        })
    };
    // Also of a series that was interrupted.
    let table = results::table(&results::read(&file)?);
    println!("\n{table}\nlast-words: the results are in {}", file.display());
    if args.write_readme {
        let path = root().join(README);
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let text = results::insert(&text, &table)?;
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
    }
    outcome
}

/// How often a run of the short form is tried. A machine that is emulated on a busy host may stand
/// still for longer than any line is held.
const SHORT_TRIES: usize = 3;

/// The short form: `sysrq c` on both CPUs of one kernel, and a dump. Every line that the agent could
/// send must have arrived; a run may be repeated, which is told.
pub(crate) fn short(series: &str, toolchain: &Toolchain, interrupt: &Interrupt) -> Result<Count> {
    let dir = directory()?;
    let bench = Bench::new(toolchain, &dir)?;
    let lab = bench.lab(series, false)?;
    let mut count = Count::default();
    for name in SHORT {
        let crash = crashes::by_name(name).with_context(|| format!("no crash {name}"))?;
        let item = Item { crash, subject: Subject::Agent, cpu: crash.cpu(0) };
        let is_whole = |row: &Row| match &row.outcome {
            Outcome::Judged(verdict) => verdict.before_stop.is_whole(),
            Outcome::Failed(_) => false,
        };
        let mut row = lab.row(&item, &dir.join("short"), interrupt)?;
        for _ in 1..SHORT_TRIES {
            if is_whole(&row) {
                break;
            }
            println!("vm: RETRY, {}", row.line());
            row = lab.row(&item, &dir.join("short"), interrupt)?;
        }
        let word = if is_whole(&row) { "ok" } else { "FAILED" };
        println!("vm test {} last-words/{name} ... {word}: {}", lab.kernel.release, row.line());
        *(if is_whole(&row) { &mut count.passed } else { &mut count.failed }) += 1;
    }
    Ok(count)
}

fn directory() -> Result<PathBuf> {
    let dir = target_dir().join("vm/last-words");
    fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
    Ok(dir)
}

fn chosen(names: &[String]) -> Result<Vec<&'static Crash>> {
    if names.is_empty() {
        return Ok(CRASHES.iter().collect());
    }
    let known = || CRASHES.iter().map(|crash| crash.name).collect::<Vec<_>>().join(", ");
    names
        .iter()
        .map(|name| {
            crashes::by_name(name)
                .with_context(|| format!("no crash {name}; there are {}", known()))
        })
        .collect()
}

/// What is to be run on a kernel. The subjects take turns, so that a disturbance of this machine
/// does not hit one of them alone.
fn to_do(args: &Args, chosen: &[&'static Crash], lab: &Lab<'_>, rows: &[Row]) -> VecDeque<Item> {
    let mut list = VecDeque::new();
    for &crash in chosen {
        if crash.needs_module && lab.no_module.is_some() {
            continue;
        }
        let done = |subject: Subject| {
            let same = |row: &&Row| {
                row.kernel == lab.kernel.release
                    && row.crash == crash.name
                    && row.subject == subject
                    && matches!(row.outcome, Outcome::Judged(_))
            };
            rows.iter().filter(same).count()
        };
        let wanted = args.runs.unwrap_or(crash.runs);
        for run in 0..wanted {
            for &subject in args.subject.list() {
                // The kernel's netconsole has no dumps.
                let can = crash.dump.is_none() || subject == Subject::Agent;
                if can && (args.runs.is_some() || run >= done(subject)) {
                    list.push_back(Item { crash, subject, cpu: crash.cpu(run) });
                }
            }
        }
    }
    list
}
