//! `netconsole-agent filter`.

use clap::{Args, Subcommand};

use super::{SocketArgs, print, print_lines};
use crate::control::protocol::Request;

const LAST_DEFAULT: u32 = 10;

/// Arguments of `filter`.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  netconsole-agent filter explain fleet 'martian source'")]
pub(super) struct FilterArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Tell what a target's filter does with records, and which rule decides.
    #[command(after_help = "\
Examples:
  netconsole-agent filter explain fleet --last 50
      the last 50 records
  netconsole-agent filter explain fleet '3,1,0,-;nvme0: I/O error'
      a line as /dev/kmsg shows it
  netconsole-agent filter explain fleet 'nvme0: I/O error'
      plain text")]
    Explain {
        /// The target.
        target: String,
        /// The line; if left out, the last records are taken.
        #[arg(conflicts_with = "last")]
        line: Option<String>,
        /// How many of the last records [default: 10].
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        last: Option<u32>,
        /// Print a JSON array of lines.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        socket: SocketArgs,
    },
}

pub(super) fn run(args: FilterArgs) -> anyhow::Result<()> {
    let Action::Explain { target, line, last, json, socket } = args.action;
    let last = if line.is_some() { 0 } else { last.unwrap_or(LAST_DEFAULT) };
    let lines = socket.ask(&Request::FilterExplain { target, line, last })?.lines;
    if json { print(&(serde_json::to_string(&lines)? + "\n")) } else { print_lines(&lines) }
}
