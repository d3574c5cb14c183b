//! `cargo xtask soak`: `tests/tests/soak.rs` alone, for as long as is wanted. What it does and
//! how it judges stands there; `cargo xtask test` runs three minutes of it.

use anyhow::Result;

use crate::build;
use crate::run::execute;
use crate::setup::{self, Need};

/// The test; beside it are those of its judge.
const TEST: &str = "everything_is_accounted_for";

/// Arguments of the command.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How long the faults go on
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    minutes: u64,
    /// Repeat the faults of an earlier run, which printed its seed
    #[arg(long)]
    seed: Option<u64>,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<()> {
    let toolchain = setup::ensure(Need::Tests)?;
    let binary = build::release(&toolchain)?;
    let words =
        ["test", "-p", "agent-tests", "--locked", "--test", "soak", TEST, "--", "--nocapture"];
    let mut command = toolchain.cargo(words);
    command.env("NETCONSOLE_AGENT_BIN", binary);
    command.env("NETCONSOLE_AGENT_SOAK_MINUTES", args.minutes.to_string());
    if let Some(seed) = args.seed {
        command.env("NETCONSOLE_AGENT_SEED", seed.to_string());
    }
    execute(&mut command)
}
