//! What the runs need (programs, kernel, module, root file system), and one run from its start to
//! its result, with the retry.

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use super::crashes::{After, CRASHES, Crash, STORM_WRITER};
use super::guest::{self, Plan};
use super::judge::{self, Verdict};
use super::results::{self, Outcome, Row};
use super::{AFTER_CRASH, Subject, module};
use crate::run::{cmd, execute, root, target_dir};
use crate::signals::Interrupt;
use crate::toolchain::Toolchain;
use crate::vm::kernel::{self, Architecture, Kernel};
use crate::vm::{build_programs, initramfs};

const INIT: &str = "tests/vm/last-words-init";
const MODULES: &[&str] =
    &["virtio_pci", "virtio_net", "af_packet", "configfs", "netconsole", "i8042", "atkbd"];

/// One run to come.
#[derive(Clone, Copy)]
pub(super) struct Item {
    pub(super) crash: &'static Crash,
    pub(super) subject: Subject,
    pub(super) cpu: usize,
}

/// What all kernels share.
pub(super) struct Bench<'a> {
    agent: PathBuf,
    peer: PathBuf,
    dir: &'a Path,
}

impl<'a> Bench<'a> {
    /// Builds the programs.
    pub(super) fn new(toolchain: &Toolchain, dir: &'a Path) -> Result<Self> {
        let built = build_programs(toolchain)?;
        // Most of the file is debug information, which each boot would have to load.
        let agent = dir.join("netconsole-agent");
        execute(cmd("strip", ["-o"]).arg(&agent).arg(built.join("netconsole-agent")))?;
        Ok(Self { agent, peer: built.join("vm_peer"), dir })
    }

    /// Fetches a kernel and packs its root file system.
    pub(super) fn lab(&self, series: &str, refresh: bool) -> Result<Lab<'_>> {
        let cache = target_dir().join("vm");
        let kernel = kernel::fetch(series, Architecture::Amd64, &cache, refresh)?;
        let module = module::build(&kernel, &cache);
        let mut archive = initramfs::Archive::default();
        initramfs::add_base(&mut archive, &initramfs::own_busybox()?)?;
        initramfs::add_modules(&mut archive, &kernel, MODULES)?;
        archive.copy("init", &root().join(INIT))?;
        archive.copy("bin/netconsole-agent", &self.agent)?;
        archive.directory("crashes");
        archive.file("crashes/storm-writer", STORM_WRITER.as_bytes());
        for crash in CRASHES {
            archive.file(&format!("crashes/{}", crash.name), crash.script().as_bytes());
        }
        let no_module = match module {
            Ok(path) => {
                archive.copy(&format!("crashes/{}", module::FILE), &path)?;
                None
            }
            Err(error) => {
                let skipped = CRASHES.iter().filter(|crash| crash.needs_module);
                let skipped: Vec<&str> = skipped.map(|crash| crash.name).collect();
                let release = &kernel.release;
                println!("last-words: SKIPPED on {release}: {}: {error:#}", skipped.join(", "));
                Some(format!("{error:#}"))
            }
        };
        let dir = self.dir.join(&kernel.release);
        fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
        let initramfs = dir.join("initramfs.cpio");
        fs::write(&initramfs, archive.finish())
            .with_context(|| format!("write {}", initramfs.display()))?;
        Ok(Lab { bench: self, kernel, initramfs, dir, no_module })
    }
}

/// A kernel with all it needs to crash.
pub(super) struct Lab<'a> {
    bench: &'a Bench<'a>,
    pub(super) kernel: Kernel,
    initramfs: PathBuf,
    dir: PathBuf,
    /// Why there is no module that crashes.
    pub(super) no_module: Option<String>,
}

impl Lab<'_> {
    /// Runs the list, some at a time.
    pub(super) fn series(
        &self,
        list: VecDeque<Item>,
        jobs: usize,
        file: &Path,
        interrupt: &Interrupt,
    ) -> Result<()> {
        println!("last-words: {} runs on kernel {}", list.len(), self.kernel.release);
        let list = Mutex::new(list);
        let next = || list.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let written = Mutex::new(());
        let work = |job: usize| -> Result<()> {
            let dir = self.dir.join(format!("job{job}"));
            while let Some(item) = next() {
                let row = self.row(&item, &dir, interrupt)?;
                let _one_at_a_time = written.lock().unwrap_or_else(PoisonError::into_inner);
                println!("{}", row.line());
                results::append(file, &row)?;
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let work = &work;
            let threads: Vec<_> =
                (0..jobs.max(1)).map(|job| scope.spawn(move || work(job))).collect();
            threads.into_iter().try_for_each(|thread| {
                thread.join().map_err(|_| anyhow::anyhow!("a thread panicked"))?
            })
        })
    }

    /// One run, repeated once if it comes to nothing: emulated guests hang now and then.
    ///
    /// # Errors
    /// Only the interruption and what hinders every run; a failed run is a row.
    pub(super) fn row(&self, item: &Item, dir: &Path, interrupt: &Interrupt) -> Result<Row> {
        fs::create_dir_all(dir).with_context(|| format!("make {}", dir.display()))?;
        let Item { crash, subject, cpu } = *item;
        let mut start = Instant::now();
        let mut attempt = self.attempt(item, dir, interrupt);
        if let Err(error) = &attempt {
            interrupt.check()?;
            let kept = keep(dir, &format!("{}-{}-failed", crash.name, subject.name()))?;
            let release = &self.kernel.release;
            println!(
                "last-words: RETRY of {} {} on {release}: {error:#} (see {})",
                crash.name,
                subject.name(),
                kept.display()
            );
            start = Instant::now();
            attempt = self.attempt(item, dir, interrupt);
            interrupt.check()?;
        }
        let (source, outcome) = match attempt {
            Ok((source, verdict)) => (source, Outcome::Judged(verdict)),
            Err(error) => (None, Outcome::Failed(format!("{error:#}"))),
        };
        let complete = matches!(&outcome, Outcome::Judged(v) if v.before_stop.is_whole());
        if !complete {
            keep(dir, &format!("{}-{}", crash.name, subject.name()))?;
        }
        Ok(Row {
            kernel: self.kernel.release.clone(),
            crash: crash.name.to_owned(),
            subject,
            cpu,
            seconds: start.elapsed().as_secs_f64(),
            source,
            outcome,
        })
    }

    fn attempt(
        &self,
        item: &Item,
        dir: &Path,
        interrupt: &Interrupt,
    ) -> Result<(Option<String>, Verdict)> {
        let evidence = guest::run(
            &Plan {
                kernel: &self.kernel,
                initramfs: &self.initramfs,
                peer: &self.bench.peer,
                dir,
                crash: item.crash,
                subject: item.subject,
                cpu: item.cpu,
            },
            interrupt,
        )?;
        let panics = item.crash.after != After::Life;
        let lines = if panics {
            judge::read_pstore(&evidence.files)?
        } else {
            let log = evidence.files.iter().find(|(name, _)| name == "dmesg");
            judge::read_log(&log.context("the guest did not show its log")?.1)
        };
        if let (Some(last), Subject::Agent) = (item.crash.dump, item.subject) {
            let is_good = |dump: &guest::Dump| {
                dump.kind == "hard" && dump.missing == 0 && dump.text.contains(last)
            };
            let told: Vec<_> = evidence
                .dumps
                .iter()
                .map(|dump| format!("{} with {} packets missing", dump.kind, dump.missing))
                .collect();
            ensure!(
                evidence.dumps.iter().any(is_good),
                "no whole dump with {last:?} arrived, but {told:?}"
            );
        }
        let printed = judge::divide(lines, panics)?;
        let told = (panics && AFTER_CRASH && item.subject == Subject::Agent)
            .then_some(evidence.second.as_slice());
        Ok((evidence.source, judge::compare(&printed, &evidence.first, told)))
    }
}

/// Keeps what a run left, in place of what an earlier one of that name left.
fn keep(dir: &Path, name: &str) -> Result<PathBuf> {
    let kept = dir.join("kept").join(name);
    fs::create_dir_all(&kept).with_context(|| format!("make {}", kept.display()))?;
    for entry in fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))? {
        let path = entry.with_context(|| format!("list {}", dir.display()))?.path();
        if let Some(name) = path.file_name()
            && path.is_file()
        {
            fs::rename(&path, kept.join(name))
                .with_context(|| format!("keep {}", path.display()))?;
        }
    }
    Ok(kept)
}
