//! `netconsole-agent receive --json` at the other end of the cable.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::mpsc::{self, Receiver as Lines};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::machine::Machine;

/// A receiver; it ends when it is dropped.
pub(super) struct Receiver {
    child: Child,
    lines: Lines<String>,
    seen: Vec<String>,
}

impl Receiver {
    /// Listens at the port.
    pub(super) fn start(machine: &Machine<'_>, binary: &Path, port: u16) -> Result<Self> {
        let mut command = machine.at_peer(binary);
        command.args(["receive", "--json", "--listen", &format!("0.0.0.0:{port}")]);
        let mut child = command.stdout(Stdio::piped()).spawn().context("start the receiver")?;
        let stdout = child.stdout.take().context("the receiver's output")?;
        let (to, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if to.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Self { child, lines, seen: Vec::new() })
    }

    /// Waits until a line with this text has come, or finds it in what came before.
    pub(super) fn wait(&mut self, text: &str, limit: Duration) -> Result<String> {
        let end = Instant::now() + limit;
        loop {
            self.seen.extend(self.lines.try_iter());
            if let Some(line) = self.seen.iter().find(|line| line.contains(text)) {
                return Ok(line.clone());
            }
            match self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => self.seen.push(line),
                Err(_) => bail!("{text:?} did not arrive within {} s", limit.as_secs()),
            }
        }
    }

    /// How many lines with this text have come.
    pub(super) fn count(&mut self, text: &str) -> usize {
        self.seen.extend(self.lines.try_iter());
        self.seen.iter().filter(|line| line.contains(text)).count()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
