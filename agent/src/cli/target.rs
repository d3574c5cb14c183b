//! `netconsole-agent target`.

use clap::{Args, Subcommand};

use super::SocketArgs;
use crate::control::socket::{Request, VERSION};

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
}

pub(super) fn run(args: &TargetArgs) -> anyhow::Result<()> {
    match &args.action {
        Action::Resolve { name, socket } => {
            socket.ask(&Request::Resolve { v: VERSION, target: name.clone() }).map(drop)
        }
    }
}
