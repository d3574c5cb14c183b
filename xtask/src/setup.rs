//! `cargo xtask setup`: brings what the build, the tests and the VMs need.
//!
//! It looks first and installs only what is missing, from the machine's own
//! package source and the crate registry; it asks nothing and changes no
//! setting. On other systems than Debian it names what is missing.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use crate::build::ARM_TARGET;
use crate::emulator::{self, Emulator};
use crate::run::{apt_get, cmd, succeeds, which};
use crate::supply;
use crate::toolchain::{self, Toolchain};

/// How to see that a package is installed.
enum Probe {
    /// A program in `PATH`.
    Program(&'static str),
    /// A file or directory.
    Path(&'static str),
}

/// A Debian package and how to see that what it brings is there.
struct Package {
    name: &'static str,
    probe: Probe,
}

/// What a command needs besides the tool chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// Building the agent.
    Build,
    /// Network namespaces.
    Namespaces,
    /// Everything that `cargo xtask test --quick` runs.
    Tests,
    /// The fuzz targets, the VMs, and all of the above.
    Vms,
    /// Building the agent for arm64.
    ArmBuild,
    /// The same, and a VM to try it in.
    ArmVm,
}

const COMPILER: &[Package] = &[
    Package { name: "rustc-web", probe: Probe::Path("/usr/bin/rustc") },
    Package { name: "cargo-web", probe: Probe::Path("/usr/bin/cargo") },
    Package { name: "rust-web-src", probe: Probe::Path("/usr/lib/rustlib/src/rust/library/core") },
];

const NAMESPACES: &[Package] = &[
    Package { name: "iproute2", probe: Probe::Program("ip") },
    Package { name: "util-linux", probe: Probe::Program("nsenter") },
];

const TESTS: &[Package] = &[
    Package { name: "ethtool", probe: Probe::Program("ethtool") },
    Package { name: "strace", probe: Probe::Program("strace") },
    Package { name: "systemd", probe: Probe::Program("systemd-analyze") },
    // For configs/receivers. The tests run an rsyslogd of their own; where systemd runs, Debian's
    // package starts its service as well.
    Package { name: "rsyslog", probe: Probe::Program("rsyslogd") },
    Package { name: "jq", probe: Probe::Program("jq") },
    // Whether they take their completions.
    Package { name: "zsh", probe: Probe::Program("zsh") },
    Package { name: "fish", probe: Probe::Program("fish") },
];

const FUZZ: &[Package] = &[Package { name: "g++", probe: Probe::Program("c++") }];

const VMS: &[Package] = &[
    // For the module that crashes test VMs; the kernel's objtool wants libelf.
    Package { name: "gcc", probe: Probe::Program("gcc") },
    Package { name: "make", probe: Probe::Program("make") },
    Package { name: "libelf1", probe: Probe::Path("/usr/lib/x86_64-linux-gnu/libelf.so.1") },
    // Stock Debian with systemd, for the package.
    Package { name: "mmdebstrap", probe: Probe::Program("mmdebstrap") },
    Package { name: "busybox-static", probe: Probe::Program("busybox") },
    Package { name: "libteam-utils", probe: Probe::Program("teamnl") },
    Package { name: "xz-utils", probe: Probe::Program("xz") },
    Package { name: "zstd", probe: Probe::Program("zstd") },
];

const ARM_BUILD: &[Package] = &[
    Package { name: "gcc-aarch64-linux-gnu", probe: Probe::Program("aarch64-linux-gnu-gcc") },
    Package {
        name: "libc6-dev-arm64-cross",
        probe: Probe::Path("/usr/aarch64-linux-gnu/lib/libc.a"),
    },
];

impl Package {
    fn is_there(&self) -> bool {
        match self.probe {
            Probe::Program(name) => which(name).is_some(),
            Probe::Path(path) => Path::new(path).exists(),
        }
    }
}

/// Runs the command.
pub(crate) fn run() -> Result<()> {
    ensure(Need::Vms)?;
    println!("setup: everything is there");
    Ok(())
}

/// Installs what `need` calls for and is missing, and returns the tool chain for
/// the eBPF crate.
pub(crate) fn ensure(need: Need) -> Result<Toolchain> {
    let groups: &[&[Package]] = match need {
        Need::Build => &[],
        Need::Namespaces => &[NAMESPACES],
        Need::Tests => &[NAMESPACES, TESTS],
        Need::Vms => &[NAMESPACES, TESTS, FUZZ, VMS],
        Need::ArmBuild | Need::ArmVm => &[ARM_BUILD],
    };
    let emulator = match need {
        Need::Build | Need::Namespaces | Need::Tests | Need::ArmBuild => None,
        Need::Vms => Some(emulator::X86),
        Need::ArmVm => Some(emulator::ARM),
    };
    let emulator = emulator.filter(|emulator| !emulator.is_there());
    let found = Toolchain::find();
    let compiler = if found.is_none() { COMPILER } else { &[] };
    let missing: Vec<&str> = groups
        .iter()
        .flat_map(|group| group.iter())
        .filter(|package| !package.is_there())
        .chain(compiler)
        .map(|package| package.name)
        .collect();
    bring(&missing, emulator)?;
    let toolchain = match found.or_else(Toolchain::find) {
        Some(toolchain) => toolchain,
        None => bail!(
            "no tool chain for the eBPF crate: the packages {} did not bring the compiler with the \
             library's source; install `rustup toolchain install nightly --component rust-src` or \
             set EBPF_TOOLCHAIN to a prefix that has both",
            COMPILER.iter().map(|package| package.name).collect::<Vec<_>>().join(", ")
        ),
    };
    if !toolchain::linker_works() {
        println!("setup: installing bpf-linker (a minute)");
        toolchain::install_linker(&toolchain)?;
        ensure!(
            toolchain::linker_works(),
            "bpf-linker was installed but `bpf-linker --version` fails: is cargo's bin directory in PATH?"
        );
    }
    if matches!(need, Need::Tests | Need::Vms) {
        rustup_components()?;
        supply::DENY.ensure()?;
        supply::MACHETE.ensure()?;
    }
    if matches!(need, Need::Vms | Need::ArmBuild | Need::ArmVm) {
        supply::AUDITABLE.ensure()?;
    }
    if need == Need::Vms {
        supply::DEB.ensure()?;
        supply::FUZZ.ensure()?;
    }
    if matches!(need, Need::ArmBuild | Need::ArmVm) && !toolchain::builds_for(ARM_TARGET) {
        println!("setup: installing Rust's library for {ARM_TARGET}");
        toolchain::install_target(ARM_TARGET)?;
    }
    Ok(toolchain)
}

/// Installs the packages and unpacks the emulator.
fn bring(packages: &[&str], emulator: Option<Emulator>) -> Result<()> {
    let emulator_package = emulator.map(|emulator| emulator.package());
    let list = packages.iter().copied().chain(emulator_package).collect::<Vec<_>>().join(" ");
    if list.is_empty() {
        return Ok(());
    }
    ensure!(
        which("apt-get").is_some(),
        "missing: what Debian's packages `{list}` bring (there is no apt-get here); \
         for the eBPF crate a nightly with rust-src and a bpf-linker do as well"
    );
    ensure!(
        rustix::process::geteuid().is_root(),
        "missing packages: run `apt-get install --no-install-recommends {list}` as root, or this command"
    );
    apt_get(&["update"]).context("refresh the package index")?;
    if !packages.is_empty() {
        let list = packages.join(" ");
        println!("setup: installing the packages {list}");
        apt_get(&[&["install", "--no-install-recommends", "--no-remove"], packages].concat())
            .with_context(|| format!("install the packages {list}"))?;
    }
    emulator.map_or(Ok(()), |emulator| emulator.fetch())
}

/// `cargo fmt` and `cargo clippy` belong to the tool chain that runs this.
fn rustup_components() -> Result<()> {
    for (component, subcommand) in [("rustfmt", "fmt"), ("clippy", "clippy")] {
        ensure!(
            succeeds(&mut cmd("cargo", [subcommand, "--version"])),
            "`cargo {subcommand}` is missing: run `rustup component add {component}`"
        );
    }
    Ok(())
}
