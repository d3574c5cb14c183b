//! `cargo xtask dist`: what a host installs, below `target/dist`: a Debian package and a tarball, each
//! with the static binary, its unit, man pages and completions; and the debug information apart.
//!
//! The pages and the completions come from the binary itself. The package's contents are listed in
//! `agent/Cargo.toml` (`[package.metadata.deb]`), its scripts are in `configs/debian`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::run::{cmd, execute, output, root, target_dir};
use crate::setup::{self, Need};
use crate::toolchain::Toolchain;
use crate::vm;

const NAME: &str = "netconsole-agent";
const ARCHITECTURE: &str = "x86_64";
const SHELLS: [(&str, &str); 3] = [
    ("bash", "netconsole-agent"),
    ("zsh", "_netconsole-agent"),
    ("fish", "netconsole-agent.fish"),
];

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
pub(crate) fn run() -> Result<()> {
    make(&setup::ensure(Need::Vms)?)?;
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

/// Makes everything.
pub(crate) fn make(toolchain: &Toolchain) -> Result<Packages> {
    let built = vm::static_agent(toolchain)?;
    let dir = dir();
    if dir.exists() {
        fs::remove_dir_all(&dir).with_context(|| format!("remove {}", dir.display()))?;
    }
    let stage = dir.join("stage");
    stage_files(&built, &dir, &stage)?;
    let version = env!("CARGO_PKG_VERSION");
    tarball(&stage, &dir.join(format!("{NAME}-{version}-{ARCHITECTURE}.tar.gz")))?;
    let deb = |revision: &str, into: &Path| {
        let mut command = toolchain.cargo(["deb", "--no-build", "--no-strip", "--package", NAME]);
        command.args(["--deb-revision", revision, "--output"]).arg(into);
        execute(&mut command)
    };
    let package = dir.join(format!("{NAME}_{version}-1_amd64.deb"));
    deb("1", &package)?;
    // Not among the products.
    let newer_deb = stage.join("newer.deb");
    deb("2", &newer_deb)?;
    Ok(Packages { binary: stage.join(NAME), deb: package, newer_deb })
}

/// Puts what is installed into a directory, as `[package.metadata.deb]` expects it.
fn stage_files(built: &Path, dir: &Path, stage: &Path) -> Result<()> {
    for sub in ["man", "completions"] {
        let path = stage.join(sub);
        fs::create_dir_all(&path).with_context(|| format!("make {}", path.display()))?;
    }
    let binary = stage.join(NAME);
    let debug = dir.join(format!("{NAME}-{ARCHITECTURE}.debug"));
    execute(cmd("objcopy", ["--only-keep-debug"]).arg(built).arg(&debug))?;
    let link = format!("--add-gnu-debuglink={}", debug.display());
    execute(cmd("objcopy", ["--strip-all", &link]).arg(built).arg(&binary))?;

    execute(cmd(&binary, ["man", "--out"]).arg(stage.join("man")))?;
    for (shell, file) in SHELLS {
        let script = output(&mut cmd(&binary, ["completions", shell]))?;
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
    let text = fs::read_to_string(&example).with_context(|| format!("read {}", example.display()))?;
    let path = stage.join("agent.toml");
    fs::write(&path, without_target(&text)).with_context(|| format!("write {}", path.display()))
}

/// The commented example with its target commented out as well: what is installed sends nowhere.
fn without_target(example: &str) -> String {
    let is_target = |line: &str| line.starts_with("[target.") || line.starts_with("remote = ");
    let line = |line: &str| if is_target(line) { format!("# {line}\n") } else { format!("{line}\n") };
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
