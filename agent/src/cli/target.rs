//! `netconsole-agent target`.

use clap::{Args, Subcommand};

use super::{
    SocketArgs, print, print_lines,
    settings::{Setting, to_toml},
};
use crate::control::protocol::Request;

/// Arguments of `target`.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  netconsole-agent target set fleet max_level=warning")]
pub(super) struct TargetArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Print the names of the targets.
    #[command(after_help = "Example:\n  netconsole-agent target list --json | jq -r '.[]'")]
    List {
        /// Print a JSON array.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        socket: SocketArgs,
    },
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
    /// Change settings of a target until the agent restarts.
    #[command(after_help = "\
Examples:
  netconsole-agent target set fleet max_level=warning sysdata.cpu=true
  netconsole-agent target set fleet 'facility=[\"kern\", \"daemon\"]'

All of them are changed, or none. A value is taken as TOML if it is TOML (true, 3, [\"a\"]), and
as text if it is not. `status --verbose` shows what was changed.")]
    Set {
        /// The target.
        name: String,
        /// A key of its table in the configuration, and the value.
        #[arg(required = true, value_name = "KEY=VALUE")]
        settings: Vec<Setting>,
        #[command(flatten)]
        socket: SocketArgs,
    },
    /// Add a target until the agent restarts.
    #[command(
        after_help = "Example:\n  netconsole-agent target add debug remote=192.0.2.7:6666 max_level=debug\n\n\
                      Keys and values are those of `target set`; `remote` must be among them."
    )]
    Add {
        /// Its name.
        name: String,
        /// A key of its table in the configuration, and the value.
        #[arg(required = true, value_name = "KEY=VALUE")]
        settings: Vec<Setting>,
        #[command(flatten)]
        socket: SocketArgs,
    },
    /// Remove a target until the agent restarts.
    #[command(after_help = "Example:\n  netconsole-agent target remove debug")]
    Remove {
        /// The target.
        name: String,
        #[command(flatten)]
        socket: SocketArgs,
    },
}

#[cfg(test)]
impl TargetArgs {
    /// The settings that the agent would be asked for, as TOML.
    pub(super) fn settings(&self) -> Option<String> {
        match &self.action {
            Action::Set { settings, .. } | Action::Add { settings, .. } => {
                Some(to_toml(settings).expect("settings"))
            }
            _ => None,
        }
    }
}

pub(super) fn run(args: TargetArgs) -> anyhow::Result<()> {
    let (socket, request) = match args.action {
        Action::List { json, socket } => {
            let names = socket.ask(&Request::List)?.lines;
            return if json {
                print(&(serde_json::to_string(&names)? + "\n"))
            } else {
                print_lines(&names)
            };
        }
        Action::Resolve { name, socket } => (socket, Request::Resolve { target: name }),
        Action::Enable { name, socket } => (socket, Request::Enable { target: name }),
        Action::Disable { name, socket } => (socket, Request::Disable { target: name }),
        Action::Set { name, settings, socket } => {
            (socket, Request::Set { target: name, settings: to_toml(&settings)? })
        }
        Action::Add { name, settings, socket } => {
            (socket, Request::Add { target: name, settings: to_toml(&settings)? })
        }
        Action::Remove { name, socket } => (socket, Request::Remove { target: name }),
    };
    socket.order(&request)
}
