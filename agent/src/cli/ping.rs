//! `netconsole-agent ping`.

use anyhow::Context as _;
use clap::Args;

use super::{SocketArgs, print};
use crate::control::protocol::Request;

/// Arguments of `ping`.
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  nonce=$(netconsole-agent ping fleet) && ssh receiver grep -F \"nonce=$nonce\" /var/log/netconsole\n\n\
                  Nothing comes back from the receiver: whether the ping has arrived is seen there, by its\n\
                  nonce. It also tells time, host, device, queue, next hop and version."
)]
pub(super) struct PingArgs {
    /// The target.
    target: String,
    /// Print {"target": …, "nonce": …}.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    socket: SocketArgs,
}

pub(super) fn run(args: PingArgs) -> anyhow::Result<()> {
    let reply = args.socket.ask(&Request::Ping { target: args.target.clone() })?;
    let nonce = reply.lines.first().context("the agent sent no nonce")?;
    if args.json {
        let object = serde_json::json!({ "target": args.target, "nonce": nonce });
        print(&format!("{object}\n"))
    } else {
        print(&format!("{nonce}\n"))
    }
}
