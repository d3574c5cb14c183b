//! `netconsole-agent tail`.

use clap::Args;

use super::{SocketArgs, plain, write_out};
use crate::control::{protocol::Request, socket::Replies};

/// Arguments of `tail`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  netconsole-agent tail fleet
  netconsole-agent tail fleet --json | jq -r .packet

It shows the packets from now on, until it is interrupted or the target is gone. If it cannot
keep up, packets are left out of it (and said to be), never of what is sent.")]
pub(super) struct TailArgs {
    /// The target.
    target: String,
    /// Print one JSON object per packet: packet, and left_out if packets before it were left out.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    socket: SocketArgs,
}

pub(super) fn run(args: TailArgs) -> anyhow::Result<()> {
    let mut replies = Replies::open(&args.socket.path(), &Request::Tail { target: args.target })?;
    super::accepted(replies.next().transpose()?)?;
    replies.wait_for_ever()?;
    for reply in replies {
        let reply = reply?;
        let Some(packet) = reply.packet else { continue };
        let text = if args.json {
            let mut object = serde_json::json!({ "packet": packet });
            if let Some(left_out) = reply.left_out {
                object["left_out"] = left_out.into();
            }
            format!("{object}\n")
        } else {
            shown(&packet, reply.left_out)
        };
        if !write_out(&text)? {
            break;
        }
    }
    Ok(())
}

/// The packet as lines that cannot steer the terminal.
fn shown(packet: &str, left_out: Option<u64>) -> String {
    let mut text = String::new();
    if let Some(left_out) = left_out {
        let noun = if left_out == 1 { "packet" } else { "packets" };
        text = format!("-- {left_out} {noun} left out --\n");
    }
    for line in packet.strip_suffix('\n').unwrap_or(packet).split('\n') {
        text.push_str(&plain(line));
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_is_shown_line_by_line_without_control_characters() {
        let packet = "6,1,1,-;a\n rack=r12\n";
        assert_eq!(shown(packet, None), packet);
        assert_eq!(shown("\u{1b}[31mx\ty", Some(1)), "-- 1 packet left out --\n\\x1b[31mx\ty\n");
        assert_eq!(shown("", Some(12)), "-- 12 packets left out --\n\n");
    }
}
