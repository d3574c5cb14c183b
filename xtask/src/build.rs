//! `cargo xtask build`: the release binary, with the tools it needs installed.
//! It adds nothing to `cargo build` but the tool chain for the eBPF crate.

use std::path::PathBuf;

use anyhow::Result;

use crate::run::{execute, target_dir};
use crate::setup::{self, Need};
use crate::toolchain::Toolchain;

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
