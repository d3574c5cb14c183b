//! `cargo xtask bench`: every benchmark, one after the other: the pure parts, the
//! bare egress, and the whole agent. What is measured, and how, stands in the
//! benchmarks themselves.

use anyhow::{Result, bail};

use crate::build;
use crate::run::execute;
use crate::setup::{self, Need};

/// Package and name of the benchmarks, in their order.
const BENCHES: [(&str, &str); 4] = [
    ("netconsole-agent", "encode"),
    ("netconsole-agent", "store"),
    ("netconsole-agent", "transmit"),
    ("agent-tests", "whole"),
];

/// Arguments of the command.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Benchmarks to run: encode, store, transmit, whole [default: all, in this order]
    benches: Vec<String>,
    /// Show the figures, and succeed even if the whole agent misses a target
    #[arg(long)]
    report: bool,
    /// Passed on to each benchmark, for example a part of a benchmark's name
    #[arg(last = true)]
    passed_on: Vec<String>,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<()> {
    if let Some(unknown) =
        args.benches.iter().find(|word| !BENCHES.iter().any(|(_, name)| name == word))
    {
        bail!("there is no benchmark {unknown}: encode, store, transmit or whole");
    }
    let toolchain = setup::ensure(Need::Build)?;
    for (package, name) in BENCHES {
        if !args.benches.is_empty() && !args.benches.iter().any(|word| word == name) {
            continue;
        }
        let mut command =
            toolchain.cargo(["bench", "--locked", "-p", package, "--bench", name, "--"]);
        if name == "whole" {
            // What is measured is the binary as it is shipped.
            command.env("NETCONSOLE_AGENT_BIN", build::release(&toolchain)?);
            command.args(args.report.then_some("--report"));
        }
        execute(command.args(&args.passed_on))?;
    }
    Ok(())
}
