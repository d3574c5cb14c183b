//! `cargo xtask vm`: stock Debian kernels under emulation, where the agent and
//! the kernel's own netconsole send the same records side by side.
//!
//! The host builds a root file system, boots it, and judges the frames that left
//! the VM; inside, `tests/vm/init` and the runner (`tests/src/bin/vm_runner.rs`)
//! do the rest. Everything lies below `target/vm`; the machine's own kernel,
//! modules and network are not touched.

mod capture;
pub(crate) mod initramfs;
mod judge;
pub(crate) mod kernel;
pub(crate) mod last_words;
pub(crate) mod qemu;
mod record;
mod report;
#[path = "../../../agent/src/egress/xdp/defect.rs"]
#[allow(unreachable_pub, reason = "it is public in the agent")]
mod xdp_defect;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use self::judge::Evidence;
pub(crate) use self::kernel::{Architecture, archive};
use self::qemu::Boot;
use self::report::{Outcome, Report, Verdict};
use crate::build;
use crate::run::{execute, root, shown, target_dir};
use crate::setup::{self, Need};
use crate::signals::Interrupt;
use crate::summary::{CargoTest, Count};
use crate::toolchain::Toolchain;

/// The oldest kernel that is supported and the newest stable one.
pub(crate) const TESTED: &[&str] = &["6.1", "7"];

/// The kernel that crashes in every test run: the one whose own netconsole says nothing in a panic.
pub(crate) const CRASHED: &str = "7";

/// The target of the static build; glibc's is what every tool chain has.
const TARGET: &str = "x86_64-unknown-linux-gnu";
const BOOT_LIMIT: Duration = Duration::from_secs(420);

/// Modules for the network and netconsole's ways through it, the records that drivers print, netconsole, and a keyboard, whose
/// interrupt prints.
const MODULES: &[&str] = &[
    "virtio_pci",
    "virtio_net",
    "configfs",
    "netconsole",
    "veth",
    "bridge",
    "bonding",
    "dummy",
    "e1000e",
    "i8042",
    "atkbd",
    "rtc_cmos",
];

/// Devices that the network tests are about.
const NETWORK_MODULES: &[&str] = &[
    "virtio_pci",
    "veth",
    "bridge",
    "8021q",
    "bonding",
    "team",
    "team_mode_activebackup",
    "dummy",
    "af_packet",
];
/// The integration tests that run in the guest: a file of `tests/tests`.
const NETWORK_TESTS: &str = "stacked";

/// Arguments of the command.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Kernel series, for example 6.1, 6.12, 6.18 or 7: the newest Debian package of it is taken
    #[arg(long = "kernel", value_name = "SERIES", default_values = TESTED)]
    kernels: Vec<String>,
    /// Look for a newer package even if one of the series is there
    #[arg(long)]
    refresh: bool,
    /// Print everything that the runner in the guest said
    #[arg(long)]
    verbose: bool,
    #[command(flatten)]
    last_words: last_words::Args,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<()> {
    let toolchain = setup::ensure(Need::Vms)?;
    let interrupt = Interrupt::watch()?;
    if args.last_words.wanted() {
        return last_words::run(
            &args.last_words,
            &args.kernels,
            args.refresh,
            &toolchain,
            &interrupt,
        );
    }
    let mut count = Count::default();
    for series in &args.kernels {
        count += test(series, &toolchain, &interrupt, args.refresh, args.verbose)?;
    }
    println!("{count}");
    ensure!(count.failed == 0, "the VM tests failed");
    Ok(())
}

/// Runs the tests on the newest kernel of `series` and prints each outcome.
pub(crate) fn test(
    series: &str,
    toolchain: &Toolchain,
    interrupt: &Interrupt,
    refresh: bool,
    verbose: bool,
) -> Result<Count> {
    // The series before may have been interrupted.
    interrupt.check()?;
    let cache = target_dir().join("vm");
    let kernel = kernel::fetch(series, Architecture::Amd64, &cache, refresh)?;
    println!("vm: kernel {}", kernel.release);
    let programs = build_all(toolchain)?;
    let dir = cache.join("runs").join(&kernel.release);
    fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
    let initramfs = dir.join("initramfs.cpio");
    pack(&kernel, &programs, &initramfs)?;

    let start = Instant::now();
    let boot = Boot::in_dir(&dir, "");
    let report = boot_with_retry(&boot, &kernel, &initramfs, interrupt)?;
    if verbose {
        report.other.iter().for_each(|line| println!("guest    | {line}"));
    }
    let pcap = fs::read(&boot.pcap).with_context(|| format!("read {}", boot.pcap.display()))?;
    let captured = capture::datagrams(&pcap).context("what left the VM")?;
    let mut outcomes = report.tests.clone();
    outcomes.extend(Evidence::new(&report, &captured).judge());
    let mut count = print(&kernel.release, &outcomes);
    count += network(&kernel, &programs, &dir, interrupt, verbose)?;
    println!("vm: {} took {:.0} s: {count}", kernel.release, start.elapsed().as_secs_f64());
    if count.failed > 0 {
        println!("vm: the console, the report and the capture are in {}", dir.display());
    }
    Ok(count)
}

/// Runs the integration tests whose devices this machine's kernel may lack, in a
/// boot of their own.
fn network(
    kernel: &kernel::Kernel,
    programs: &Programs,
    dir: &Path,
    interrupt: &Interrupt,
    verbose: bool,
) -> Result<Count> {
    let dir = dir.join("network");
    fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
    let initramfs = dir.join("initramfs.cpio");
    let mut archive = base_archive(kernel, programs, NETWORK_MODULES)?;
    initramfs::add_programs(&mut archive, &["ip", "teamnl"])?;
    archive.copy("bin/network_tests", &programs.network_tests)?;
    fs::write(&initramfs, archive.finish())
        .with_context(|| format!("write {}", initramfs.display()))?;
    let boot = Boot::in_dir(&dir, "vm_tests=network");
    let report = boot_with_retry(&boot, kernel, &initramfs, interrupt)?;
    let mut output = CargoTest::default();
    for line in &report.other {
        output.read_line(line);
        if verbose || line.starts_with("test ") || line.starts_with("SKIPPED: ") {
            println!("vm test {} network {line}", kernel.release);
        }
    }
    let mut count = output.count();
    if count == Count::default() {
        println!("vm: the network tests did not run, see {}", boot.report.display());
        count.failed = 1;
    } else if count.failed > 0 {
        report.other.iter().for_each(|line| println!("guest    | {line}"));
    }
    Ok(count)
}

/// Emulated guests hang now and then while booting.
fn boot_with_retry(
    boot: &Boot,
    kernel: &kernel::Kernel,
    initramfs: &Path,
    interrupt: &Interrupt,
) -> Result<Report> {
    let attempt = || {
        boot.run(&kernel.image, initramfs, BOOT_LIMIT, interrupt)?;
        let bytes =
            fs::read(&boot.report).with_context(|| format!("read {}", boot.report.display()))?;
        Report::parse(&bytes)
    };
    let report = attempt().or_else(|error| {
        interrupt.check()?;
        println!("vm: RETRY of {}: {error:#} (see {})", kernel.release, boot.report.display());
        attempt()
    });
    report.with_context(|| {
        format!("kernel {} in a VM; what it said is in {}", kernel.release, boot.report.display())
    })
}

fn print(release: &str, outcomes: &[Outcome]) -> Count {
    let mut count = Count::default();
    // As in the other tests: what is left out unexpectedly fails where it counts.
    for (name, verdict) in outcomes {
        let (word, text) = match verdict {
            Verdict::Passed(text) => {
                count.passed += 1;
                ("ok", text)
            }
            Verdict::Failed(text) => {
                count.failed += 1;
                ("FAILED", text)
            }
            Verdict::Skipped(text) => {
                count.skipped += 1;
                ("skipped", text)
            }
        };
        println!("vm test {release} {name} ... {word}: {text}");
    }
    count
}

/// Where the programs of the guest are.
struct Programs {
    agent: PathBuf,
    runner: PathBuf,
    network_tests: PathBuf,
}

/// Builds them without shared libraries, in a directory of their own.
fn build_all(toolchain: &Toolchain) -> Result<Programs> {
    let built = build_programs(toolchain)?;
    let mut tests = static_cargo(toolchain, &["test", "-p", "agent-tests"]);
    tests.args(["--test", NETWORK_TESTS, "--no-run"]);
    let network_tests = executable(tests.arg("--message-format=json-render-diagnostics"))?;
    Ok(Programs {
        agent: built.join("netconsole-agent"),
        runner: built.join("vm_runner"),
        network_tests,
    })
}

/// Builds the agent and the programs that go with the VMs; returns the directory where they are.
fn build_programs(toolchain: &Toolchain) -> Result<PathBuf> {
    let what = ["build", "-p", "netconsole-agent", "-p", "agent-tests", "--bins"];
    execute(&mut static_cargo(toolchain, &what))?;
    Ok(static_target_dir().join(TARGET).join("release"))
}

/// Builds the agent without shared libraries; returns where it is.
pub(crate) fn static_agent(toolchain: &Toolchain) -> Result<PathBuf> {
    Ok(build_programs(toolchain)?.join("netconsole-agent"))
}

fn static_target_dir() -> PathBuf {
    target_dir().join("vm/build")
}

fn static_cargo(toolchain: &Toolchain, args: &[&'static str]) -> Command {
    build::static_cargo(toolchain, args, TARGET, &static_target_dir())
}

/// The test binary that a `cargo test --no-run` built, from cargo's messages.
fn executable(cargo: &mut Command) -> Result<PathBuf> {
    println!("+ {}", shown(cargo));
    let out = cargo.stderr(Stdio::inherit()).output().context("cannot start cargo")?;
    ensure!(out.status.success(), "the network tests cannot be built");
    let messages = String::from_utf8_lossy(&out.stdout).into_owned();
    let of_test = |message: &serde_json::Value| {
        (message["target"]["name"] == NETWORK_TESTS)
            .then(|| message["executable"].as_str().map(PathBuf::from))?
    };
    messages
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .find_map(|message| of_test(&message))
        .context("cargo did not say where the network tests are")
}

fn base_archive(
    kernel: &kernel::Kernel,
    programs: &Programs,
    modules: &[&str],
) -> Result<initramfs::Archive> {
    let mut archive = initramfs::Archive::default();
    initramfs::add_base(&mut archive, &initramfs::own_busybox()?)?;
    initramfs::add_modules(&mut archive, kernel, modules)?;
    archive.copy("init", &root().join("tests/vm/init"))?;
    archive.copy("bin/netconsole-agent", &programs.agent)?;
    Ok(archive)
}

fn pack(kernel: &kernel::Kernel, programs: &Programs, into: &Path) -> Result<()> {
    let mut archive = base_archive(kernel, programs, MODULES)?;
    archive.copy("bin/vm_runner", &programs.runner)?;
    fs::write(into, archive.finish()).with_context(|| format!("write {}", into.display()))
}
