//! `cargo xtask bench`: runs every `[[bench]]` target of the agent. What is
//! measured, and how, stands in the benchmarks themselves.

use anyhow::Result;

use crate::run::execute;
use crate::setup::{self, Need};

/// Arguments of the command.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Passed on to the benchmarks, for example a part of a benchmark's name
    #[arg(last = true)]
    passed_on: Vec<String>,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<()> {
    let toolchain = setup::ensure(Need::Build)?;
    let mut command = toolchain.cargo(["bench", "--locked", "-p", "netconsole-agent"]);
    if !args.passed_on.is_empty() {
        command.arg("--").args(&args.passed_on);
    }
    execute(&mut command)
}
