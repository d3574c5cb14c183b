//! The test runner inside a VM (see `cargo xtask vm`): sets the kernel's own
//! netconsole up, runs the agent once per way to capture records, and makes the
//! kernel log a marked set of records in each of these phases.
//!
//! It judges nothing but what can be seen from inside; the host compares what
//! left the VM. Its report goes to standard output, one line per fact.

mod clocks;
mod contexts;
mod netconsole;
mod overload;
mod resume;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{CpuSet, sched_setaffinity};

const REMOTE: &str = "10.0.2.2";
const AGENT: &str = "/bin/netconsole-agent";
const SOCKET: &str = "/run/agent.sock";
const CONFIGFS: &str = "/sys/kernel/config/netconsole";
/// The switches of the kernel's system data and the agent's names of them.
const SYSDATA: [(&str, &str); 4] = [
    ("cpu_nr_enabled", "cpu"),
    ("taskname_enabled", "taskname"),
    ("release_enabled", "release"),
    ("msgid_enabled", "msgid"),
];
const USERDATA: [(&str, &str); 2] = [("role", "db"), ("site", "fra1 rack=7")];
/// The ways to capture records, and the base of the ports the agent sends to.
const PHASES: [(&str, u16); 3] = [("commit", 7660), ("tracepoint", 7760), ("kmsg", 7860)];
/// Where the writer of the records runs, and the thread that disturbs it.
const WRITER_CPU: usize = 1;
const DISTURBER_CPU: usize = 0;
const PACE: Duration = Duration::from_millis(2);
const LIMIT: Duration = Duration::from_secs(60);

/// The seq of the newest record that the reference has seen.
static NEWEST_SEQ: AtomicU64 = AtomicU64::new(0);
/// How many records it has seen that are pieces of a text another record broke up.
static PIECES: AtomicU64 = AtomicU64::new(0);

fn main() {
    if let Err(error) = run() {
        say(&format!("TEST runner FAIL {error:#}"));
    }
    say("DONE");
}

/// Writes one line of the report; lines of several threads do not mix.
fn say(line: &str) {
    let mut out = io::stdout().lock();
    // Without its serial line the runner cannot say that it has none.
    drop(out.write_all(format!("{line}\n").as_bytes()).and_then(|()| out.flush()));
}

fn run() -> Result<()> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").context("read the release")?;
    say(&format!("INFO release {}", release.trim()));
    let kmsg = File::open("/dev/kmsg").context("open /dev/kmsg to read")?;
    thread::spawn(move || {
        if let Err(error) = reference(kmsg) {
            say(&format!("TEST reference FAIL {error:#}"));
        }
    });
    netconsole::at_load().context("netconsole's parameter")?;
    let sysdata = kernel_targets()?;
    contexts::prepare()?;
    let tell = |phase: &str, result: Result<()>| match result {
        Ok(()) => say(&format!("TEST {phase}/run ok")),
        Err(error) => say(&format!("TEST {phase}/run FAIL {error:#}")),
    };
    for (phase, base_port) in PHASES {
        tell(phase, run_phase(phase, base_port, &sysdata));
    }
    // They have shown what they had to, and would only slow down what follows.
    disable_kernel_targets()?;
    tell(netconsole::PHASE, netconsole::run());
    tell(overload::PHASE, overload::run());
    tell(resume::PHASE, resume::run());
    tell(clocks::PHASE, clocks::run());
    Ok(())
}

fn disable_kernel_targets() -> Result<()> {
    for dir in fs::read_dir(CONFIGFS).context("list the kernel's targets")? {
        set(&dir.context("list the kernel's targets")?.path().join("enabled"), "0")?;
    }
    Ok(())
}

/// Passes every record of `/dev/kmsg` on to the host.
fn reference(mut kmsg: File) -> Result<()> {
    let mut buffer = [0; 8192];
    loop {
        let length = kmsg.read(&mut buffer).context("read /dev/kmsg")?;
        let record = String::from_utf8_lossy(&buffer[..length]).into_owned();
        let seq = record.split(',').nth(1).and_then(|seq| seq.parse().ok());
        let flags = record.split([',', ';']).nth(3);
        PIECES.fetch_add(u64::from(flags == Some("c")), Ordering::Relaxed);
        say(&format!("KMSG {}", record.replace('\n', "\\n")));
        NEWEST_SEQ.store(seq.with_context(|| format!("no seq in {record:?}"))?, Ordering::Release);
    }
}

/// Runs `work` on a thread of its own: its name and CPU are what the agent has to
/// report for the records it writes.
fn on_thread(
    name: &str,
    cpu: usize,
    work: impl FnOnce() -> Result<()> + Send + 'static,
) -> Result<JoinHandle<Result<()>>> {
    let pinned = move || {
        let mut cpus = CpuSet::new();
        cpus.set(cpu);
        sched_setaffinity(None, &cpus).with_context(|| format!("pin a thread to CPU {cpu}"))?;
        work()
    };
    thread::Builder::new().name(name.to_owned()).spawn(pinned).context("start a thread")
}

fn join(thread: JoinHandle<Result<()>>) -> Result<()> {
    thread.join().map_err(|_| anyhow!("a thread panicked"))?
}

fn tool(program: &str, arguments: &[&str]) -> Result<()> {
    let out = Command::new(program).args(arguments).output();
    let out = out.with_context(|| format!("cannot start {program}"))?;
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    ensure!(out.status.success(), "{program} {}: {}", arguments.join(" "), said.trim());
    Ok(())
}

fn ip(arguments: &str) -> Result<()> {
    tool("ip", &arguments.split(' ').collect::<Vec<_>>())
}

fn set(path: &Path, value: &str) -> Result<()> {
    fs::write(path, value).with_context(|| format!("write {value} to {}", path.display()))
}

/// Makes the targets that this kernel's netconsole can have, tells which, and
/// returns the system data it knows, by the agent's names.
fn kernel_targets() -> Result<Vec<&'static str>> {
    tool("modprobe", &["netconsole"])?;
    let mut made = Vec::new();
    let mut sysdata = Vec::new();
    for (name, port) in [("basic", 6661), ("extended", 6663), ("release", 6664), ("data", 6665)] {
        let dir = Path::new(CONFIGFS).join(name);
        fs::create_dir(&dir).with_context(|| format!("make {}", dir.display()))?;
        let userdata = dir.join("userdata");
        let missing = match name {
            "release" => !dir.join("release").exists(),
            "data" => !userdata.exists(),
            _ => false,
        };
        if missing {
            fs::remove_dir(&dir).with_context(|| format!("remove {}", dir.display()))?;
            continue;
        }
        set(&dir.join("extended"), if name == "basic" { "0" } else { "1" })?;
        // Debian's kernels may be built to prefix the release by default.
        if dir.join("release").exists() {
            set(&dir.join("release"), if name == "release" { "1" } else { "0" })?;
        }
        set(&dir.join("dev_name"), "eth0")?;
        set(&dir.join("remote_ip"), REMOTE)?;
        set(&dir.join("remote_port"), &port.to_string())?;
        if name == "data" {
            for (key, value) in USERDATA {
                let entry = userdata.join(key);
                fs::create_dir(&entry).with_context(|| format!("make {}", entry.display()))?;
                set(&entry.join("value"), value)?;
            }
            for (switch, known) in SYSDATA {
                if userdata.join(switch).exists() {
                    set(&userdata.join(switch), "1")?;
                    sysdata.push(known);
                }
            }
        }
        set(&dir.join("enabled"), "1")?;
        made.push(name);
    }
    say(&format!("INFO targets {}", made.join(" ")));
    say(&format!("INFO sysdata {}", sysdata.join(" ")));
    Ok(sysdata)
}

/// Runs the agent with one way to capture records while all of them are logged.
fn run_phase(phase: &str, base_port: u16, sysdata: &[&str]) -> Result<()> {
    with_agent(phase, &agent_config(phase, base_port, sysdata), |_| {
        on_thread("vm_writer", WRITER_CPU, log_records).and_then(join)
    })
}

/// Marks where a phase begins or ends, by a thread of the writer's name and CPU, as its records
/// are written.
fn mark(phase: &str, mark: &str) -> Result<()> {
    let text = format!("<12>vm-test {phase} {mark}\n");
    on_thread("vm_writer", WRITER_CPU, || write(text)).and_then(join)
}

/// Runs the agent with these settings around a phase, and tells its status at the end.
fn with_agent(phase: &str, settings: &str, work: impl FnOnce(&Agent) -> Result<()>) -> Result<()> {
    let config = format!("/run/{phase}.toml");
    fs::write(&config, settings).context("write the settings")?;
    let log = format!("/run/{phase}.log");
    let result = Agent::start(&config, &log).and_then(|mut agent| {
        mark(phase, "begin")?;
        let worked = work(&agent);
        mark(phase, "end").and(settle())?;
        say(&format!("INFO status-{phase} {}", agent.status()?.replace('\n', " ")));
        worked?;
        agent.check()?;
        agent.stop()
    });
    for line in fs::read_to_string(&log).unwrap_or_default().lines() {
        say(&format!("agent {phase}: {line}"));
    }
    result
}

fn agent_config(phase: &str, base_port: u16, kernel_sysdata: &[&str]) -> String {
    let mut text = format!(
        "[agent]\ncontrol_socket = \"{SOCKET}\"\ncapture = \"{phase}\"\nreplay = \"none\"\n"
    );
    let all = SYSDATA.map(|(_, name)| name);
    let targets: [(&str, u16, &str, Option<&[&str]>); 5] = [
        ("basic", 1, "format = \"basic\"", None),
        ("extended", 3, "", None),
        ("release", 4, "release = true", None),
        ("data", 5, "", Some(kernel_sysdata)),
        ("all-data", 6, "", Some(&all)),
    ];
    for (name, offset, setting, sysdata) in targets {
        let port = base_port + offset;
        text += &format!(
            "\n[target.{name}]\nremote = \"{REMOTE}:{port}\"\negress = \"auto\"\n\
             max_level = \"debug\"\n{setting}\n"
        );
        let Some(sysdata) = sysdata else { continue };
        text += &format!("[target.{name}.userdata]\n");
        for (key, value) in USERDATA {
            text += &format!("{key} = \"{value}\"\n");
        }
        text += &format!("[target.{name}.sysdata]\n");
        for name in sysdata {
            text += &format!("{name} = true\n");
        }
    }
    text
}

/// Waits until the reference has seen everything and the agent had time to send
/// it: twice as long as it may wait for a missing record.
fn settle() -> Result<()> {
    let mut seen = NEWEST_SEQ.load(Ordering::Acquire);
    let start = Instant::now();
    loop {
        thread::sleep(Duration::from_millis(500));
        let newest = NEWEST_SEQ.load(Ordering::Acquire);
        if newest == seen {
            return Ok(());
        }
        seen = newest;
        ensure!(start.elapsed() < LIMIT, "the kernel log does not come to rest");
    }
}

/// A running agent; killed when dropped.
struct Agent(Child);

impl Agent {
    fn start(config: &str, log: &str) -> Result<Self> {
        let out = File::create(log).with_context(|| format!("create {log}"))?;
        let err = out.try_clone().context("share the agent's log")?;
        let mut command = Command::new(AGENT);
        command.args(["run", "--config", config]).stdin(Stdio::null()).stdout(out).stderr(err);
        let mut agent = Self(command.spawn().context("cannot start the agent")?);
        let start = Instant::now();
        while agent.status().is_err() {
            agent.check()?;
            ensure!(start.elapsed() < LIMIT, "the agent did not start");
            thread::sleep(Duration::from_millis(100));
        }
        Ok(agent)
    }

    fn status(&self) -> Result<String> {
        let mut command = Command::new(AGENT);
        let out = command.args(["status", "--socket", SOCKET, "--json"]).output();
        let out = out.context("cannot ask the agent for its status")?;
        ensure!(out.status.success(), "the agent's status: {}", out.status);
        Ok(String::from_utf8_lossy(&out.stdout).into_owned())
    }

    /// The number after a key in its status, where that key comes first.
    fn count(&self, key: &str) -> Result<u64> {
        let status = self.status()?;
        let after = status.split_once(&format!("\"{key}\":")).map(|(_, after)| after.trim_start());
        let end = |text: &str| text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let digits = after.map(|after| &after[..end(after)]);
        digits
            .and_then(|digits| digits.parse().ok())
            .with_context(|| format!("no {key} in {status}"))
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.context("the agent has no process id")?, signal)
            .context("signal the agent")
    }

    fn check(&mut self) -> Result<()> {
        if let Some(status) = self.0.try_wait().context("look after the agent")? {
            bail!("the agent ended by itself ({status})");
        }
        Ok(())
    }

    fn stop(mut self) -> Result<()> {
        self.signal(Signal::TERM)?;
        let start = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait().context("wait for the agent")? {
                ensure!(status.success(), "the agent ended with {status}");
                return Ok(());
            }
            ensure!(start.elapsed() < LIMIT, "the agent did not end on SIGTERM");
            thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Both fail only if it has been reaped already.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Writes to `/dev/kmsg`: one write is one record. What is tested here is how
/// records look, not how many a second can be sent, so it takes its time.
fn write(record: impl AsRef<[u8]>) -> Result<()> {
    let mut kmsg = OpenOptions::new().write(true).open("/dev/kmsg").context("open /dev/kmsg")?;
    kmsg.write_all(record.as_ref()).context("write to /dev/kmsg")?;
    thread::sleep(PACE);
    Ok(())
}

/// Makes the kernel log every kind of record.
fn log_records() -> Result<()> {
    for level in 0..8 {
        write(format!("<{level}>level {level}\n"))?;
    }
    for facility in [1, 3, 16, 23, 31, 32, 127, 255] {
        write(format!("<{}>facility {facility}\n", facility << 3 | 5))?;
    }
    write("no prefix\n")?;
    for empty in ["<12>\n", "\n", "<6>\n", "<12>\n\n", "<12>", "<15>after nothing\n"] {
        write(empty)?;
    }
    write("<12>a tab\t a backslash \\ a bell \x07 an escape \x1b[1m a delete \x7f end\n")?;
    write("<12>Grüße, 東京, 🦀\n")?;
    write(b"<12>not UTF-8: \xff\xfe\x80\xc3\n")?;
    write("<12>semicolon; comma, equals=sign \"quotes\" ncfrag=0/7;\n")?;
    write("<12> a leading blank and trailing ones   \n")?;
    write("<12>two\nlines\n")?;
    write("<12>an empty line at the end\n\n")?;
    // Printed with a prefix on each line it fits old kernels' buffer just, and not.
    for lines in [20, 38, 39, 40, 60, 80] {
        write(format!("<12>{}\n", vec!["many lines"; lines].join("\n")))?;
    }
    // What a panic says, by somebody who proves nothing with it.
    for forged in [
        "Kernel panic - not syncing: forged",
        "BUG: kernel NULL pointer dereference, address: 0000000000000000",
        "---[ end trace 0000000000000000 ]---",
        "---[ end Kernel panic - not syncing: forged ]---",
    ] {
        write(format!("<0>{forged}\n"))?;
    }
    write("<12>without a newline")?;
    write("<12>the record after it\n")?;
    write("<12>without a newline, ")?;
    write("<12>twice")?;
    // Around the length where a datagram is full, with and without a release
    // and extra data. 6.1 refuses texts of more than 992 bytes.
    for length in (1..=32).map(|step| step * 16).chain(840..=985) {
        write(format!("<14>{}\n", filler(length)))?;
    }
    for length in [250, 400, 900] {
        write([b"<14>".as_slice(), &vec![0x01; length], b"\n"].concat())?;
    }
    contexts::longest_records()?;
    kernel_records().context("records of the kernel itself")?;
    disturbed_continuations()?;
    contexts::log_records().context("records out of unusual contexts")
}

/// Text of the given length whose every part can be told from the others.
fn filler(length_bytes: usize) -> String {
    let mut text = format!("{length_bytes} ");
    for number in 0.. {
        if text.len() >= length_bytes {
            break;
        }
        text += &format!("{number}.");
    }
    text.truncate(length_bytes);
    text
}

/// Records that the kernel writes: of a driver with its dictionary, of a bridge,
/// and one that is printed in pieces.
fn kernel_records() -> Result<()> {
    tool("modprobe", &["e1000e"])?;
    tool("modprobe", &["-r", "e1000e"])?;
    tool("modprobe", &["veth"])?;
    tool("modprobe", &["bridge"])?;
    for arguments in [
        "link add br0 type bridge",
        // Its other end becomes veth0: busybox cannot name it.
        "link add port0 type veth",
        "link set port0 master br0",
        "link set br0 up",
        "link set veth0 up",
        "link set port0 up",
        "link set port0 down",
        "link del port0",
        "link del br0",
    ] {
        ip(arguments)?;
    }
    sysrq_help()
}

/// The kernel prints this text in some thirty continuation pieces.
fn sysrq_help() -> Result<()> {
    fs::write("/proc/sysrq-trigger", "h").context("ask for the sysrq help")
}

/// Continuation pieces while another CPU logs: some are broken up.
fn disturbed_continuations() -> Result<()> {
    let disturber = on_thread("vm_disturber", DISTURBER_CPU, || {
        (0..60).try_for_each(|number| write(format!("<14>disturbance {number}\n")))
    })?;
    let helped = (0..5).try_for_each(|_| {
        thread::sleep(Duration::from_millis(3));
        sysrq_help()
    });
    join(disturber).and(helped)
}
