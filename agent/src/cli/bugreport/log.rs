//! The last lines of two logs: the agent's, from the journal, and the kernel's.

use std::{
    collections::VecDeque,
    fs::OpenOptions,
    io::{self, Read as _},
    os::unix::fs::OpenOptionsExt as _,
    process::Command,
};

use rustix::{fs::OFlags, io::Errno};

use crate::{capture::kmsg, netconsole::escape};

/// The unit whose log it is.
const UNIT: &str = "netconsole-agent";
/// Lines of the agent's log.
const AGENT_LINES: &str = "500";
/// Lines of the kernel's log.
const KERNEL_LINES: usize = 200;
/// Longest record that a read of `/dev/kmsg` brings (`CONSOLE_EXT_LOG_MAX`, before 6.3).
const RECORD_MAX_BYTES: usize = 8192;

/// What the journal has of the agent.
pub(super) fn of_the_agent() -> Result<String, String> {
    let arguments = ["--unit", UNIT, "--lines", AGENT_LINES, "--output", "short-iso-precise"];
    let output =
        Command::new("journalctl").args(arguments).args(["--no-pager", "--quiet"]).output();
    let output = output.map_err(|error| {
        format!("cannot run journalctl: {error}; the agent's log is where its standard error goes")
    })?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if !output.status.success() {
        return Err(format!("journalctl failed ({}): {}", output.status, text(&output.stderr)));
    }
    if output.stdout.is_empty() {
        return Err(format!(
            "the journal has nothing of the unit {UNIT} that this user may read; an agent that was \
             started otherwise logs to its standard error"
        ));
    }
    Ok(text(&output.stdout))
}

/// The newest records of `/dev/kmsg`, with its escapes undone, so that what is to be masked is found.
pub(super) fn of_the_kernel() -> Result<String, String> {
    let failed = |error: io::Error| format!("cannot read {}: {error}", kmsg::PATH);
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let mut file =
        OpenOptions::new().read(true).custom_flags(flags).open(kmsg::PATH).map_err(failed)?;
    let mut last = VecDeque::with_capacity(KERNEL_LINES);
    let mut buffer = [0; RECORD_MAX_BYTES];
    // As much as any kernel's buffer holds: what is logged meanwhile must not make it endless.
    for _ in 0..1 << 20 {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => {
                if last.len() == KERNEL_LINES {
                    last.pop_front();
                }
                last.push_back(unescaped(&buffer[..length]));
            }
            // Overwritten while it was read; the next read goes on after it.
            Err(error) if error.raw_os_error() == Some(Errno::PIPE.raw_os_error()) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(last.into_iter().collect())
}

fn unescaped(record: &[u8]) -> String {
    let mut bytes = vec![0; record.len()];
    let length = escape::unescape_into(record, &mut bytes);
    String::from_utf8_lossy(&bytes[..length]).into_owned()
}
