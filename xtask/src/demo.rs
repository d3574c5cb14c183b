//! `cargo xtask demo`: the agent in one network namespace, its receiver in
//! another, and records of the running kernel on the way between them.
//!
//! The kernel log is the machine's own: besides the records made here, others
//! may show up. Everything that is made is removed again, also after Ctrl-C.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::build;
use crate::children::Running;
use crate::run::{cmd, execute, succeeds};
use crate::setup::{self, Need};
use crate::signals::Interrupt;

const AGENT_ADDRESS: &str = "10.203.0.1";
const RECEIVER_ADDRESS: &str = "10.203.0.2";
const PORT: u16 = 6666;
const READY_LIMIT: Duration = Duration::from_secs(20);
const ARRIVAL_LIMIT: Duration = Duration::from_secs(10);
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// `kernel.printk_devkmsg`: `off` drops what is written to `/dev/kmsg`.
const DEVKMSG: &str = "/proc/sys/kernel/printk_devkmsg";

/// Runs the command.
pub(crate) fn run() -> Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "the demo makes network namespaces and loads eBPF programs: run it as root"
    );
    let binary = build::release(&setup::ensure(Need::Namespaces)?)?;
    let interrupt = Interrupt::watch()?;
    let dir = tempfile::tempdir().context("make a directory for the demo's files")?;
    let net = Network::new()?;
    let mut receiver = start_receiver(&binary, &net, &interrupt)?;
    let (mut agent, socket) = start_agent(&binary, &net, dir.path(), &interrupt)?;

    println!(
        "\nThe kernel logs: messages of several levels written to /dev/kmsg, and its own ones"
    );
    let _devkmsg = Devkmsg::open_up()?;
    let mark = format!("demo {}", std::process::id());
    let written = write_records(&mark)?;
    net.bridge_a_port()?;
    write_record(6, &format!("{mark}: the last one"))?;

    let arrived = interrupt.wait_for("the arrival of the last record", ARRIVAL_LIMIT, || {
        receiver.check()?;
        agent.check()?;
        Ok(receiver.lines_with(&format!("{mark}: the last one")) > 0)
    });
    println!("\nThe agent's account");
    let status = execute(cmd(&binary, ["status", "--socket"]).arg(&socket));
    println!("\nThe agent ends");
    let exit = agent.terminate(STOP_LIMIT)?;
    arrived?;
    status?;
    ensure!(exit.success(), "the agent ended with {exit}");
    let seen = receiver.lines_with(&mark);
    ensure!(seen == written + 1, "{seen} of {} written records arrived", written + 1);
    let caused = receiver.lines_with("entered blocking state");
    ensure!(caused > 0, "the bridge's own records did not arrive");
    println!("\ndemo: all {seen} written records arrived, and {caused} of the kernel's own bridge");
    Ok(())
}

fn start_receiver(binary: &Path, net: &Network, interrupt: &Interrupt) -> Result<Running> {
    println!("\nThe receiver listens in {}", net.receiver);
    let listen = format!("{RECEIVER_ADDRESS}:{PORT}");
    let mut command = inside(&net.receiver, binary);
    let mut receiver = Running::start("receiver", command.args(["receive", "--listen", &listen]))?;
    let sockets = format!("/proc/{}/net/udp", receiver.pid());
    interrupt.wait_for("the start of the receiver", READY_LIMIT, || {
        receiver.check()?;
        // Local address and port in hexadecimal, the address in host byte order.
        Ok(fs::read_to_string(&sockets).is_ok_and(|text| text.contains(&format!(":{PORT:04X} "))))
    })?;
    Ok(receiver)
}

fn start_agent(
    binary: &Path,
    net: &Network,
    dir: &Path,
    interrupt: &Interrupt,
) -> Result<(Running, std::path::PathBuf)> {
    let config = dir.join("agent.toml");
    let socket = dir.join("control.sock");
    let text = format!(
        r#"[agent]
control_socket = "{dir}/control.sock"
replay = "none"

[target.demo]
remote = "{RECEIVER_ADDRESS}:{PORT}"
release = true
max_level = "debug"

[target.demo.sysdata]
cpu = true
taskname = true
"#,
        dir = dir.display()
    );
    println!("\nThe agent runs in {} with this configuration\n\n{text}", net.agent);
    fs::write(&config, text).with_context(|| format!("write {}", config.display()))?;
    let mut command = inside(&net.agent, binary);
    let mut agent = Running::start("agent", command.args(["run", "--config"]).arg(&config))?;
    interrupt.wait_for("the start of the agent", READY_LIMIT, || {
        agent.check()?;
        Ok(succeeds(cmd(binary, ["status", "--socket"]).arg(&socket)))
    })?;
    Ok((agent, socket))
}

/// `program` in the namespace `name`. Unlike `ip netns exec` this keeps `/sys`,
/// where the agent looks for the kernel's type information.
fn inside(name: &str, program: &Path) -> Command {
    let mut command = cmd("nsenter", [format!("--net=/run/netns/{name}")]);
    command.arg(program);
    command
}

/// Writes records of several levels and returns how many.
fn write_records(mark: &str) -> Result<usize> {
    let records: &[(u8, &str)] = &[
        (6, "an ordinary notice"),
        (4, "a warning"),
        (3, "an error with a \t tab and Grüße"),
        (7, "a debug message"),
        (11, "an error of facility 1 (user)"),
    ];
    for (priority, text) in records {
        write_record(*priority, &format!("{mark}: {text}"))?;
    }
    Ok(records.len())
}

/// Writes one record. Each has its own open file, because the kernel limits the
/// messages per open file.
fn write_record(priority: u8, text: &str) -> Result<()> {
    let mut kmsg =
        OpenOptions::new().write(true).open("/dev/kmsg").context("open /dev/kmsg to write")?;
    // One write is one record.
    kmsg.write_all(format!("<{priority}>{text}\n").as_bytes()).context("write to /dev/kmsg")
}

/// `kernel.printk_devkmsg`, opened up where it was off, and put back when dropped.
struct Devkmsg {
    before: Option<String>,
}

impl Devkmsg {
    fn open_up() -> Result<Self> {
        let before = fs::read_to_string(DEVKMSG).with_context(|| format!("read {DEVKMSG}"))?;
        if before.trim() != "off" {
            return Ok(Self { before: None });
        }
        fs::write(DEVKMSG, "on").with_context(|| format!("write {DEVKMSG}"))?;
        Ok(Self { before: Some(before) })
    }
}

impl Drop for Devkmsg {
    fn drop(&mut self) {
        if let Some(before) = &self.before
            && let Err(error) = fs::write(DEVKMSG, before.trim())
        {
            eprintln!("demo: {DEVKMSG} could not be put back to {}: {error}", before.trim());
        }
    }
}

/// Two namespaces joined by a veth pair; removed when dropped, and their devices
/// with them.
struct Network {
    agent: String,
    receiver: String,
}

impl Network {
    fn new() -> Result<Self> {
        let pid = std::process::id();
        let net = Self { agent: format!("nca-agent-{pid}"), receiver: format!("nca-recv-{pid}") };
        println!("\nTwo network namespaces, joined by a veth pair");
        ip(&["netns", "add", &net.agent])?;
        ip(&["netns", "add", &net.receiver])?;
        let (agent, receiver) = (net.agent.as_str(), net.receiver.as_str());
        ip(&[
            "link", "add", "out0", "netns", agent, "type", "veth", "peer", "name", "in0", "netns",
            receiver,
        ])?;
        for (ns, device, address) in
            [(agent, "out0", AGENT_ADDRESS), (receiver, "in0", RECEIVER_ADDRESS)]
        {
            ip(&["-n", ns, "address", "add", &format!("{address}/30"), "dev", device])?;
            ip(&["-n", ns, "link", "set", device, "up"])?;
        }
        Ok(net)
    }

    /// Makes the kernel log port states of a bridge.
    fn bridge_a_port(&self) -> Result<()> {
        let ns = self.receiver.as_str();
        ip(&["-n", ns, "link", "add", "br0", "type", "bridge"])?;
        ip(&["-n", ns, "link", "add", "port0", "type", "veth", "peer", "name", "port1"])?;
        ip(&["-n", ns, "link", "set", "port0", "master", "br0"])?;
        for device in ["br0", "port1", "port0"] {
            ip(&["-n", ns, "link", "set", device, "up"])?;
        }
        ip(&["-n", ns, "link", "set", "port0", "down"])
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for name in [&self.agent, &self.receiver] {
            if !Path::new("/run/netns").join(name).exists() {
                continue;
            }
            if let Err(error) = ip(&["netns", "delete", name]) {
                eprintln!("demo: {error:#}; remove it with `ip netns delete {name}`");
            }
        }
    }
}

fn ip(args: &[&str]) -> Result<()> {
    // In a group of its own, so that Ctrl-C does not cut it short.
    execute(cmd("ip", args).process_group(0))
}
