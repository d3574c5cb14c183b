//! `cargo xtask dist`: what a host installs, below `target/dist`: a Debian package and a tarball, each
//! with the static binary, its unit, man pages and completions; and the debug information apart.
//!
//! The pages and the completions come from the binary itself, for arm64 from that of this machine: it is
//! built from the same source and says the same. The package's contents are listed in
//! `agent/Cargo.toml` (`[package.metadata.deb]`), its scripts are in `configs/debian`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::build;
use crate::run::{cmd, execute, output, root, target_dir};
use crate::setup::{self, Need};
use crate::toolchain::Toolchain;
use crate::vm::{self, Architecture};

const NAME: &str = "netconsole-agent";
const SHELLS: [(&str, &str); 3] =
    [("bash", "netconsole-agent"), ("zsh", "_netconsole-agent"), ("fish", "netconsole-agent.fish")];

/// What the binary runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Arch {
    /// This machine's.
    #[value(name = "x86_64")]
    X86,
    /// arm64, cross-built.
    #[value(name = "aarch64")]
    Arm,
}

impl Arch {
    /// Its name in the names of tarballs.
    fn name(self) -> &'static str {
        match self {
            Self::X86 => "x86_64",
            Self::Arm => "aarch64",
        }
    }

    fn debian(self) -> Architecture {
        match self {
            Self::X86 => Architecture::Amd64,
            Self::Arm => Architecture::Arm64,
        }
    }

    /// The program that splits its binaries.
    fn objcopy(self) -> String {
        match self {
            Self::X86 => "objcopy".to_owned(),
            Self::Arm => format!("{}objcopy", build::ARM_TOOLS),
        }
    }

    /// What cargo-deb must be told.
    fn deb_arguments(self) -> &'static [&'static str] {
        match self {
            Self::X86 => &[],
            Self::Arm => &["--target", build::ARM_TARGET],
        }
    }
}

/// Arguments of the command.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// What it is made for; may be given more than once
    #[arg(long, value_enum, default_values_t = [Arch::X86])]
    arch: Vec<Arch>,
}

/// What was made.
pub(crate) struct Packages {
    /// The binary as it is in the packages.
    pub(crate) binary: PathBuf,
    /// The Debian package.
    pub(crate) deb: PathBuf,
    /// The same as a later revision, to try an upgrade.
    pub(crate) newer_deb: PathBuf,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<()> {
    let toolchain = setup::ensure(Need::Vms)?;
    empty_dir()?;
    for &arch in &args.arch {
        make_for(arch, &toolchain)?;
    }
    let sums = output(cmd("sha256sum", ["--"]).args(products()?).current_dir(dir()))?;
    fs::write(dir().join("SHA256SUMS"), &sums).context("write the check sums")?;
    print!("{sums}");
    Ok(())
}

fn dir() -> PathBuf {
    target_dir().join("dist")
}

/// Names of the files to be published.
fn products() -> Result<Vec<String>> {
    let listed = fs::read_dir(dir()).with_context(|| format!("list {}", dir().display()))?;
    let names = listed.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<_> = names
        .filter(|name| [".deb", ".tar.gz", ".debug"].iter().any(|end| name.ends_with(end)))
        .collect();
    names.sort();
    Ok(names)
}

/// Removes what was made before.
fn empty_dir() -> Result<()> {
    let dir = dir();
    if dir.exists() {
        fs::remove_dir_all(&dir).with_context(|| format!("remove {}", dir.display()))?;
    }
    Ok(())
}

/// Makes everything for this machine.
pub(crate) fn make(toolchain: &Toolchain) -> Result<Packages> {
    empty_dir()?;
    make_for(Arch::X86, toolchain)
}

fn make_for(arch: Arch, toolchain: &Toolchain) -> Result<Packages> {
    let own = vm::static_agent(toolchain)?;
    let built = match arch {
        Arch::X86 => own.clone(),
        Arch::Arm => {
            setup::ensure(Need::ArmBuild)?;
            build::arm_agent(toolchain)?
        }
    };
    let dir = dir();
    let stage = dir.join("stage");
    if stage.exists() {
        fs::remove_dir_all(&stage).with_context(|| format!("remove {}", stage.display()))?;
    }
    stage_files(arch, &built, &own, &stage)?;
    let version = env!("CARGO_PKG_VERSION");
    tarball(&stage, &dir.join(format!("{NAME}-{version}-{}.tar.gz", arch.name())))?;
    let deb = |revision: &str, into: &Path| {
        let mut command = toolchain.cargo(["deb", "--no-build", "--no-strip", "--package", NAME]);
        command.args(arch.deb_arguments()).args(["--deb-revision", revision, "--output"]).arg(into);
        execute(&mut command)
    };
    let package = dir.join(format!("{NAME}_{version}-1_{}.deb", arch.debian().debian()));
    deb("1", &package)?;
    // Not among the products.
    let newer_deb = stage.join("newer.deb");
    deb("2", &newer_deb)?;
    Ok(Packages { binary: stage.join(NAME), deb: package, newer_deb })
}

/// Puts what is installed into a directory, as `[package.metadata.deb]` expects it.
/// `own` runs here.
fn stage_files(arch: Arch, built: &Path, own: &Path, stage: &Path) -> Result<()> {
    for sub in ["man", "completions"] {
        let path = stage.join(sub);
        fs::create_dir_all(&path).with_context(|| format!("make {}", path.display()))?;
    }
    let binary = stage.join(NAME);
    let debug = dir().join(format!("{NAME}-{}.debug", arch.name()));
    let objcopy = arch.objcopy();
    execute(cmd(&objcopy, ["--only-keep-debug"]).arg(built).arg(&debug))?;
    let link = format!("--add-gnu-debuglink={}", debug.display());
    execute(cmd(&objcopy, ["--strip-all", &link]).arg(built).arg(&binary))?;

    execute(cmd(own, ["man", "--out"]).arg(stage.join("man")))?;
    for (shell, file) in SHELLS {
        let script = output(&mut cmd(own, ["completions", shell]))?;
        let path = stage.join("completions").join(file);
        fs::write(&path, script).with_context(|| format!("write {}", path.display()))?;
    }
    let configs = root().join("configs");
    let unit = ["netconsole-agent.service", "netconsole-agent.sysusers", "agent.schema.json"];
    for name in unit {
        let from = configs.join(name);
        fs::copy(&from, stage.join(name)).with_context(|| format!("copy {}", from.display()))?;
    }
    let example = configs.join("agent.toml");
    let text =
        fs::read_to_string(&example).with_context(|| format!("read {}", example.display()))?;
    let path = stage.join("agent.toml");
    fs::write(&path, without_target(&text)).with_context(|| format!("write {}", path.display()))
}

/// The commented example with its target commented out as well: what is installed sends nowhere.
fn without_target(example: &str) -> String {
    let is_target = |line: &str| line.starts_with("[target.") || line.starts_with("remote = ");
    let line =
        |line: &str| if is_target(line) { format!("# {line}\n") } else { format!("{line}\n") };
    example.lines().map(line).collect()
}

fn tarball(stage: &Path, into: &Path) -> Result<()> {
    let prefix = format!("{NAME}-{}", env!("CARGO_PKG_VERSION"));
    let mut command = cmd("tar", ["--create", "--gzip", "--owner=0", "--group=0", "--sort=name"]);
    command.arg(format!("--transform=s,^[.],{prefix},")).arg("--file").arg(into);
    let licences = ["LICENSE-APACHE", "LICENSE-MIT"];
    command.arg("--directory").arg(stage).arg(".");
    command.arg("--directory").arg(root());
    command.args(licences.map(|name| format!("./{name}")));
    execute(&mut command)?;
    File::open(into).map(drop).with_context(|| format!("read {}", into.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_installed_has_no_target() {
        let example = fs::read_to_string(root().join("configs/agent.toml")).unwrap();
        let installed = without_target(&example);
        let setting = |line: &str| !line.starts_with('#') && !line.is_empty();
        let settings: Vec<_> = installed.lines().filter(|line| setting(line)).collect();
        assert_eq!(settings, ["[agent]", "[last_words]"]);
        assert_eq!(installed.lines().count(), example.lines().count());
    }
}
