//! The module that crashes a guest (`tests/crash-module`), built against the headers of a
//! Debian kernel, which are unpacked like the kernel and not installed.
//!
//! The machine's own compiler builds it, whatever compiler built the kernel. A kernel of a newer
//! Debian brings tools (modpost, objtool) that want that Debian's C library: they get it by a
//! wrapper, from the package `libc6` of that release.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::super::kernel::{Apt, Architecture, COMPLETE, Kernel, SUITES};
use crate::run::{cmd, output, root};

/// The file that the build makes.
pub(super) const FILE: &str = "last_words_crash.ko";
const SOURCES: &[&str] = &["last_words_crash.c", "Kbuild"];
/// The Debian whose C library the tools of the newest kernels want.
const NEWER_SUITE: &str = "trixie";
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";
/// The tools that do not run on an older C library.
const TOOLS: &[&str] = &["scripts/mod/modpost.real-lsb-64", "tools/objtool/objtool.real-x86"];

/// Builds the module for `kernel` and returns where it lies.
///
/// # Errors
/// No headers of this very kernel in the archive any more, or a build that failed.
pub(super) fn build(kernel: &Kernel, cache: &Path) -> Result<PathBuf> {
    let headers = headers(kernel, cache)?;
    let dir = headers.join("module");
    fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
    for name in SOURCES {
        let from = root().join("tests/crash-module").join(name);
        let new = fs::read(&from).with_context(|| format!("read {}", from.display()))?;
        let to = dir.join(name);
        // make goes by the times.
        if fs::read(&to).ok().as_ref() != Some(&new) {
            fs::write(&to, new).with_context(|| format!("write {}", to.display()))?;
        }
    }
    let mut make = cmd("make", ["-s", "-C"]);
    make.arg(tree(&headers, kernel)).arg(format!("M={}", dir.display()));
    // The kernel's compiler may have had an option that ours lacks, and without the kernel's
    // debug information there is no BTF for a module.
    make.args(["CC=gcc", "CROSS_COMPILE=", "CONFIG_DEBUG_INFO_BTF_MODULES="]);
    make.args(["CONFIG_CC_HAS_MIN_FUNCTION_ALIGNMENT=", "modules"]);
    output(&mut make).context("build the module that crashes")?;
    let module = dir.join(FILE);
    ensure!(module.is_file(), "the build made no {}", module.display());
    Ok(module)
}

fn tree(headers: &Path, kernel: &Kernel) -> PathBuf {
    headers.join(format!("usr/src/linux-headers-{}", kernel.release))
}

/// The unpacked headers of this kernel, made usable where they lie.
fn headers(kernel: &Kernel, cache: &Path) -> Result<PathBuf> {
    let dir = cache.join("headers").join(&kernel.release);
    if dir.join(COMPLETE).is_file() {
        return Ok(dir);
    }
    let apt = Apt::new(&cache.join("apt"), Architecture::Amd64, SUITES)?;
    let package = format!("linux-headers-{}", kernel.release);
    let mut packages = apt.depends(&package).with_context(|| {
        format!("the archive has no {package} (any more); --refresh takes its newest kernel")
    })?;
    packages.retain(|name| {
        ["linux-headers-", "linux-kbuild-"].iter().any(|start| name.starts_with(start))
    });
    packages.push(package);
    apt.unpack(&packages, &dir)?;
    let makefile = tree(&dir, kernel).join("Makefile");
    let text = fs::read_to_string(&makefile);
    let text = text.with_context(|| format!("read {}", makefile.display()))?;
    let text = text.replace("/usr/src/", &format!("{}/usr/src/", dir.display()));
    fs::write(&makefile, text).with_context(|| format!("write {}", makefile.display()))?;
    let tools: Vec<PathBuf> = TOOLS.iter().map(|tool| tree(&dir, kernel).join(tool)).collect();
    if tools.iter().any(|tool| wants_newer_libc(tool)) {
        let libc = newer_libc(cache)?;
        tools.iter().try_for_each(|tool| wrap(tool, &libc))?;
    }
    fs::write(dir.join(COMPLETE), "")
        .with_context(|| format!("mark {} as complete", dir.display()))?;
    Ok(dir)
}

/// Without arguments such a tool does nothing; the loader says what it misses.
fn wants_newer_libc(tool: &Path) -> bool {
    let said = cmd(tool, [] as [&str; 0]).output();
    said.is_ok_and(|out| String::from_utf8_lossy(&out.stderr).contains("GLIBC_"))
}

/// The directory of a newer C library and its loader.
fn newer_libc(cache: &Path) -> Result<PathBuf> {
    let dir = cache.join("headers/libc");
    let libraries = dir.join(LIBRARIES);
    if !dir.join(COMPLETE).is_file() {
        // A state of its own: in that of the kernels the suite's kernels would appear.
        let apt = Apt::new(&cache.join("apt-libc"), Architecture::Amd64, &[NEWER_SUITE])?;
        apt.unpack(&["libc6".to_owned()], &dir)?;
        fs::write(dir.join(COMPLETE), "")
            .with_context(|| format!("mark {} as complete", dir.display()))?;
    }
    Ok(libraries)
}

/// Puts a script in the place of the tool which starts it with these libraries.
fn wrap(tool: &Path, libraries: &Path) -> Result<()> {
    let moved = tool.with_extension("elf");
    fs::rename(tool, &moved).with_context(|| format!("rename {}", tool.display()))?;
    let libraries = libraries.display();
    let script = format!(
        "#!/bin/sh\nexec '{libraries}/ld-linux-x86-64.so.2' \
         --library-path '{libraries}:/{LIBRARIES}' '{}' \"$@\"\n",
        moved.display()
    );
    fs::write(tool, script).with_context(|| format!("write {}", tool.display()))?;
    fs::set_permissions(tool, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("make {} executable", tool.display()))
}
