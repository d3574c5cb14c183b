//! `netconsole-agent run`.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;

use super::logging;
use crate::{
    capture::bpf::give_large_blocks_back,
    config::{Place, Sources},
    control::agent::Agent,
    failure::end_at_any_panic,
    privileges::as_after_the_start,
};

/// Arguments of `run`.
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  netconsole-agent run --config /etc/netconsole-agent/agent.toml\n\n\
                  NETCONSOLE_AGENT_LOG sets the level of the agent's own log, such as debug."
)]
pub(super) struct RunArgs {
    /// The configuration, with targets.d/*.toml beside it [default: agent.toml and targets.d/*.toml
    /// in /usr/lib/, /run/ and /etc/netconsole-agent].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

pub(super) fn run(args: &RunArgs) -> anyhow::Result<()> {
    let place = Place::of(args.config.as_deref());
    let (sources, config) = as_after_the_start(|| {
        let sources = Sources::read(&place)?;
        let config = sources.check()?;
        anyhow::Ok((sources, config))
    })?;
    logging::start();
    end_at_any_panic();
    if !config.warnings.problems.is_empty() {
        tracing::warn!("The configuration has doubtful settings:\n{}", config.warnings.report);
    }
    give_large_blocks_back();
    let agent = Agent::start(sources, config)?;
    // The threads exist; the runtime of the control thread adds none.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the control thread's runtime")?;
    runtime.block_on(agent.run())?;
    Ok(())
}
