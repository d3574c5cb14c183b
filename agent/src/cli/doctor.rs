//! `netconsole-agent doctor`.

use std::{io, path::Path, path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::Args;

use super::{DEFAULT_CONFIG, print};
use crate::{
    config::{self, ConfigError},
    doctor::{Subject, examine},
};

/// Arguments of `doctor`.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  netconsole-agent doctor\n  \
                  netconsole-agent doctor --json | jq '.[] | select(.level != \"ok\")'\n\n\
                  It changes nothing, and works beside a running agent. Run it as root to see everything.\n\
                  Exit code: 0 if all can work (warnings allowed), 1 if a target cannot or nothing can be\n\
                  captured, 78 if the configuration is bad.")]
pub(super) struct DoctorArgs {
    /// The configuration [default: /etc/netconsole-agent/agent.toml, or the host alone without it].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print JSON: an array of {area, object, level, finding, remedy}.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &DoctorArgs) -> anyhow::Result<ExitCode> {
    let default = Path::new(DEFAULT_CONFIG);
    let config = match (&args.config, config::load(args.config.as_deref().unwrap_or(default))) {
        (None, Err(ConfigError::Read { source, .. })) if is_absent(&source) => Err(source),
        (_, loaded) => Ok(loaded?),
    };
    let subject = match &config {
        Ok(config) => Subject::Configured(config),
        Err(error) => {
            let cause = match error.kind() {
                io::ErrorKind::NotFound => "does not exist".to_owned(),
                _ => format!("cannot be read: {error}"),
            };
            Subject::HostAlone { looked_at: default, cause }
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime that asks netlink")?;
    let report = runtime.block_on(examine(subject));
    print(&if args.json { report.to_json()? + "\n" } else { report.to_text() })?;
    Ok(if report.has_failures() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Not there, or not for this user: then there is still the host to look at.
fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied)
}
