//! `netconsole-agent userdata`.

use clap::{Args, Subcommand};

use super::SocketArgs;
use crate::control::protocol::Request;

/// Arguments of `userdata`.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  netconsole-agent userdata set fleet rack r12")]
pub(super) struct UserdataArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Set a key until the agent restarts.
    #[command(after_help = "\
Examples:
  netconsole-agent userdata set fleet job \"$SLURM_JOB_ID\"
  netconsole-agent userdata set fleet rack '{file:/etc/rack}'")]
    Set {
        /// The target.
        target: String,
        /// The key.
        key: String,
        /// The value; may be a template.
        #[arg(allow_hyphen_values = true)]
        value: String,
        #[command(flatten)]
        socket: SocketArgs,
    },
    /// Remove a key until the agent restarts.
    #[command(after_help = "Example:\n  netconsole-agent userdata unset fleet job")]
    Unset {
        /// The target.
        target: String,
        /// The key.
        key: String,
        #[command(flatten)]
        socket: SocketArgs,
    },
}

pub(super) fn run(args: UserdataArgs) -> anyhow::Result<()> {
    let (socket, request) = match args.action {
        Action::Set { target, key, value, socket } => {
            (socket, Request::UserdataSet { target, key, value })
        }
        Action::Unset { target, key, socket } => (socket, Request::UserdataUnset { target, key }),
    };
    socket.order(&request)
}
