//! `netconsole-agent reload`.

use clap::Args;

use super::SocketArgs;
use crate::control::protocol::Request;

/// Arguments of `reload`.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  netconsole-agent check && netconsole-agent reload\n\n\
                  The new configuration is used whole or not at all. Exit code: 0 if it is in use,\n\
                  1 if it is not; then the old one is, and the error is in `status` as well.")]
pub(super) struct ReloadArgs {
    #[command(flatten)]
    socket: SocketArgs,
}

pub(super) fn run(args: &ReloadArgs) -> anyhow::Result<()> {
    args.socket.order(&Request::Reload)
}
