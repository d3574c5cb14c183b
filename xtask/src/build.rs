//! `cargo xtask build`: the release binary, with the tools it needs installed.
//! It adds nothing to `cargo build` but the tool chain for the eBPF crate.
//!
//! Besides, the builds without shared libraries, for this machine's architecture and for arm64.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::run::{execute, target_dir};
use crate::setup::{self, Need};
use crate::toolchain::Toolchain;

/// arm64 with glibc, as Debian has it.
pub(crate) const ARM_TARGET: &str = "aarch64-unknown-linux-gnu";
/// What the names of Debian's cross tools for it begin with.
pub(crate) const ARM_TOOLS: &str = "aarch64-linux-gnu-";

/// Runs the command.
pub(crate) fn run() -> Result<()> {
    let binary = release(&setup::ensure(Need::Build)?)?;
    println!("built {}", binary.display());
    Ok(())
}

/// Builds the release binary and returns where it lies.
pub(crate) fn release(toolchain: &Toolchain) -> Result<PathBuf> {
    execute(&mut toolchain.cargo(["build", "--release", "--locked", "-p", "netconsole-agent"]))?;
    Ok(target_dir().join("release/netconsole-agent"))
}

/// Builds the agent for arm64 without shared libraries and returns where it lies. The eBPF programs are
/// built for that architecture as well: which registers hold a function's arguments differs.
pub(crate) fn arm_agent(toolchain: &Toolchain) -> Result<PathBuf> {
    let dir = target_dir().join("arm/build");
    let mut cargo = static_cargo(toolchain, &["build", "-p", "netconsole-agent"], ARM_TARGET, &dir);
    execute(cargo.env(variable(ARM_TARGET, "LINKER"), format!("{ARM_TOOLS}gcc")))?;
    Ok(dir.join(ARM_TARGET).join("release/netconsole-agent"))
}

/// A `cargo` command that builds for `target` without shared libraries, in a directory of its own.
pub(crate) fn static_cargo(
    toolchain: &Toolchain,
    args: &[&'static str],
    target: &str,
    dir: &Path,
) -> Command {
    // What runs in the guests is what is packed (`dist`): with the list of its dependencies.
    let mut cargo = toolchain.cargo(["auditable"].into_iter().chain(args.iter().copied()));
    cargo.args(["--release", "--locked", "--target", target, "--target-dir"]).arg(dir);
    // Not RUSTFLAGS, which would reach the build of the eBPF crate as well.
    cargo.env(variable(target, "RUSTFLAGS"), "-C target-feature=+crt-static");
    cargo
}

/// The variable that tells cargo something about one target.
fn variable(target: &str, what: &str) -> String {
    format!("CARGO_TARGET_{}_{what}", target.to_uppercase().replace('-', "_"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargo_is_told_about_the_target_alone() {
        let toolchain = Toolchain::Prefix("/usr".into());
        let cargo = static_cargo(&toolchain, &["build"], ARM_TARGET, Path::new("/tmp/x"));
        let shown = crate::run::shown(&cargo);
        assert!(
            shown.contains(
                "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS='-C target-feature=+crt-static'"
            ),
            "{shown}"
        );
        assert!(!shown.contains(" RUSTFLAGS="), "{shown}");
        assert!(
            shown.ends_with("--target aarch64-unknown-linux-gnu --target-dir /tmp/x"),
            "{shown}"
        );
    }
}
