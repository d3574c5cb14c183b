//! Compiles the eBPF programs into the agent.
//!
//! `EBPF_TOOLCHAIN` names the toolchain: a rustup name, or the prefix of an installed
//! one such as `/usr`. Unset, rustup's nightly is used if it has its library
//! sources, else the distribution's compiler if that has them.
//!
//! `EBPF_TARGET_DIR` names a directory that all builds share: else each profile and each set of
//! features compiles `core` and the programs again.

use std::{
    ffi::OsStr,
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;

const REMEDY: &str = "run `cargo xtask setup` (or: rustup toolchain install nightly --component \
                      rust-src, then cargo install bpf-linker)";

fn main() -> anyhow::Result<()> {
    println!("cargo:rerun-if-env-changed=EBPF_TOOLCHAIN");
    println!("cargo:rerun-if-changed=../agent-common/src");
    if Command::new("bpf-linker").arg("--version").output().is_err() {
        return fail("bpf-linker, which links the eBPF programs, is not installed");
    }
    let toolchain = match std::env::var("EBPF_TOOLCHAIN") {
        Ok(toolchain) => toolchain,
        Err(_) if nightly_has_sources() => "nightly".to_owned(),
        Err(_) if Path::new("/usr/lib/rustlib/src/rust/library/core/Cargo.toml").exists() => {
            "/usr".to_owned()
        }
        Err(_) => return fail("no Rust toolchain with library sources was found"),
    };
    if toolchain.starts_with('/') {
        // A distribution's stable compiler builds `core` for the bpf target only so.
        // SAFETY: the build script has one thread.
        #[allow(unsafe_code, reason = "aya-build has no other way to be told")]
        unsafe {
            std::env::set_var("RUSTC_BOOTSTRAP", "1");
        }
    }
    if let Some(dir) = std::env::var_os("EBPF_TARGET_DIR") {
        share(&dir).with_context(|| format!("EBPF_TARGET_DIR={}", dir.display()))?;
    }
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../agent-ebpf");
    aya_build::build_ebpf(
        [aya_build::Package { name: "agent-ebpf", root_dir: root, ..Default::default() }],
        aya_build::Toolchain::Custom(&toolchain),
    )
    .with_context(|| {
        format!("the eBPF programs did not build with toolchain {toolchain:?}; {REMEDY}")
    })
}

/// Puts `dir` in the place of the target directory that aya-build makes below this script's own.
fn share(dir: &OsStr) -> anyhow::Result<()> {
    // The programs are built for one architecture, which is not part of cargo's target.
    let dir = Path::new(dir).join(std::env::var("CARGO_CFG_TARGET_ARCH")?);
    fs::create_dir_all(&dir)?;
    let own = PathBuf::from(std::env::var("OUT_DIR")?).join("aya-build");
    fs::create_dir_all(&own)?;
    match symlink(&dir, own.join("target")) {
        // From the run before, shared or not.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        result => Ok(result?),
    }
}

fn nightly_has_sources() -> bool {
    let sysroot =
        Command::new("rustup").args(["run", "nightly", "rustc", "--print", "sysroot"]).output();
    let Ok(sysroot) = sysroot else { return false };
    let sysroot = String::from_utf8_lossy(&sysroot.stdout);
    !sysroot.trim().is_empty()
        && Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core/Cargo.toml").exists()
}

/// Fails the build with one line: cargo does so for `cargo::error`, and a script that
/// failed itself would add its whole output.
fn fail(problem: &str) -> anyhow::Result<()> {
    println!("cargo::error={problem}: {REMEDY}");
    Ok(())
}
