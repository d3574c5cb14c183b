//! Running other programs: each is shown before it runs, and its failure names
//! the whole command line. No shell is involved, and nothing is retried.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context, Result, bail};

/// The directory of the workspace.
pub(crate) fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_path_buf()
}

/// The directory for build products: `CARGO_TARGET_DIR`, else `target`.
pub(crate) fn target_dir() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => root().join(dir),
        None => root().join("target"),
    }
}

/// A command to be run in the directory of the workspace.
pub(crate) fn cmd<I, S>(program: impl AsRef<OsStr>, args: I) -> Command
where
    I: IntoIterator<Item = S>,
    S: AsRef<OsStr>,
{
    let mut command = Command::new(program);
    command.args(args).current_dir(root());
    command
}

/// The command as one would type it, with the variables it sets.
pub(crate) fn shown(command: &Command) -> String {
    let mut words: Vec<String> = command
        .get_envs()
        .filter_map(|(name, value)| {
            Some(format!("{}={}", name.to_string_lossy(), quoted(&value?.to_string_lossy())))
        })
        .collect();
    words.push(quoted(&command.get_program().to_string_lossy()));
    words.extend(command.get_args().map(|arg| quoted(&arg.to_string_lossy())));
    words.join(" ")
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// Shows and runs `command` with this process's own input and output.
pub(crate) fn execute(command: &mut Command) -> Result<()> {
    println!("+ {}", shown(command));
    let status = command.status().with_context(|| cannot_start(command))?;
    checked(command, status)
}

/// Runs `command` and returns what it wrote to its standard output; its error
/// output becomes part of the error when it fails.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let out = command.output().with_context(|| cannot_start(command))?;
    if !out.status.success() {
        let stderr = String::from_utf8_lossy(&out.stderr);
        bail!("`{}` failed ({}): {}", shown(command), out.status, stderr.trim());
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

/// Shows and runs `command`, passing each line of its standard output on both
/// to the terminal and to `line`.
pub(crate) fn run_watched(command: &mut Command, mut line: impl FnMut(&str)) -> Result<()> {
    println!("+ {}", shown(command));
    let mut child =
        command.stdout(Stdio::piped()).spawn().with_context(|| cannot_start(command))?;
    if let Some(stdout) = child.stdout.take() {
        for bytes in BufReader::new(stdout).split(b'\n') {
            let bytes = bytes.with_context(|| format!("read from `{}`", shown(command)))?;
            let text = String::from_utf8_lossy(&bytes);
            println!("{text}");
            line(&text);
        }
    }
    let status = child.wait().with_context(|| format!("wait for `{}`", shown(command)))?;
    checked(command, status)
}

/// Whether `command` can be started and succeeds; what it writes is dropped.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Where `program` lies in `PATH`, or in the administrator's directories that
/// an ordinary user's `PATH` leaves out.
pub(crate) fn which(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(program))
        .find(|file| file.is_file())
}

/// Runs apt-get so that it asks nothing.
pub(crate) fn apt_get(args: &[&str]) -> Result<()> {
    let mut command = cmd("apt-get", ["-q", "-y", "-o", "Acquire::Retries=3"]);
    execute(command.env("DEBIAN_FRONTEND", "noninteractive").args(args))
}

fn cannot_start(command: &Command) -> String {
    format!("cannot start `{}`", shown(command))
}

fn checked(command: &Command, status: ExitStatus) -> Result<()> {
    if status.success() {
        return Ok(());
    }
    bail!("`{}` failed ({status})", shown(command))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_shown_as_it_would_be_typed() {
        let mut command = cmd("cargo", ["doc", "--cfg", "a b", ""]);
        command.env("RUSTDOCFLAGS", "-D warnings");
        assert_eq!(shown(&command), "RUSTDOCFLAGS='-D warnings' cargo doc --cfg 'a b' ''");
    }

    #[test]
    fn a_failure_names_the_command_and_what_it_said() {
        let error = output(&mut cmd("sh", ["-c", "echo bad disk >&2; exit 3"])).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("sh -c") && text.contains("bad disk") && text.contains('3'),
            "{text}"
        );
    }

    #[test]
    fn lines_are_passed_on_even_when_they_are_no_text() {
        let mut seen = Vec::new();
        run_watched(&mut cmd("printf", ["a\\n\\377\\nlast"]), |line| seen.push(line.to_owned()))
            .unwrap();
        assert_eq!(seen, ["a", "\u{fffd}", "last"]);
    }
}
