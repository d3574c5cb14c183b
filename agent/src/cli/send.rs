//! `netconsole-agent send`.

use std::io::{BufRead, Read as _};

use anyhow::Context as _;
use clap::{Args, CommandFactory as _, error::ErrorKind};

use super::{Cli, SocketArgs};
use crate::{
    control::protocol::Request,
    message::{self, Kind},
    netconsole::DATAGRAM_MAX_BYTES,
};

/// Arguments of `send`.
#[derive(Args, Debug)]
#[command(
    override_usage = "netconsole-agent send [OPTIONS] <TARGET>... <TEXT|->\n       \
                      netconsole-agent send [OPTIONS] --all <TEXT|->",
    after_help = format!("\
Examples:
  netconsole-agent send fleet \"deploy 7 begins\"
  journalctl -fu backup -o cat | netconsole-agent send fleet -

The message goes to the named targets alone, with their extra data in it, and not to the kernel
log. It is one datagram of at most {DATAGRAM_MAX_BYTES} bytes; bytes that are not printable ASCII take four
each. As a service comes and goes:
  ExecStartPost=netconsole-agent send --all \"%n has started\"
  ExecStopPost=netconsole-agent send --all \"%n has ended: $SERVICE_RESULT\"")
)]
pub(super) struct SendArgs {
    /// The targets, and last the text; `-` takes a message from each line of standard input.
    #[arg(required = true, value_name = "TARGET... TEXT")]
    words: Vec<String>,
    /// Send it to all targets.
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    socket: SocketArgs,
}

pub(super) fn run(args: SendArgs) -> anyhow::Result<()> {
    let SendArgs { words: mut targets, all, socket } = args;
    let text = targets.pop().unwrap_or_default();
    let usage = |text: &str| -> anyhow::Error {
        Cli::command().error(ErrorKind::WrongNumberOfValues, text).into()
    };
    if all && !targets.is_empty() {
        return Err(usage("with --all, no target is named; put the text in quotes"));
    }
    if !all && targets.is_empty() {
        return Err(usage("name a target before the text, or give --all"));
    }
    let send = |text: &str| {
        message::check(Kind::Message, text.as_bytes(), 0)?;
        socket.order(&Request::Send { targets: targets.clone(), all, text: text.to_owned() })
    };
    if text == "-" { send_lines(std::io::stdin().lock(), send) } else { send(&text) }
}

/// Each line as a message, as soon as it is there. The first that cannot be sent ends it.
fn send_lines(
    mut input: impl BufRead,
    send: impl Fn(&str) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut line = Vec::new();
    for number in 1u64.. {
        line.clear();
        // One more than fits, and its newline: no memory for what is refused anyway.
        let most = DATAGRAM_MAX_BYTES as u64 + 2;
        let read = input.by_ref().take(most).read_until(b'\n', &mut line);
        if read.context("reading standard input")? == 0 {
            break;
        }
        if line.last() == Some(&b'\n') {
            line.pop();
        }
        send(&String::from_utf8_lossy(&line))
            .with_context(|| format!("line {number} of standard input"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn each_line_is_a_message_and_the_first_that_is_too_long_ends_it() {
        let sent = RefCell::new(Vec::new());
        let send = |text: &str| {
            message::check(Kind::Message, text.as_bytes(), 0)?;
            sent.borrow_mut().push(text.to_owned());
            Ok(())
        };
        send_lines(&b"one\n\ntwo\xff\r\nlast"[..], send).expect("sent");
        assert_eq!(*sent.borrow(), ["one", "", "two\u{fffd}\r", "last"]);
        sent.borrow_mut().clear();
        let long = format!("good\n{}\nnever\n", "x".repeat(1_000_000));
        let error = send_lines(long.as_bytes(), send).expect_err("too long");
        assert!(format!("{error:#}").starts_with("line 2 of standard input"), "{error:#}");
        assert_eq!(*sent.borrow(), ["good"]);
    }
}
