//! `netconsole-agent status`.

use std::{io::IsTerminal as _, time::Duration};

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;

use super::{SocketArgs, plain, write_out};
use crate::control::{protocol::Request, status::Status};

const WATCH_DEFAULT: &str = "2";
/// Cursor home; each line erases what is right of it, and the end what is below
/// (ECMA-48: CUP, EL, ED). So nothing flickers.
const HOME: &str = "\x1b[H";
const ERASE_RIGHT: &str = "\x1b[K";
const ERASE_BELOW: &str = "\x1b[J";

/// Arguments of `status`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  netconsole-agent status
  netconsole-agent status --watch
  netconsole-agent status --ledger
  netconsole-agent status --json | jq '.targets[].account'

WAY is device, queue and kind of the way out. A target marked * was changed live.")]
pub(super) struct StatusArgs {
    #[command(flatten)]
    socket: SocketArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Print everything: reasons, warnings, the parts of the accounts, the last transitions.
    #[arg(long, short, conflicts_with = "json")]
    verbose: bool,
    /// Print each target's account instead, every term on its line.
    #[arg(long, conflicts_with = "verbose")]
    ledger: bool,
    /// Print it again every so many seconds.
    #[arg(
        long,
        short,
        value_name = "SECONDS",
        num_args = 0..=1,
        default_missing_value = WATCH_DEFAULT,
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    watch: Option<u32>,
}

pub(super) fn run(args: &StatusArgs) -> anyhow::Result<()> {
    let Some(seconds) = args.watch else {
        return write_out(&args.report()?).map(drop);
    };
    let redraw = std::io::stdout().is_terminal() && !args.json;
    let mut answered = false;
    // Ctrl-C ends it as it ends any program that holds nothing.
    loop {
        let text = match args.report() {
            // The agent may be starting anew; whoever watches will want to see it come back.
            Err(error) if answered && redraw => format!("{}\n", plain(&format!("{error:#}"))),
            report => report?,
        };
        answered = true;
        if !write_out(&if redraw { drawn_over(&text) } else { text })? {
            return Ok(());
        }
        std::thread::sleep(Duration::from_secs(seconds.into()));
    }
}

impl StatusArgs {
    fn report(&self) -> anyhow::Result<String> {
        let reply = self.socket.ask(&Request::Status)?;
        let status: Box<Status> = reply.status.context("the agent sent no status")?;
        Ok(if self.json && self.ledger {
            self.json_of(&status.ledgers())?
        } else if self.json {
            self.json_of(&status)?
        } else if self.ledger {
            status.to_ledgers()
        } else if self.verbose {
            status.to_text()
        } else {
            status.to_screen(terminal_width())
        })
    }

    /// One object per line, if there are to be several.
    fn json_of(&self, value: &impl Serialize) -> serde_json::Result<String> {
        let form =
            if self.watch.is_some() { serde_json::to_string } else { serde_json::to_string_pretty };
        Ok(form(value)? + "\n")
    }
}

/// Columns of the terminal, if there is one: nothing that is piped is cut.
fn terminal_width() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
    (size.ws_col > 0).then_some(size.ws_col.into())
}

fn drawn_over(text: &str) -> String {
    let lines: String = text.lines().map(|line| format!("{line}{ERASE_RIGHT}\n")).collect();
    format!("{HOME}{lines}{ERASE_BELOW}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_screen_is_drawn_over_the_one_before() {
        assert_eq!(drawn_over("a\n\nb\n"), "\x1b[Ha\x1b[K\n\x1b[K\nb\x1b[K\n\x1b[J");
    }
}
