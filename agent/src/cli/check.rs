//! `netconsole-agent check`.

use std::path::PathBuf;

use clap::Args;

use super::{DEFAULT_CONFIG, print};
use crate::config;

/// Arguments of `check`.
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  netconsole-agent check --config /etc/netconsole-agent/agent.toml\n\n\
                  Exit code: 0 if the configuration is good (warnings allowed), 78 if not."
)]
pub(super) struct CheckArgs {
    /// The configuration.
    #[arg(long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    config: PathBuf,
}

pub(super) fn run(args: &CheckArgs) -> anyhow::Result<()> {
    let config = config::load(&args.config)?;
    if !config.warnings.report.is_empty() {
        eprintln!("{}", config.warnings.report);
    }
    let targets: Vec<_> = config
        .targets
        .iter()
        .map(|target| format!("{} -> {}", target.name, target.remote))
        .collect();
    print(&format!("{}: good; {}\n", args.config.display(), targets.join(", ")))
}
