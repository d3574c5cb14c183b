//! `netconsole-agent check`.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;

use super::{EXIT_BAD_CONFIG, print};
use crate::config::{Place, Sources};

/// Arguments of `check`.
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  netconsole-agent check --offline --config /etc/netconsole-agent/agent.toml\n\n\
                  It also looks at this host: whether devices and groups exist and names have addresses. What is\n\
                  not there is a warning; with --offline only the text counts.\n\
                  Exit code: 0 if the configuration is good (warnings allowed without --strict), 78 if not."
)]
pub(super) struct CheckArgs {
    /// The configuration, with targets.d/*.toml beside it [default: agent.toml and targets.d/*.toml
    /// in /usr/lib/, /run/ and /etc/netconsole-agent].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Look at the text alone, not at this host.
    #[arg(long)]
    offline: bool,
    /// Do not accept warnings.
    #[arg(long)]
    strict: bool,
}

pub(super) fn run(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let sources = Sources::read(&Place::of(args.config.as_deref()))?;
    let config = if args.offline { sources.check()? } else { sources.check_on_host()? };
    if !config.warnings.report.is_empty() {
        eprintln!("{}", config.warnings.report);
        if args.strict {
            return Ok(ExitCode::from(EXIT_BAD_CONFIG));
        }
    }
    let targets: Vec<_> = config
        .targets
        .iter()
        .map(|target| format!("{} -> {}", target.name, target.remote))
        .collect();
    let files: Vec<_> = sources.files().iter().map(|file| file.name.as_str()).collect();
    print(&format!("{}: good; {}\n", files.join(", "), targets.join(", ")))?;
    Ok(ExitCode::SUCCESS)
}
