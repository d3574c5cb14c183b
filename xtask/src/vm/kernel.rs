//! Stock Debian kernels, fetched and unpacked without installing anything.
//!
//! apt gets a state of its own below `target/vm`, so that suites which the
//! machine does not use can be read; where the archive lies is taken from the
//! machine's own sources. Old versions vanish from the index: the newest one
//! that matches is taken, and kept until `--refresh`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::run::{cmd, execute, output};

/// Where the kernels of the tests come from: stable's own, and the backports.
pub(crate) const SUITES: &[&str] =
    &["bookworm", "bookworm-updates", "bookworm-backports", "trixie-backports"];
/// Since 6.19 the kernel is split into these; before, `image` is everything.
const PARTS: &[&str] = &["image", "binary", "modules", "base"];
/// Written last, so that a half unpacked kernel is not taken for a whole one.
pub(super) const COMPLETE: &str = ".complete";

/// An architecture that Debian has kernels for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Architecture {
    /// That of this machine.
    Amd64,
    /// The other one that the agent is built for.
    Arm64,
}

impl Architecture {
    /// Debian's name of it.
    pub(crate) fn debian(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }
}

/// An unpacked kernel.
pub(crate) struct Kernel {
    /// What `uname -r` says there.
    pub(crate) release: String,
    /// The compressed kernel.
    pub(crate) image: PathBuf,
    /// The directory with `kernel/` and `modules.builtin`.
    pub(crate) modules: PathBuf,
}

/// The newest kernel of the series `series` (`6.1`, `7`; on arm64 also `6.12-16k`, whose memory pages have
/// 16 KiB), fetched into `cache`
/// if there is none yet or `refresh` asks for it. Each architecture has a cache of its own.
pub(crate) fn fetch(
    series: &str,
    architecture: Architecture,
    cache: &Path,
    refresh: bool,
) -> Result<Kernel> {
    let dir = cache.join("kernels").join(series);
    if !refresh && let Some(release) = newest_unpacked(&dir) {
        return Kernel::below(&dir, release);
    }
    let apt = Apt::new(&cache.join("apt"), architecture, SUITES)?;
    let names = apt.package_names()?;
    let release = newest(series, architecture, &names)
        .with_context(|| format!("no Debian kernel {series} in {}", SUITES.join(", ")))?;
    let unpacked = dir.join(&release);
    if !unpacked.join(COMPLETE).is_file() {
        let packages: Vec<String> = PARTS
            .iter()
            .map(|part| format!("linux-{part}-{release}"))
            .filter(|package| names.contains(package))
            .collect();
        apt.unpack(&packages, &unpacked)?;
        fs::write(unpacked.join(COMPLETE), "")
            .with_context(|| format!("mark {} as complete", unpacked.display()))?;
    }
    Kernel::below(&dir, release)
}

impl Kernel {
    fn below(dir: &Path, release: String) -> Result<Self> {
        let root = dir.join(&release);
        let first = |candidates: [String; 2]| candidates.map(|name| root.join(name));
        let image = first([
            format!("boot/vmlinuz-{release}"),
            format!("usr/lib/modules/{release}/vmlinuz"),
        ]);
        let modules =
            first([format!("lib/modules/{release}"), format!("usr/lib/modules/{release}")]);
        let found = |paths: [PathBuf; 2], what: &str| {
            paths
                .into_iter()
                .find(|path| path.exists())
                .with_context(|| format!("no {what} in {}; remove that directory", root.display()))
        };
        Ok(Self { image: found(image, "kernel")?, modules: found(modules, "modules")?, release })
    }
}

fn newest_unpacked(dir: &Path) -> Option<String> {
    fs::read_dir(dir)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.join(COMPLETE).is_file())
        .filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()))
        .max_by_key(|release| version(release))
}

/// The release of the newest plain (not cloud, real-time or debug) image.
fn newest(series: &str, architecture: Architecture, packages: &[String]) -> Option<String> {
    let (series, flavour) = match series.split_once('-') {
        Some((series, flavour)) => (series, format!("-{flavour}")),
        None => (series, String::new()),
    };
    let start = format!("linux-image-{series}.");
    let end = format!("-{}{flavour}", architecture.debian());
    packages
        .iter()
        .filter(|name| name.starts_with(&start))
        .filter_map(|name| name.strip_prefix("linux-image-"))
        .filter(|release| {
            release.strip_suffix(&end).is_some_and(|version| {
                // 6.1.0-50 and 6.12.95+deb12, but not 6.1.0-50-cloud.
                version.split(['.', '-', '+', '~']).all(|part| {
                    let number = part.strip_prefix("deb").unwrap_or(part);
                    !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
                })
            })
        })
        .max_by_key(|release| version(release))
        .map(str::to_owned)
}

/// The numbers of a release, which compare as the versions do.
pub(crate) fn version(release: &str) -> Vec<u64> {
    let of = |name: &str| release.split_once(name).map(|(version, _)| version);
    let version = of("-amd64").or_else(|| of("-arm64")).unwrap_or(release);
    version.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
}

/// apt with a state of its own.
pub(crate) struct Apt {
    dir: PathBuf,
    architecture: Architecture,
}

impl Apt {
    /// One that knows the packages of these suites; its state is kept in `dir`.
    pub(crate) fn new(dir: &Path, architecture: Architecture, suites: &[&str]) -> Result<Self> {
        let apt = Self { dir: dir.to_path_buf(), architecture };
        for sub in ["etc", "lists/partial", "cache/archives/partial"] {
            let path = apt.dir.join(sub);
            fs::create_dir_all(&path).with_context(|| format!("make {}", path.display()))?;
        }
        let archive = archive()?;
        let name = architecture.debian();
        let sources = suites.iter().fold(String::new(), |text, suite| {
            text + &format!("deb [arch={name}] {archive} {suite} main\n")
        });
        let file = apt.dir.join("etc/kernels.list");
        fs::write(&file, sources).with_context(|| format!("write {}", file.display()))?;
        execute(apt.command("apt-get").arg("update"))
            .context("read the index of Debian's archive")?;
        Ok(apt)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = cmd(program, ["-q"]);
        for (option, value) in [
            // Its names need no suffix then, whatever machine this is.
            ("APT::Architecture", self.architecture.debian().to_owned()),
            ("Dir::Etc::sourcelist", "/dev/null".to_owned()),
            ("Dir::Etc::sourceparts", self.dir.join("etc").display().to_string()),
            ("Dir::State::lists", self.dir.join("lists").display().to_string()),
            ("Dir::Cache", self.dir.join("cache").display().to_string()),
            // The sandbox user may not read the build directory.
            ("APT::Sandbox::User", String::new()),
            ("Acquire::Languages", "none".to_owned()),
            ("Acquire::IndexTargets::deb::DEP-11::DefaultEnabled", "false".to_owned()),
            ("Acquire::Retries", "3".to_owned()),
        ] {
            command.args(["-o", &format!("{option}={value}")]);
        }
        command
    }

    fn package_names(&self) -> Result<Vec<String>> {
        let text = output(self.command("apt-cache").args(["pkgnames", "linux-"]))?;
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// What a package needs, directly.
    pub(super) fn depends(&self, package: &str) -> Result<Vec<String>> {
        let text = output(self.command("apt-cache").args(["depends", package]))?;
        let names = text.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
        Ok(names.map(str::to_owned).collect())
    }

    /// Downloads the packages and unpacks them into a directory.
    pub(crate) fn unpack(&self, packages: &[String], into: &Path) -> Result<()> {
        fs::create_dir_all(into).with_context(|| format!("make {}", into.display()))?;
        let downloads = tempfile::tempdir_in(&self.dir)
            .with_context(|| format!("make a directory in {}", self.dir.display()))?;
        let mut download = self.command("apt-get");
        execute(download.arg("download").args(packages).current_dir(downloads.path()))
            .with_context(|| format!("download {}", packages.join(", ")))?;
        let files = fs::read_dir(downloads.path())
            .with_context(|| format!("list {}", downloads.path().display()))?;
        for file in files {
            let file = file.with_context(|| format!("list {}", downloads.path().display()))?.path();
            execute(cmd("dpkg-deb", ["-x"]).arg(&file).arg(into))?;
        }
        Ok(())
    }
}

/// Where this machine gets Debian from.
pub(crate) fn archive() -> Result<String> {
    let listed = || {
        let mut command = cmd("apt-get", ["indextargets", "--format", "$(REPO_URI) $(RELEASE)"]);
        command.arg("Created-By: Packages");
        Ok(archive_in(&output(&mut command)?, &codename().unwrap_or_default()))
    };
    let found: Result<Option<String>> = listed();
    if let Some(uri) = found? {
        return Ok(uri);
    }
    // Without a downloaded index apt names no source.
    ensure!(
        rustix::process::geteuid().is_root(),
        "apt names no source of Debian: run `apt-get update` as root"
    );
    execute(&mut cmd("apt-get", ["-q", "update"]))?;
    listed()?.context("apt names no source of Debian in /etc/apt")
}

fn codename() -> Option<String> {
    let text = fs::read_to_string("/etc/os-release").ok()?;
    let name = text.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="))?;
    Some(name.trim_matches('"').to_owned())
}

/// The first source with the release `codename` in lines of "URI release".
fn archive_in(targets: &str, codename: &str) -> Option<String> {
    targets.lines().find_map(|line| {
        let (uri, release) = line.split_once(' ')?;
        (release == codename).then(|| uri.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn takes_the_newest_plain_image_of_the_series() {
        let names = names(&[
            "linux-image-6.1.0-47-amd64",
            "linux-image-6.1.0-50-amd64",
            "linux-image-6.1.0-51-cloud-amd64",
            "linux-image-6.1.0-51-amd64-dbg",
            "linux-image-6.1.0-51-rt-amd64",
            "linux-image-6.12.9+deb12-amd64",
            "linux-image-6.12.90+deb12-amd64",
            "linux-image-6.12.90+deb12.1-amd64",
            "linux-image-7.2.9+deb13-amd64",
            "linux-image-7.2.12+deb13-amd64",
            "linux-base-7.3.4+deb13-amd64",
            "linux-image-6.1.0-52-arm64",
            "linux-image-6.1.0-52-cloud-arm64",
            "linux-image-7.2.12+deb13-arm64-16k",
        ]);
        let newest_arm = |series| newest(series, Architecture::Arm64, &names);
        assert_eq!(newest_arm("6.1").as_deref(), Some("6.1.0-52-arm64"));
        assert_eq!(newest_arm("7"), None);
        assert_eq!(newest_arm("7-16k").as_deref(), Some("7.2.12+deb13-arm64-16k"));
        let newest = |series| newest(series, Architecture::Amd64, &names);
        assert_eq!(newest("6.1").as_deref(), Some("6.1.0-50-amd64"));
        assert_eq!(newest("6.12").as_deref(), Some("6.12.90+deb12.1-amd64"));
        assert_eq!(newest("7").as_deref(), Some("7.2.12+deb13-amd64"));
        assert_eq!(newest("5.10"), None);
    }

    #[test]
    fn releases_compare_by_their_numbers() {
        assert_eq!(version("6.1.0-52-arm64"), [6, 1, 0, 52]);
        assert_eq!(version("7.2.12+deb13-amd64"), [7, 2, 12, 13]);
        assert_eq!(version("6.12.95+deb12-arm64-16k"), [6, 12, 95, 12]);
    }

    #[test]
    fn takes_the_machine_s_own_archive() {
        let targets = "http://a.example/debian-security/ trixie-security\n\
                       http://a.example/debian/ trixie\nhttp://b.example/ trixie\n";
        assert_eq!(archive_in(targets, "trixie").as_deref(), Some("http://a.example/debian/"));
        assert_eq!(archive_in("", "trixie"), None);
    }
}
