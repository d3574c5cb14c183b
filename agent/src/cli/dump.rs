//! `netconsole-agent dump`.

use clap::Args;

use super::{SocketArgs, print_lines};
use crate::control::protocol::Request;

/// Arguments of `dump`.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  netconsole-agent dump\n\n\
                  Every target with `dump = \"netoops\"` gets the end of the kernel log (64 KiB at most) as netoops\n\
                  packets of type soft, at the receiver's UDP port 2004. `receive --netoops` there keeps it.\n\
                  In a panic and after an oops this is done without being asked for.")]
pub(super) struct DumpArgs {
    #[command(flatten)]
    socket: SocketArgs,
}

pub(super) fn run(args: &DumpArgs) -> anyhow::Result<()> {
    print_lines(&args.socket.ask(&Request::Dump)?.lines)
}
