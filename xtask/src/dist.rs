//! `cargo xtask dist`: what a host installs, below `target/dist`: a Debian package and a tarball, each
//! with the static binary, its unit, man pages, completions and documents; and the debug information
//! apart.
//!
//! The pages and the completions come from the binary itself, for arm64 from that of this machine: it is
//! built from the same source and says the same. The package's contents are listed in
//! `agent/Cargo.toml` (`[package.metadata.deb]`), its scripts are in `configs/debian`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::build;
use crate::run::{cmd, execute, output, root};
use crate::setup::{self, Need};
use crate::toolchain::Toolchain;
use crate::vm::{self, Architecture};

const NAME: &str = "netconsole-agent";
const SHELLS: [(&str, &str); 3] =
    [("bash", "netconsole-agent"), ("zsh", "_netconsole-agent"), ("fish", "netconsole-agent.fish")];

/// What is there to read, with the folders of the repository, so that the links between them lead
/// somewhere.
const DOCUMENTS: [&str; 10] = [
    "README.md",
    "MIGRATION.md",
    "CONTRIBUTING.md",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "agent/ARCHITECTURE.md",
    "configs/agent.toml",
    "configs/alerts.yml",
    "configs/receivers/README.md",
    "configs/receivers/rsyslog.conf",
];
/// Where cargo auditable puts the list of dependencies.
const DEPENDENCIES_SECTION: &str = ".dep-v0";
/// How the example names its schema, and where the package has it.
const SCHEMA_BESIDE: &str = "#:schema ./agent.schema.json";
const SCHEMA_INSTALLED: &str = "#:schema /usr/share/netconsole-agent/agent.schema.json";

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
    /// The archive for systems without packages.
    pub(crate) tarball: PathBuf,
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

/// Whatever `CARGO_TARGET_DIR` says: `agent/Cargo.toml` names the files in it.
fn dir() -> PathBuf {
    root().join("target/dist")
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
    let archive = dir.join(format!("{NAME}-{version}-{}.tar.gz", arch.name()));
    tarball(&stage, &archive)?;
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
    Ok(Packages { binary: stage.join(NAME), tarball: archive, deb: package, newer_deb })
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
    let sections = output(cmd("readelf", ["--section-headers", "--wide"]).arg(&binary))?;
    ensure!(
        has_section(&sections, DEPENDENCIES_SECTION),
        "{} does not list its dependencies: it has no section {DEPENDENCIES_SECTION}, which \
         `cargo auditable` makes",
        binary.display()
    );

    execute(cmd(own, ["man", "--out"]).arg(stage.join("man")))?;
    for (shell, file) in SHELLS {
        let script = output(&mut cmd(own, ["completions", shell]))?;
        let path = stage.join("completions").join(file);
        fs::write(&path, script).with_context(|| format!("write {}", path.display()))?;
    }
    for name in ["netconsole-agent.service", "netconsole-agent.sysusers", "agent.schema.json"] {
        copy(&root().join("configs").join(name), &stage.join(name))?;
    }
    for name in DOCUMENTS {
        copy(&root().join(name), &stage.join("doc").join(name))?;
    }
    let example = root().join("configs/agent.toml");
    let text =
        fs::read_to_string(&example).with_context(|| format!("read {}", example.display()))?;
    let path = stage.join("agent.toml");
    fs::write(&path, as_installed(&text)).with_context(|| format!("write {}", path.display()))
}

/// Copies a file, with the folder it is to be in.
fn copy(from: &Path, to: &Path) -> Result<()> {
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    }
    fs::copy(from, to).map(drop).with_context(|| format!("copy {}", from.display()))
}

/// Whether `readelf --section-headers --wide` tells of a section.
fn has_section(told: &str, name: &str) -> bool {
    told.lines().any(|line| line.split_whitespace().any(|word| word == name))
}

/// The commented example with its target commented out as well: what is installed sends nowhere. Its
/// schema is where the package puts it.
fn as_installed(example: &str) -> String {
    let line = |line: &str| match line {
        SCHEMA_BESIDE => format!("{SCHEMA_INSTALLED}\n"),
        _ if line.starts_with("[target.") || line.starts_with("remote = ") => {
            format!("# {line}\n")
        }
        _ => format!("{line}\n"),
    };
    example.lines().map(line).collect()
}

/// Its documents lie at its top.
fn tarball(stage: &Path, into: &Path) -> Result<()> {
    let prefix = format!("{NAME}-{}", env!("CARGO_PKG_VERSION"));
    let mut command = cmd("tar", ["--create", "--gzip", "--owner=0", "--group=0", "--sort=name"]);
    command.args(["--transform=s,^[.]/doc,.,".to_owned(), format!("--transform=s,^[.],{prefix},")]);
    command.arg("--file").arg(into).arg("--directory").arg(stage).arg(".");
    execute(&mut command)?;
    File::open(into).map(drop).with_context(|| format!("read {}", into.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_installed_has_no_target() {
        let example = fs::read_to_string(root().join("configs/agent.toml")).unwrap();
        let installed = as_installed(&example);
        let setting = |line: &str| !line.starts_with('#') && !line.is_empty();
        let settings: Vec<_> = installed.lines().filter(|line| setting(line)).collect();
        assert_eq!(settings, ["[agent]", "[last_words]"]);
        assert_eq!(installed.lines().count(), example.lines().count());
    }

    #[test]
    fn the_installed_schema_is_where_the_file_says() {
        let example = fs::read_to_string(root().join("configs/agent.toml")).unwrap();
        let installed = as_installed(&example);
        let named: Vec<_> =
            installed.lines().filter_map(|line| line.strip_prefix("#:schema ")).collect();
        let manifest = fs::read_to_string(root().join("agent/Cargo.toml")).unwrap();
        let asset = manifest.lines().find(|line| line.contains("stage/agent.schema.json")).unwrap();
        let folder = asset.split('"').nth(3).unwrap();
        assert_eq!(named, [format!("/{folder}agent.schema.json")]);
    }

    #[test]
    fn links_of_the_documents_lead_to_what_is_packed() {
        for name in DOCUMENTS.iter().filter(|name| name.ends_with(".md")) {
            let text = fs::read_to_string(root().join(name)).unwrap();
            let folder = Path::new(name).parent().unwrap();
            for link in text.split("](").skip(1) {
                let target = link.split([')', '#']).next().unwrap();
                if !target.is_empty() && !target.starts_with("http") {
                    let path = folder.join(target);
                    let is_packed = DOCUMENTS.iter().any(|one| path == Path::new(one));
                    assert!(is_packed, "{name}: {target}");
                }
            }
        }
    }

    #[test]
    fn a_section_is_known_by_its_whole_name() {
        let told = "  [36] .dep-v0  PROGBITS  0000000000000000 ae29a3 000bf0 00      0   0  1\n";
        assert!(has_section(told, ".dep-v0"));
        assert!(!has_section(told, ".dep"));
        assert!(!has_section("", ".dep-v0"));
    }

    #[test]
    fn the_change_log_begins_with_this_version() {
        let log = fs::read_to_string(root().join("configs/debian/changelog")).unwrap();
        let wanted = format!("{NAME} ({}-", env!("CARGO_PKG_VERSION"));
        assert!(log.starts_with(&wanted), "{log}");
    }
}
