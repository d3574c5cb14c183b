//! Versions: of the agent, its binary, the kernel and the distribution.

use std::{fmt::Write as _, time::SystemTime};

use sha2::{Digest as _, Sha256};

use crate::control::status::Status;

/// All versions, a line each; what is not known says so.
pub(super) fn versions(running: Option<&Status>, now: SystemTime) -> String {
    let mut text = format!("gathered at {}\n", humantime::format_rfc3339_seconds(now));
    let build = if cfg!(debug_assertions) { "debug" } else { "release" };
    let target = if cfg!(target_env = "musl") { "musl" } else { "gnu" };
    let _ = writeln!(
        text,
        "netconsole-agent {} ({build}, {}, {target})",
        env!("CARGO_PKG_VERSION"),
        std::env::consts::ARCH
    );
    let _ = match binary() {
        Ok(line) => writeln!(text, "binary {line}"),
        Err(error) => writeln!(text, "binary: cannot be read: {error}"),
    };
    let _ = match running {
        Some(Status { version, pid, uptime_s, .. }) => {
            writeln!(text, "running agent: {version}, pid {pid}, up {uptime_s} s")
        }
        None => writeln!(text, "running agent: none answers"),
    };
    let uname = rustix::system::uname();
    let part = |part: &std::ffi::CStr| part.to_string_lossy().into_owned();
    let _ = writeln!(
        text,
        "{} {} {} {} {}",
        part(uname.sysname()),
        part(uname.nodename()),
        part(uname.release()),
        part(uname.version()),
        part(uname.machine())
    );
    text.push('\n');
    match std::fs::read_to_string("/etc/os-release") {
        Ok(release) => text.push_str(&release),
        Err(error) => {
            let _ = writeln!(text, "/etc/os-release: cannot be read: {error}");
        }
    }
    text
}

/// Path, size and hash of this program: which build it is.
fn binary() -> std::io::Result<String> {
    let path = std::env::current_exe()?;
    let bytes = std::fs::read(&path)?;
    let hash = Sha256::digest(&bytes);
    let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("{}, {} bytes, sha256 {hash}", path.display(), bytes.len()))
}
