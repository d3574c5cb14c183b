//! `netconsole-agent target`.

use clap::{Args, Subcommand};

use super::SocketArgs;
use crate::control::protocol::Request;

/// Arguments of `target`.
#[derive(Args, Debug)]
pub(super) struct TargetArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Find the device, source address and next hop anew.
    #[command(after_help = "Example:\n  netconsole-agent target resolve fleet")]
    Resolve {
        /// The target; all of them if left out.
        name: Option<String>,
        #[command(flatten)]
        socket: SocketArgs,
    },
    /// Switch a target on again.
    #[command(after_help = "Example:\n  netconsole-agent target enable fleet")]
    Enable {
        /// The target.
        name: String,
        #[command(flatten)]
        socket: SocketArgs,
    },
    /// Switch a target off until it is switched on again or the agent restarts. What was
    /// handed to its socket still leaves; what comes later stays in the record store.
    #[command(after_help = "Example:\n  netconsole-agent target disable fleet")]
    Disable {
        /// The target.
        name: String,
        #[command(flatten)]
        socket: SocketArgs,
    },
}

pub(super) fn run(args: &TargetArgs) -> anyhow::Result<()> {
    let (socket, request) = match &args.action {
        Action::Resolve { name, socket } => (socket, Request::Resolve { target: name.clone() }),
        Action::Enable { name, socket } => (socket, Request::Enable { target: name.clone() }),
        Action::Disable { name, socket } => (socket, Request::Disable { target: name.clone() }),
    };
    socket.ask(&request).map(drop)
}
