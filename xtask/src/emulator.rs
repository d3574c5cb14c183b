//! QEMU for the test VMs: the machine's own, else Debian's, unpacked below the build directory.
//!
//! It is not installed like the other packages. Debian's packages of one version of QEMU exclude
//! those of another, so on a machine with, say, the `qemu-utils` of the backports nothing less
//! than removing that would do.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::run::{apt_get, cmd, execute, succeeds, target_dir, which};

/// An emulator of one architecture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Emulator {
    program: &'static str,
    package: &'static str,
}

/// Emulates the machines of `cargo xtask vm`.
pub(crate) const X86: Emulator =
    Emulator { program: "qemu-system-x86_64", package: "qemu-system-x86" };
/// Emulates those of `cargo xtask arm`.
pub(crate) const ARM: Emulator =
    Emulator { program: "qemu-system-aarch64", package: "qemu-system-arm" };

/// Where Debian's packages for amd64 have their libraries.
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";

impl Emulator {
    /// Whether it can be started.
    pub(crate) fn is_there(&self) -> bool {
        which(self.program).is_some() || self.unpacked().is_dir()
    }

    /// The Debian package that brings it.
    pub(crate) fn package(&self) -> &'static str {
        self.package
    }

    /// Fetches it with what it needs and the machine lacks. The package index is fresh.
    pub(crate) fn fetch(&self) -> Result<()> {
        let unpacked = self.unpacked();
        println!("setup: unpacking the package {} to {}", self.package, unpacked.display());
        let archives = unpacked.with_extension("archives");
        let unfinished = unpacked.with_extension("unfinished");
        for dir in [&archives, &unfinished] {
            if dir.exists() {
                fs::remove_dir_all(dir).with_context(|| format!("remove {}", dir.display()))?;
            }
        }
        let partial = archives.join("partial");
        fs::create_dir_all(&partial).with_context(|| format!("create {}", partial.display()))?;
        let cache = format!("Dir::Cache::archives={}", archives.display());
        // apt's own user may not write here.
        let options = ["-o", &cache, "-o", "APT::Sandbox::User=root", "--no-install-recommends"];
        apt_get(&[&["install", "--download-only"], &options[..], &[self.package]].concat())
            .with_context(|| format!("download the package {}", self.package))?;
        let listing = || format!("list {}", archives.display());
        for entry in fs::read_dir(&archives).with_context(listing)? {
            let file = entry.with_context(listing)?.path();
            if file.extension() == Some(OsStr::new("deb")) {
                execute(cmd("dpkg-deb", ["-x"]).arg(&file).arg(&unfinished))?;
            }
        }
        ensure!(
            succeeds(self.in_dir(&unfinished).arg("--version")),
            "the package {} was unpacked to {}, but `{} --version` fails there",
            self.package,
            unfinished.display(),
            self.program
        );
        fs::rename(&unfinished, &unpacked)
            .with_context(|| format!("rename {}", unfinished.display()))?;
        fs::remove_dir_all(&archives).with_context(|| format!("remove {}", archives.display()))
    }

    /// The emulator with these arguments.
    pub(crate) fn command<I, S>(&self, arguments: I) -> Command
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        let mut command = match which(self.program) {
            Some(_) => cmd(self.program, [""; 0]),
            None => self.in_dir(&self.unpacked()),
        };
        command.args(arguments);
        command
    }

    fn in_dir(&self, dir: &Path) -> Command {
        let libraries = dir.join(LIBRARIES);
        let mut command = cmd(dir.join("usr/bin").join(self.program), [""; 0]);
        command.env("LD_LIBRARY_PATH", &libraries).env("QEMU_MODULE_DIR", libraries.join("qemu"));
        for data in ["usr/share/qemu", "usr/share/seabios", "usr/lib/ipxe/qemu"] {
            command.arg("-L").arg(dir.join(data));
        }
        command
    }

    fn unpacked(&self) -> PathBuf {
        target_dir().join("emulator").join(self.package)
    }
}
