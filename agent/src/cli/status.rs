//! `netconsole-agent status`.

use anyhow::Context as _;
use clap::Args;

use super::{SocketArgs, print};
use crate::control::protocol::Request;

/// Arguments of `status`.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  netconsole-agent status --json | jq '.targets[].account'")]
pub(super) struct StatusArgs {
    #[command(flatten)]
    socket: SocketArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &StatusArgs) -> anyhow::Result<()> {
    let reply = args.socket.ask(&Request::Status)?;
    let status = reply.status.context("the agent sent no status")?;
    if args.json {
        print(&(serde_json::to_string_pretty(&status)? + "\n"))
    } else {
        print(&status.to_text())
    }
}
