//! `cargo xtask arm`: the agent on arm64. It is cross-built, and run in emulated machines with stock Debian
//! kernels: every eBPF program is loaded and attached there, and records are sent and received.
//!
//! It is no part of `cargo xtask test`: the agent is built once more for it, and without an arm64 processor each
//! kernel takes most of a minute, if the machine has nothing else to do. `guest` is the machine, inside of which `tests/vm/arm-init` does what is to be done; `judge` looks at what it told.
//! Not tested on arm64: speed, AF_XDP and AF_PACKET (the machine has no network device), and the last words of
//! a machine that really panics. Everything lies below `target/arm`.

mod guest;
mod judge;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use self::guest::{Boot, Said};
use crate::build;
use crate::run::{root, target_dir};
use crate::setup::{self, Need};
use crate::signals::Interrupt;
use crate::summary::Count;
use crate::vm::Architecture;
use crate::vm::initramfs::{self, Archive};
use crate::vm::kernel::{self, Apt, Kernel, SUITES};

/// The oldest kernel that is supported, where functions have kprobes alone; a newer one whose
/// functions take fentry programs; the same with larger pages of memory, which rings are made of; and
/// the newest.
const TESTED: &[&str] = &["6.1", "6.12", "6.12-16k", "7"];

/// Arguments of the command.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Kernel series, for example 6.1, 6.12 or 6.12-16k: the newest Debian package of it is taken
    #[arg(long = "kernel", value_name = "SERIES", default_values = TESTED)]
    kernels: Vec<String>,
    /// Look for a newer package even if one of the series is there
    #[arg(long)]
    refresh: bool,
    /// Print what the agent logged in the guest
    #[arg(long)]
    verbose: bool,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<()> {
    let toolchain = setup::ensure(Need::ArmVm)?;
    let interrupt = Interrupt::watch()?;
    let agent = build::arm_agent(&toolchain)?;
    let cache = target_dir().join("arm");
    let busybox = busybox(&cache)?;
    let mut count = Count::default();
    for series in &args.kernels {
        interrupt.check()?;
        let kernel = kernel::fetch(series, Architecture::Arm64, &cache, args.refresh)?;
        count += test(&kernel, &agent, &busybox, &interrupt, args.verbose)?;
    }
    println!("{count}");
    ensure!(count.failed == 0, "the agent does not work on arm64");
    Ok(())
}

fn test(
    kernel: &Kernel,
    agent: &Path,
    busybox: &Path,
    interrupt: &Interrupt,
    verbose: bool,
) -> Result<Count> {
    let release = &kernel.release;
    println!("arm: kernel {release}");
    let start = Instant::now();
    let dir = target_dir().join("arm/runs").join(release);
    fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
    let initramfs = dir.join("initramfs.cpio");
    let mut archive = Archive::default();
    initramfs::add_base(&mut archive, busybox)?;
    archive.copy("init", &root().join("tests/vm/arm-init"))?;
    archive.copy("bin/netconsole-agent", agent)?;
    fs::write(&initramfs, archive.finish())
        .with_context(|| format!("write {}", initramfs.display()))?;

    let said = boot_with_retry(&Boot { kernel, initramfs: &initramfs, dir: &dir }, interrupt)?;
    let mut count = Count::default();
    for (name, result) in judge::judge(release, &said) {
        let (word, text) = match result {
            Ok(seen) => {
                count.passed += 1;
                ("ok", seen)
            }
            Err(error) => {
                count.failed += 1;
                ("FAILED", format!("{error:#}"))
            }
        };
        println!("arm test {release} {name} ... {word}: {text}");
    }
    if verbose || count.failed > 0 {
        said.log.iter().for_each(|line| println!("guest    | {line}"));
    }
    println!("arm: {release} took {:.0} s: {count}", start.elapsed().as_secs_f64());
    if count.failed > 0 {
        println!("arm: the console is in {}", dir.display());
    }
    Ok(count)
}

/// Emulated guests hang now and then while booting.
fn boot_with_retry(boot: &Boot<'_>, interrupt: &Interrupt) -> Result<Said> {
    let said = boot.run(interrupt).or_else(|error| {
        interrupt.check()?;
        println!("arm: RETRY of {}: {error:#}", boot.kernel.release);
        boot.run(interrupt)
    });
    said.with_context(|| {
        let console = boot.console();
        format!("kernel {} in a VM; its console is in {}", boot.kernel.release, console.display())
    })
}

/// A busybox for arm64, from Debian's package.
fn busybox(cache: &Path) -> Result<PathBuf> {
    let dir = cache.join("busybox");
    let candidates = ["bin/busybox", "usr/bin/busybox"].map(|path| dir.join(path));
    let find = || candidates.iter().find(|path| path.is_file()).cloned();
    if let Some(found) = find() {
        return Ok(found);
    }
    let apt = Apt::new(&cache.join("apt"), Architecture::Arm64, SUITES)?;
    apt.unpack(&["busybox-static".to_owned()], &dir)?;
    find().with_context(|| format!("no busybox in {}; remove that directory", dir.display()))
}
