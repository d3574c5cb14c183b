//! Long-running child processes whose output is shown as it comes, and which
//! never outlive their guard.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::run::shown;

/// A child process; killed and reaped when dropped.
pub(crate) struct Running {
    name: &'static str,
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    readers: Vec<JoinHandle<()>>,
}

impl Running {
    /// Shows and starts `command`; each line of its output is printed after `name`.
    pub(crate) fn start(name: &'static str, command: &mut Command) -> Result<Self> {
        println!("+ {} &", shown(command));
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Ctrl-C reaches this process only, which then stops the child.
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start `{}`", shown(command)))?;
        let lines = Arc::new(Mutex::new(Vec::new()));
        let readers = [
            child.stdout.take().map(|out| reader(name, out, Arc::clone(&lines))),
            child.stderr.take().map(|out| reader(name, out, Arc::clone(&lines))),
        ];
        Ok(Self { name, child, lines, readers: readers.into_iter().flatten().collect() })
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// An error if it has ended.
    pub(crate) fn check(&mut self) -> Result<()> {
        match self.child.try_wait().with_context(|| format!("look after the {}", self.name))? {
            Some(status) => bail!("the {} ended by itself ({status})", self.name),
            None => Ok(()),
        }
    }

    /// How many of its lines contain `text`.
    pub(crate) fn lines_with(&self, text: &str) -> usize {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().filter(|line| line.contains(text)).count()
    }

    /// Asks it to end by SIGTERM and waits for it, and for the rest of its output.
    pub(crate) fn terminate(mut self, limit: Duration) -> Result<ExitStatus> {
        let what = self.name;
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let pid = pid.with_context(|| format!("the {what} has no process id"))?;
        kill_process(pid, Signal::TERM).with_context(|| format!("stop the {what}"))?;
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().with_context(|| format!("await {what}"))? {
                self.readers.drain(..).for_each(|reader| drop(reader.join()));
                return Ok(status);
            }
            if start.elapsed() > limit {
                bail!("the {what} was still there {} s after SIGTERM", limit.as_secs());
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only if it has been reaped already.
        drop(self.child.kill());
        drop(self.child.wait());
        self.readers.drain(..).for_each(|reader| drop(reader.join()));
    }
}

fn reader(
    name: &'static str,
    out: impl Read + Send + 'static,
    lines: Arc<Mutex<Vec<String>>>,
) -> JoinHandle<()> {
    thread::spawn(move || {
        for bytes in BufReader::new(out).split(b'\n').map_while(std::io::Result::ok) {
            let line = String::from_utf8_lossy(&bytes).into_owned();
            println!("{name:>8} | {line}");
            lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::cmd;

    #[test]
    fn sees_the_lines_and_ends_the_child() {
        let script =
            "trap 'echo bye; exit 0' TERM; echo hello; echo no >&2; while :; do sleep 0.05; done";
        let mut child = Running::start("child", &mut cmd("sh", ["-c", script])).unwrap();
        let start = Instant::now();
        while child.lines_with("hello") + child.lines_with("no") < 2 {
            child.check().unwrap();
            assert!(start.elapsed() < Duration::from_secs(10));
            thread::sleep(Duration::from_millis(10));
        }
        let lines = Arc::clone(&child.lines);
        assert!(child.terminate(Duration::from_secs(10)).unwrap().success());
        assert_eq!(lines.lock().unwrap().last().map(String::as_str), Some("bye"));
    }

    #[test]
    fn a_child_that_ended_by_itself_is_an_error() {
        let mut child = Running::start("child", &mut cmd("sh", ["-c", "exit 7"])).unwrap();
        let start = Instant::now();
        while child.check().is_ok() {
            assert!(start.elapsed() < Duration::from_secs(10));
        }
        assert!(child.check().unwrap_err().to_string().contains('7'));
    }
}
