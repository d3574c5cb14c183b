//! `netconsole-agent doctor`.

use std::{io, path::Path, path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::Args;

use super::{DEFAULT_CONFIG, print};
use crate::{
    config::{ConfigError, Place, Sources},
    doctor::{Report, Subject, examine},
};

/// Arguments of `doctor`.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  netconsole-agent doctor\n  \
                  netconsole-agent doctor --json | jq '.[] | select(.level != \"ok\")'\n\n\
                  It changes nothing, and works beside a running agent. Run it as root to see everything.\n\
                  Exit code: 0 if all can work (warnings allowed), 1 if a target cannot or nothing can be\n\
                  captured, 78 if the configuration is bad.")]
pub(super) struct DoctorArgs {
    /// The configuration, with targets.d/*.toml beside it [default: as `run`, or the host alone
    /// without any].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print JSON: an array of {area, object, level, finding, remedy}.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &DoctorArgs) -> anyhow::Result<ExitCode> {
    let default = Path::new(DEFAULT_CONFIG);
    let place = Place::of(args.config.as_deref());
    let config = match Sources::read(&place).and_then(|sources| sources.check()) {
        Err(ConfigError::Absent { .. }) => Err("does not exist".to_owned()),
        Err(ConfigError::Read { source, .. })
            if args.config.is_none() && source.kind() == io::ErrorKind::PermissionDenied =>
        {
            Err(format!("cannot be read: {source}"))
        }
        checked => Ok(checked?),
    };
    let report = report(match &config {
        Ok(config) => Subject::Configured(config),
        Err(cause) => Subject::HostAlone { looked_at: default, cause: cause.clone() },
    })?;
    print(&if args.json { report.to_json()? + "\n" } else { report.to_text() })?;
    Ok(if report.has_failures() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Looks at everything.
pub(super) fn report(subject: Subject<'_>) -> anyhow::Result<Report> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime that asks netlink")?;
    Ok(runtime.block_on(examine(subject)))
}
