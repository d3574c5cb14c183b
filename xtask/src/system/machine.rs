//! A system of its own on this machine's kernel: stock Debian with systemd as process 1 in
//! namespaces, whose files are gone when it ends. It has a cable to a namespace with a receiver.

use std::fs;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::run::{cmd, execute, output, root, shown, target_dir};
use crate::signals::Interrupt;
use crate::vm;

const SUITE: &str = "bookworm";
/// What the package needs, and what the tests look with.
const INCLUDED: &str = "systemd,systemd-sysv,iproute2,passwd";
const BOOT_LIMIT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(100);
/// Where the receiver listens.
pub(super) const RECEIVER: &str = "192.0.2.2";
const OWN: &str = "192.0.2.1";

/// A running system.
pub(super) struct Machine<'a> {
    unshare: Child,
    /// Its process 1.
    pid: u32,
    peer: String,
    /// Where its files are.
    _work: tempfile::TempDir,
    interrupt: &'a Interrupt,
}

/// The files of a stock Debian, made once.
pub(super) fn debian() -> Result<PathBuf> {
    let dir = target_dir().join("system");
    let files = dir.join(SUITE);
    let complete = dir.join(format!("{SUITE}.complete"));
    let contents = format!("{SUITE} with {INCLUDED}\n");
    if fs::read_to_string(&complete).ok().as_ref() != Some(&contents) {
        fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
        if files.exists() {
            fs::remove_dir_all(&files).with_context(|| format!("remove {}", files.display()))?;
        }
        let mut make = cmd("mmdebstrap", ["--quiet", "--variant=minbase"]);
        make.arg(format!("--include={INCLUDED}")).arg(SUITE).arg(&files).arg(vm::archive()?);
        execute(&mut make).context("make the files of a Debian system")?;
        fs::write(&complete, contents)
            .with_context(|| format!("mark {} as whole", files.display()))?;
    }
    Ok(files)
}

impl<'a> Machine<'a> {
    /// Boots a system with these files.
    pub(super) fn boot(files: &Path, interrupt: &'a Interrupt) -> Result<Self> {
        let work = tempfile::tempdir().context("make a directory for the system")?;
        let mut command = cmd("unshare", ["--mount", "--pid", "--fork", "--kill-child"]);
        command.args(["--net", "--uts", "--ipc", "--cgroup", "--"]);
        command.arg(root().join("tests/system/init")).arg(files).arg(work.path());
        // In a cgroup of its own from the beginning: its namespace shows no more than that.
        let cgroups = cgroups();
        for cgroup in &cgroups {
            fs::create_dir_all(cgroup).with_context(|| format!("make {}", cgroup.display()))?;
        }
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        let mut shell = Command::new("sh");
        shell.args([
            "-c",
            "for dir in $CGROUPS; do echo $$ >$dir/cgroup.procs; done; exec \"$@\"",
            "sh",
        ]);
        shell.args(words).stdin(Stdio::null()).process_group(0);
        let list: Vec<_> = cgroups.iter().map(|path| path.display().to_string()).collect();
        shell.env("CGROUPS", list.join(" "));
        println!("+ {}", shown(&command));
        let unshare = shell.spawn().context("start the system")?;
        let peer = format!("nca-peer-{}", std::process::id());
        let mut machine = Self { unshare, pid: 0, peer, _work: work, interrupt };
        machine.pid = machine.wait("process 1", BOOT_LIMIT, |machine| machine.first_process())?;
        machine.wait("the boot", BOOT_LIMIT, |machine| {
            let state = machine.run("systemctl", &["is-system-running"]).ok()?;
            let state = String::from_utf8_lossy(&state.stdout).trim().to_owned();
            ["running", "degraded"].contains(&state.as_str()).then_some(())
        })?;
        machine.lay_cable()?;
        Ok(machine)
    }

    /// The process that is 1 in the new namespace.
    fn first_process(&self) -> Option<u32> {
        let id = self.unshare.id();
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).ok()?;
        let child = children.split_whitespace().next()?.parse().ok()?;
        // Not before it has become systemd.
        let name = fs::read_to_string(format!("/proc/{child}/comm")).ok()?;
        (name.trim() == "systemd").then_some(child)
    }

    fn lay_cable(&self) -> Result<()> {
        let (peer, pid) = (&self.peer, self.pid.to_string());
        execute(&mut cmd("ip", ["netns", "add", peer]))?;
        execute(&mut cmd(
            "ip",
            [
                "-n", peer, "link", "add", "peer0", "type", "veth", "peer", "name", "host0",
                "netns", &pid,
            ],
        ))?;
        let address = format!("{RECEIVER}/24");
        execute(&mut cmd("ip", ["-n", peer, "addr", "add", &address, "dev", "peer0"]))?;
        execute(&mut cmd("ip", ["-n", peer, "link", "set", "peer0", "up"]))?;
        self.check("ip", &["addr", "add", &format!("{OWN}/24"), "dev", "host0"])?;
        self.check("ip", &["link", "set", "host0", "up"])?;
        Ok(())
    }

    /// A command that will run in the namespace of the receiver.
    pub(super) fn at_peer(&self, program: &Path) -> Command {
        let mut command = cmd("ip", ["netns", "exec", &self.peer]);
        command.arg(program);
        command
    }

    /// Runs a program in the system.
    pub(super) fn run(&self, program: &str, args: &[&str]) -> Result<Output> {
        self.interrupt.check()?;
        let mut command = cmd("nsenter", ["--all", "--root", "--wd", "--target"]);
        command.arg(self.pid.to_string()).arg(program).args(args).stdin(Stdio::null());
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("LANG", "C.UTF-8");
        command.env("DEBIAN_FRONTEND", "noninteractive").env("SYSTEMD_COLORS", "0");
        command.output().with_context(|| format!("run {program} in the system"))
    }

    /// Runs a program that must succeed; returns what it said on standard output.
    pub(super) fn check(&self, program: &str, args: &[&str]) -> Result<String> {
        let out = self.run(program, args)?;
        let said = String::from_utf8_lossy(&out.stderr);
        ensure!(
            out.status.success(),
            "`{program} {}` failed ({}): {}{}",
            args.join(" "),
            out.status,
            String::from_utf8_lossy(&out.stdout),
            said.trim()
        );
        Ok(String::from_utf8_lossy(&out.stdout).into_owned())
    }

    /// This machine's number of a process of the system.
    pub(super) fn host_pid(&self, pid: &str) -> Result<u32> {
        let space = |of: &str| fs::read_link(format!("/proc/{of}/ns/pid")).ok();
        let own = space(&self.pid.to_string());
        let processes = fs::read_dir("/proc").context("list /proc")?.flatten();
        processes
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|number| number.parse::<u32>().is_ok() && space(number) == own)
            .find(|number| {
                let status =
                    fs::read_to_string(format!("/proc/{number}/status")).unwrap_or_default();
                let inner = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
                inner.and_then(|pids| pids.split_whitespace().last()) == Some(pid)
            })
            .and_then(|number| number.parse().ok())
            .with_context(|| format!("no process {pid} in the system"))
    }

    /// A path of the system as it is seen from here.
    pub(super) fn path(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.pid))
    }

    /// Writes a file in the system.
    pub(super) fn write(&self, path: &str, text: &str) -> Result<()> {
        let path = self.path(path);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
        }
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))
    }

    /// Brings a file of the host into the system.
    pub(super) fn bring(&self, from: &Path, to: &str) -> Result<()> {
        let to = self.path(to);
        fs::copy(from, &to).with_context(|| format!("copy {}", from.display()))?;
        Ok(())
    }

    /// Writes a line to the kernel log.
    pub(super) fn log(&self, line: &str) -> Result<()> {
        let mut file =
            fs::File::options().write(true).open("/dev/kmsg").context("open /dev/kmsg")?;
        file.write_all(line.as_bytes()).context("write to /dev/kmsg")
    }

    /// A property of the service.
    pub(super) fn property(&self, name: &str) -> Result<String> {
        let args = ["show", "--value", "--property", name, super::SERVICE];
        Ok(self.check("systemctl", &args)?.trim().to_owned())
    }

    /// Waits until something is so.
    pub(super) fn wait<T>(
        &self,
        what: &str,
        limit: Duration,
        mut look: impl FnMut(&Self) -> Option<T>,
    ) -> Result<T> {
        let start = Instant::now();
        loop {
            if let Some(found) = look(self) {
                return Ok(found);
            }
            self.interrupt.check()?;
            if start.elapsed() > limit {
                bail!("waited {} s for {what}", limit.as_secs());
            }
            thread::sleep(POLL);
        }
    }

    /// Waits until the system has ended by itself.
    pub(super) fn wait_for_end(&mut self, limit: Duration) -> Result<()> {
        let start = Instant::now();
        while self.unshare.try_wait().context("look after the system")?.is_none() {
            self.interrupt.check()?;
            ensure!(start.elapsed() < limit, "it was still there after {} s", limit.as_secs());
            thread::sleep(POLL);
        }
        // The number may be another process's from here on.
        self.pid = 0;
        Ok(())
    }
}

impl Drop for Machine<'_> {
    fn drop(&mut self) {
        // With process 1 everything in its namespaces ends. It fails if that has happened already.
        // Who started it ends after it: then no process is in the cgroups any more.
        if self.pid != 0 {
            drop(cmd("kill", ["-KILL", &self.pid.to_string()]).stderr(Stdio::null()).status());
        } else {
            drop(self.unshare.kill());
        }
        drop(self.unshare.wait());
        drop(output(&mut cmd("ip", ["netns", "del", &self.peer])));
        for cgroup in cgroups() {
            remove_cgroup(&cgroup);
        }
    }
}

/// Where the system's cgroups are, in each hierarchy that this machine has.
fn cgroups() -> Vec<PathBuf> {
    let base = Path::new("/sys/fs/cgroup");
    let hybrid = ["systemd", "unified", "devices", "memory", "pids"].map(|name| base.join(name));
    let hierarchies: Vec<_> = if base.join("cgroup.procs").exists() {
        vec![base.to_owned()]
    } else {
        hybrid.into_iter().filter(|path| path.join("cgroup.procs").exists()).collect()
    };
    let name = format!("netconsole-agent-system-{}", std::process::id());
    hierarchies.into_iter().map(|path| path.join(&name)).collect()
}

/// Removes a cgroup and those below it. What is still in use stays: an empty folder.
fn remove_cgroup(path: &Path) {
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroup(&entry.path());
        }
    }
    drop(fs::remove_dir(path));
}
