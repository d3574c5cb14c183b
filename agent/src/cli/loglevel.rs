//! `netconsole-agent loglevel`.

use clap::Args;

use super::{SocketArgs, logging::LEVEL_VARIABLE};
use crate::control::protocol::Request;

/// Arguments of `loglevel`.
#[derive(Args, Debug)]
#[command(
    after_help = format!("Examples:\n  netconsole-agent loglevel debug --for 5m\n  \
                          netconsole-agent loglevel info,netconsole_agent::net=trace --for 1m\n\n\
                          The level is written as in {LEVEL_VARIABLE}.")
)]
pub(super) struct LoglevelArgs {
    /// error, warn, info, debug, trace or off, also for a part of the agent.
    level: String,
    /// Go back to the level before after that time, such as `5m`; else it stays until
    /// the agent restarts.
    #[arg(long = "for", value_name = "DURATION")]
    duration: Option<humantime::Duration>,
    #[command(flatten)]
    socket: SocketArgs,
}

pub(super) fn run(args: LoglevelArgs) -> anyhow::Result<()> {
    // Less than a second would be no time at all.
    let for_s = args.duration.map(|duration| duration.as_secs().max(1));
    args.socket.order(&Request::Loglevel { level: args.level, for_s })
}
