//! The supply chain's steps of `cargo xtask test`: what the dependencies are and may be
//! (`deny.toml`), that each is used, and that the oldest compiler promised builds the workspace.
//!
//! What a dependency is for stands in CONTRIBUTING.md; a test here compares that with the manifests.

use anyhow::{Context, Result, ensure};

use crate::run::{cmd, execute, output, root, succeeds, target_dir};
use crate::summary::Count;
use crate::toolchain::{self, Toolchain};

/// A subcommand of cargo that is installed from the crate registry.
pub(crate) struct Tool {
    crate_name: &'static str,
    version: &'static str,
}

/// Licences, sources, advisories.
pub(crate) const DENY: Tool = Tool { crate_name: "cargo-deny", version: "0.20.2" };
/// Dependencies that nobody uses.
pub(crate) const MACHETE: Tool = Tool { crate_name: "cargo-machete", version: "0.9.2" };
/// Builds the fuzz targets.
pub(crate) const FUZZ: Tool = Tool { crate_name: "cargo-fuzz", version: "0.13.1" };
/// Puts the list of dependencies into the binary of a release.
pub(crate) const AUDITABLE: Tool = Tool { crate_name: "cargo-auditable", version: "0.7.7" };
/// Makes the Debian package.
pub(crate) const DEB: Tool = Tool { crate_name: "cargo-deb", version: "3.8.0" };

impl Tool {
    /// Installs it if it is not there in this version.
    pub(crate) fn ensure(&self) -> Result<()> {
        // Not all of them tell their version: `cargo auditable --version` is cargo's.
        if self.is_listed(&output(&mut cmd("cargo", ["install", "--list"]))?) {
            return Ok(());
        }
        println!("setup: installing {} {} (a minute)", self.crate_name, self.version);
        execute(&mut toolchain::install(self.crate_name, self.version))
            .with_context(|| format!("install {} (it needs the crate registry)", self.crate_name))
    }

    /// Whether `cargo install --list` tells of this version.
    fn is_listed(&self, list: &str) -> bool {
        let wanted = format!("{} v{}", self.crate_name, self.version);
        // Behind it, where it was not the registry's, is where it came from.
        let rest = |line: &str| line.strip_prefix(&wanted).map(str::to_owned);
        list.lines().filter_map(rest).any(|rest| rest.starts_with([':', ' ']))
    }
}

/// Licences, bans and sources by `deny.toml`, and advisories where their database can be had.
///
/// Where github.com cannot be reached, as from the machines that run the project's checks, the advisories
/// are skipped: the one skip that is none of a test and so expected under `CI=true`, too. Whatever else
/// keeps the database away is a failure.
pub(crate) fn deny(count: &mut Count) -> Result<()> {
    // Warnings are of crates that come in two versions, with their trees: `cargo deny check bans`.
    let deny = ["deny", "--log-level", "error", "--locked"];
    execute(cmd("cargo", deny).args(["check", "licenses", "bans", "sources"]))?;
    // git speaks the user's language.
    match output(cmd("cargo", deny).args(["fetch", "db"]).env("LC_ALL", "C")) {
        Ok(_) => execute(cmd("cargo", deny).args(["check", "--disable-fetch", "advisories"])),
        Err(error) if is_offline(&format!("{error:#}")) => {
            println!(
                "SKIPPED: advisories: github.com cannot be reached from here, which has \
                 RustSec/advisory-db ({ADVISORIES})"
            );
            count.skipped += 1;
            Ok(())
        }
        Err(error) => Err(error).context("fetch the advisories"),
    }
}

/// What to do about the skip.
const ADVISORIES: &str = "`cargo deny check advisories` where it can";

/// Whether git could not get to the server, by what it and libcurl say (`curl_easy_strerror`, and
/// `failf` in `lib/connect.c`, `lib/hostip.c`, `lib/cf-h1-proxy.c`).
fn is_offline(told: &str) -> bool {
    [
        "Could not resolve host",
        "Could not resolve proxy",
        "Failed to connect to",
        "Couldn't connect to server",
        "Could not connect to server",
        "Connection timed out",
        "Connection refused",
        "Network is unreachable",
        "CONNECT tunnel failed",
        "from proxy after CONNECT",
    ]
    .iter()
    .any(|sign| told.contains(sign))
}

/// That every dependency is used.
pub(crate) fn machete() -> Result<()> {
    // With that variable, which `cargo xtask` has, it takes its own name for a folder.
    execute(cmd("cargo", ["machete", "--skip-target-dir"]).env_remove("CARGO_PKG_NAME"))
}

/// That the workspace's `rust-version` builds it: every other step does if that is the compiler
/// they use, else a check with it in a target directory of its own.
pub(crate) fn msrv(toolchain: &Toolchain) -> Result<()> {
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).context("read Cargo.toml")?;
    let promised = rust_version(&manifest).context("Cargo.toml has no rust-version")?;
    let used = output(&mut cmd("rustc", ["--version"]))?;
    if is_version(&used, promised) {
        println!("every step uses {}, which is the promised {promised}", used.trim());
        return Ok(());
    }
    let name = format!("{promised}.0");
    ensure!(
        succeeds(&mut cmd("rustup", ["run", &name, "cargo", "--version"])),
        "the compiler promised by `rust-version` is missing: run `rustup toolchain install \
         --profile minimal {name}`"
    );
    let mut command = cmd("rustup", ["run", &name, "cargo", "check"]);
    command.args(["--workspace", "--all-targets", "--locked"]);
    toolchain.apply(&mut command);
    execute(command.env("CARGO_TARGET_DIR", target_dir().join("msrv")))
}

/// The value of the first `rust-version`.
fn rust_version(manifest: &str) -> Option<&str> {
    let line = manifest.lines().find_map(|line| line.strip_prefix("rust-version = "))?;
    Some(line.trim().trim_matches('"'))
}

/// Whether `rustc --version` tells this version, whatever the patch level.
fn is_version(told: &str, version: &str) -> bool {
    let told = told.split_whitespace().nth(1).unwrap_or_default();
    told.strip_prefix(version).is_some_and(|rest| rest.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn versions_are_compared_by_their_numbers() {
        assert_eq!(rust_version("[workspace.package]\nrust-version = \"1.95\"\n"), Some("1.95"));
        assert!(is_version("rustc 1.95.0 (59807616e 2026-04-14)", "1.95"));
        assert!(is_version("rustc 1.95.2", "1.95"));
        assert!(!is_version("rustc 1.9.5 (x)", "1.95"));
        assert!(!is_version("rustc 1.950.0", "1.95"));
        assert!(!is_version("", "1.95"));
    }

    #[test]
    fn another_version_is_another_tool() {
        let list =
            "cargo-auditable v0.7.7:\n    cargo-auditable\ncargo-deb v3.8.0 (/x):\n    cargo-deb\n";
        assert!(AUDITABLE.is_listed(list));
        assert!(DEB.is_listed(list));
        assert!(!MACHETE.is_listed(list));
        for other in ["cargo-deb v3.8.01:\n", "cargo-deb v3.7.0:\n", "xcargo-deb v3.8.0:\n", ""] {
            assert!(!DEB.is_listed(other), "{other}");
        }
    }

    #[test]
    fn only_a_server_out_of_reach_is_offline() {
        assert!(is_offline(
            "failed to clone: fatal: unable to access 'https://github.com/RustSec/advisory-db/': \
             Could not resolve host: github.com"
        ));
        assert!(!is_offline("fatal: could not create work tree dir: No space left on device"));
        assert!(!is_offline("The requested URL returned error: 404"));
        assert!(!is_offline("SSL certificate problem: certificate has expired"));
    }

    /// Names that the workspace's manifests depend on, but for its own crates.
    fn dependencies() -> BTreeSet<String> {
        let mut command = cmd("cargo", ["metadata", "--format-version=1", "--no-deps", "--locked"]);
        let text = output(&mut command).unwrap();
        let metadata: serde_json::Value = serde_json::from_str(&text).unwrap();
        let list = |value: &serde_json::Value| value.as_array().unwrap().clone();
        let mut names = BTreeSet::new();
        for package in list(&metadata["packages"]) {
            for dependency in list(&package["dependencies"]) {
                // The workspace's own have a path and no source.
                if dependency["source"].is_string() {
                    names.insert(dependency["name"].as_str().unwrap().to_owned());
                }
            }
        }
        names
    }

    /// Names in `[workspace.dependencies]`, but for its own crates.
    fn offered() -> Vec<String> {
        let text = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
        let (_, table) = text.split_once("\n[workspace.dependencies]\n").expect("its heading");
        let lines = table.lines().take_while(|line| !line.starts_with('['));
        let entries = lines.filter_map(|line| line.split_once(" = "));
        let of_others =
            entries.filter(|(name, what)| !name.starts_with('#') && !what.contains("path ="));
        of_others.map(|(name, _)| name.to_owned()).collect()
    }

    /// Names in the first column of the table below the heading.
    fn justified() -> Vec<String> {
        let text = std::fs::read_to_string(root().join("CONTRIBUTING.md")).unwrap();
        let (_, table) = text.split_once("\n## Dependencies\n").expect("its heading");
        table
            .lines()
            .take_while(|line| !line.starts_with("## "))
            .filter_map(|line| line.strip_prefix("| `"))
            .map(|row| {
                let (names, reason) = row.split_once(" | ").expect("two columns");
                assert!(reason.trim_end_matches([' ', '|']).len() > 10, "no reason: {row}");
                names.to_owned()
            })
            .flat_map(|names| {
                let names = names.split(", ").map(|name| name.trim_matches('`').to_owned());
                names.collect::<Vec<_>>()
            })
            .collect()
    }

    #[test]
    fn each_dependency_is_justified_in_one_line() {
        let told = justified();
        let set: BTreeSet<String> = told.iter().cloned().collect();
        assert_eq!(told.len(), set.len(), "one of them twice: {told:?}");
        let used = dependencies();
        for name in offered() {
            assert!(
                used.contains(&name),
                "{name} is in [workspace.dependencies] and nobody uses it"
            );
        }
        let missing: Vec<_> = used.difference(&set).collect();
        let too_many: Vec<_> = set.difference(&used).collect();
        assert!(
            missing.is_empty() && too_many.is_empty(),
            "CONTRIBUTING.md, \"Dependencies\": missing {missing:?}, not depended on {too_many:?}"
        );
    }
}
