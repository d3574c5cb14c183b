//! Which Rust tool chain compiles the eBPF crate, and the linker it needs.
//!
//! `-Z build-std` needs the library's source in the very version of the
//! compiler. Debian's `*-web` packages have both and need no rustup component;
//! an ordinary nightly with `rust-src` does as well. Nothing is installed here
//! but bpf-linker ([`install_linker`]) and the library of another target
//! ([`install_target`]).

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::run::{cmd, execute, output, succeeds, target_dir};

/// The newest version whose BTF the kernels of the tests accept and that builds
/// with the stable compiler of this workspace.
const BPF_LINKER_VERSION: &str = "0.13.0";

/// Debian's prefix, understood by `rustup run`.
const SYSTEM_PREFIX: &str = "/usr";

/// A way to compile the eBPF crate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Toolchain {
    /// A prefix such as `/usr`, handed to `agent/build.rs` as `EBPF_TOOLCHAIN`.
    Prefix(String),
    /// rustup's nightly, which `agent/build.rs` takes by itself.
    Nightly,
}

impl Toolchain {
    /// The tool chain to use, or `None` if there is none yet: what
    /// `EBPF_TOOLCHAIN` names, else Debian's, else a usable nightly.
    pub(crate) fn find() -> Option<Self> {
        if let Ok(prefix) = std::env::var("EBPF_TOOLCHAIN") {
            return Some(Self::Prefix(prefix));
        }
        if prefix_is_complete(Path::new(SYSTEM_PREFIX)) {
            return Some(Self::Prefix(SYSTEM_PREFIX.to_owned()));
        }
        nightly_has_source().then_some(Self::Nightly)
    }

    /// `command` with the environment that the build of the agent needs.
    pub(crate) fn apply<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        command.env("EBPF_TARGET_DIR", target_dir().join("ebpf"));
        match self {
            Self::Prefix(prefix) => command.env("EBPF_TOOLCHAIN", prefix),
            Self::Nightly => command.env_remove("EBPF_TOOLCHAIN"),
        }
    }

    /// A `cargo` command with the environment that the build of the agent needs.
    pub(crate) fn cargo<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Command {
        let mut command = cmd("cargo", args);
        self.apply(&mut command);
        command
    }

    /// LLVM's version of this tool chain's compiler, as (major, minor).
    fn llvm(&self) -> Result<(u32, u32)> {
        let mut command = match self {
            Self::Prefix(prefix) => cmd(Path::new(prefix).join("bin/rustc"), ["-vV"]),
            Self::Nightly => cmd("rustup", ["run", "nightly", "rustc", "-vV"]),
        };
        let text = output(&mut command)?;
        parse_llvm(&text).with_context(|| format!("no LLVM version in the output of rustc: {text}"))
    }
}

fn parse_llvm(version: &str) -> Option<(u32, u32)> {
    let numbers = version.lines().find_map(|line| line.strip_prefix("LLVM version: "))?;
    let mut numbers = numbers.split('.').map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn prefix_is_complete(prefix: &Path) -> bool {
    prefix.join("bin/cargo").is_file()
        && prefix.join("bin/rustc").is_file()
        && prefix.join("lib/rustlib/src/rust/library/core").is_dir()
}

fn nightly_has_source() -> bool {
    output(&mut cmd("rustup", ["component", "list", "--toolchain", "nightly", "--installed"]))
        .is_ok_and(|components| components.lines().any(|name| name == "rust-src"))
}

/// The command that installs a program from the crate registry, as fast as can be: what these programs
/// do themselves takes no time, optimising them would, and nobody debugs them.
pub(crate) fn install(crate_name: &'static str, version: &'static str) -> Command {
    let mut command =
        cmd("cargo", ["install", crate_name, "--version", version, "--locked", "--debug"]);
    command.env("CARGO_PROFILE_DEV_DEBUG", "0");
    command
}

/// Whether bpf-linker is there *and* runs: an upgrade of LLVM can leave it
/// without its library.
pub(crate) fn linker_works() -> bool {
    succeeds(&mut cmd("bpf-linker", ["--version"]))
}

/// Builds and installs bpf-linker against the LLVM of `toolchain`.
///
/// With Debian's compiler the LLVM headers and `llvm-config` are not needed: the
/// shared library that rustc itself uses is named to the linker.
pub(crate) fn install_linker(toolchain: &Toolchain) -> Result<()> {
    let (major, minor) = toolchain.llvm()?;
    let mut features = format!("llvm-{major}");
    let mut command = install("bpf-linker", BPF_LINKER_VERSION);
    command.args(["--force", "--no-default-features", "--features"]);
    if matches!(toolchain, Toolchain::Prefix(prefix) if prefix == SYSTEM_PREFIX) {
        features.push_str(",no-llvm-linking");
        let arch = std::env::consts::ARCH;
        let flags = format!(
            "-L native={SYSTEM_PREFIX}/lib/{arch}-linux-gnu -l dylib:+verbatim=libLLVM.so.{major}.{minor}"
        );
        command.env("RUSTFLAGS", flags);
    }
    execute(command.arg(features))
        .context("install bpf-linker (it needs the crate registry and a C compiler)")
}

/// Whether the tool chain that runs this has its library for `target`.
pub(crate) fn builds_for(target: &str) -> bool {
    output(&mut cmd("rustc", ["--print", "target-libdir", "--target", target]))
        .is_ok_and(|dir| Path::new(dir.trim()).is_dir())
}

/// Installs it, which only rustup can.
pub(crate) fn install_target(target: &str) -> Result<()> {
    execute(&mut cmd("rustup", ["target", "add", target])).with_context(|| {
        format!("add the target {target} to the tool chain (without rustup: its package for arm64)")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_llvm_s_version() {
        let text = "rustc 1.96.0 (ac68faa20 2026-05-25)\nrelease: 1.96.0\nLLVM version: 22.1.8\n";
        assert_eq!(parse_llvm(text), Some((22, 1)));
        assert_eq!(parse_llvm("rustc 1.96.0\n"), None);
    }

    #[test]
    fn hands_the_prefix_to_the_build() {
        let cargo = Toolchain::Prefix("/opt/rust".into()).cargo(["build"]);
        let shown = crate::run::shown(&cargo);
        assert!(shown.ends_with(" EBPF_TOOLCHAIN=/opt/rust cargo build"), "{shown}");
        assert!(shown.starts_with("EBPF_TARGET_DIR="), "{shown}");
    }
}
