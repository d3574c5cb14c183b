//! The fuzz step of `cargo xtask test`: every target of `tests/fuzz` for a few seconds, from its
//! checked-in corpus and a fixed seed. It looks for what has become wrong and is no search:
//! for that, run one of the built programs for hours.
//!
//! The fuzzers are built with the ordinary compiler, since coverage needs no nightly. A
//! sanitizer would; there is none: the parsers are safe Rust, and what goes wrong in them are
//! panics, overflows (debug assertions are on), time and memory, which libFuzzer watches.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::run::{cmd, execute, root, target_dir};
use crate::summary::Count;
use crate::toolchain::Toolchain;

const CRATE: &str = "tests/fuzz";
/// Bounds of one target's run: seconds in all and for one input, and MiB of memory.
const LIMITS: [&str; 3] = ["-max_total_time=10", "-timeout=5", "-rss_limit_mb=512"];

/// Builds and runs every target; each counts as a test.
pub(crate) fn run(toolchain: &Toolchain, count: &mut Count) -> Result<()> {
    let out = target_dir().join("fuzz");
    build(toolchain, &out)?;
    let artifacts = out.join("artifacts");
    let mut failed = Vec::new();
    for target in targets(&root().join(CRATE).join("fuzz_targets"))? {
        match run_one(&out, &artifacts, &target) {
            Ok(()) => count.passed += 1,
            Err(error) => {
                eprintln!("{error:#}");
                count.failed += 1;
                failed.push(target);
            }
        }
    }
    ensure!(failed.is_empty(), "failed: {} (inputs in {})", failed.join(", "), artifacts.display());
    Ok(())
}

fn build(toolchain: &Toolchain, out: &Path) -> Result<()> {
    let args = ["fuzz", "build", "--fuzz-dir", CRATE, "--features", "libfuzzer"];
    let mut command = toolchain.cargo(args);
    command.args(["--sanitizer", "none", "--target-dir"]).arg(out);
    // One link-time optimisation of the whole agent per target takes longer than the runs.
    command.env("CARGO_PROFILE_RELEASE_LTO", "off");
    execute(&mut command)
}

/// Runs one target on its corpus; what it finds interesting goes to a directory of its own, so
/// that the tree stays as it is.
fn run_one(out: &Path, artifacts: &Path, target: &str) -> Result<()> {
    let artifacts = artifacts.join(target);
    fs::create_dir_all(&artifacts).with_context(|| format!("make {}", artifacts.display()))?;
    let found = tempfile::tempdir().context("make a directory for new inputs")?;
    let mut command = cmd(program(out, target), LIMITS);
    command
        .args(["-seed=1", "-print_final_stats=1", "-verbosity=0"])
        .arg(format!("-artifact_prefix={}/", artifacts.display()))
        .arg(found.path())
        .arg(root().join(CRATE).join("corpus").join(target));
    execute(&mut command).with_context(|| format!("fuzz target {target}"))
}

/// cargo-fuzz names the triple, so that its flags do not reach build scripts.
fn program(out: &Path, target: &str) -> PathBuf {
    let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    out.join(triple).join("release").join(target)
}

/// The names of the files in `dir`, without their endings.
fn targets(dir: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))? {
        let path = entry.with_context(|| format!("list {}", dir.display()))?.path();
        names.extend(path.file_stem().map(|name| name.to_string_lossy().into_owned()));
    }
    names.sort();
    ensure!(!names.is_empty(), "{} has no fuzz targets", dir.display());
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_the_files_in_order() {
        let dir = tempfile::tempdir().unwrap();
        assert!(targets(dir.path()).is_err());
        fs::write(dir.path().join("b.rs"), "").unwrap();
        fs::write(dir.path().join("a.rs"), "").unwrap();
        assert_eq!(targets(dir.path()).unwrap(), ["a", "b"]);
    }
}
