//! One boot of a test VM under software emulation.
//!
//! KVM is not used even where it exists: guests must behave the same on every
//! machine. The VM has no network but QEMU's own, cut off from the outside,
//! which answers ARP for 10.0.2.2; every frame on it is written to a pcap file.

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::emulator;
use crate::run::shown;
use crate::signals::Interrupt;

/// `isa-debug-exit` turns a written byte n into the exit status 2n+1; the guest
/// writes 16 when all went well, which QEMU itself never exits with.
const GUEST_OK: i32 = 2 * 16 + 1;

/// The files of one boot.
pub(crate) struct Boot {
    /// The kernel's console.
    pub(crate) console: PathBuf,
    /// What the runner in the guest wrote.
    pub(crate) report: PathBuf,
    /// The frames on the VM's network, in both directions.
    pub(crate) pcap: PathBuf,
    /// More for the kernel's command line.
    pub(crate) append: &'static str,
}

impl Boot {
    /// Where the files of a boot in `dir` are.
    pub(crate) fn in_dir(dir: &Path, append: &'static str) -> Self {
        Self {
            append,
            console: dir.join("console.log"),
            report: dir.join("report.log"),
            pcap: dir.join("net.pcap"),
        }
    }

    /// Boots `kernel` with `initramfs` and waits until the guest has shut down.
    pub(crate) fn run(
        &self,
        kernel: &Path,
        initramfs: &Path,
        limit: Duration,
        interrupt: &Interrupt,
    ) -> Result<()> {
        for old in [&self.console, &self.report, &self.pcap] {
            if old.exists() {
                fs::remove_file(old).with_context(|| format!("remove {}", old.display()))?;
            }
        }
        let log = self.console.with_file_name("qemu.log");
        let mut command = emulator::X86.command(self.arguments(kernel, initramfs));
        let (status, said) = run_to_end(&mut command, &log, limit, interrupt)?;
        ensure!(
            status.code() == Some(GUEST_OK),
            "the VM ended with {status}, not by the end of its init script: {}",
            said.trim()
        );
        Ok(())
    }

    fn arguments(&self, kernel: &Path, initramfs: &Path) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = [
            "-M",
            "q35",
            "-accel",
            "tcg,thread=multi,tb-size=256",
            "-cpu",
            "max",
            "-smp",
            "2",
            "-m",
            "768",
            "-nodefaults",
            "-display",
            "none",
            "-no-reboot",
            "-netdev",
            "user,id=net0,restrict=on",
            "-device",
            "virtio-net-pci,netdev=net0,csum=off",
            // A second card, without a cable: its driver's messages name a device.
            "-device",
            "e1000e",
            "-device",
            "isa-debug-exit,iobase=0xf4,iosize=0x4",
        ]
        .map(OsString::from)
        .to_vec();
        let file = |prefix: &str, path: &Path| {
            let mut text = OsString::from(prefix);
            text.push(path);
            text
        };
        let append = "console=ttyS0 quiet panic=-1 log_buf_len=1M net.ifnames=0";
        arguments.extend(["-append".into(), format!("{append} {}", self.append).into()]);
        arguments.extend(["-kernel".into(), kernel.into(), "-initrd".into(), initramfs.into()]);
        for serial in [&self.console, &self.report] {
            arguments.extend(["-serial".into(), file("file:", serial)]);
        }
        arguments.push("-object".into());
        arguments.push(file("filter-dump,id=dump0,netdev=net0,file=", &self.pcap));
        arguments
    }
}

/// Starts QEMU and waits until it has ended; returns how it did, and what it wrote to its standard
/// error, which is kept in `log`.
///
/// # Errors
/// If it cannot be started, the time is over, or the user wants to stop; then it is killed.
pub(crate) fn run_to_end(
    command: &mut Command,
    log: &Path,
    limit: Duration,
    interrupt: &Interrupt,
) -> Result<(ExitStatus, String)> {
    let stderr = File::create(log).with_context(|| format!("create {}", log.display()))?;
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr).process_group(0);
    println!("+ {}", shown(command));
    let mut qemu = Guard(command.spawn().context("cannot start QEMU")?);
    let start = Instant::now();
    let status = loop {
        if let Some(status) = qemu.0.try_wait().context("wait for QEMU")? {
            break status;
        }
        interrupt.check()?;
        if start.elapsed() > limit {
            bail!("the VM was still running after {} s", limit.as_secs());
        }
        std::thread::sleep(Duration::from_millis(100));
    };
    Ok((status, fs::read_to_string(log).unwrap_or_default()))
}

/// Ends QEMU when dropped.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        // Both fail only if it has been reaped already.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
