//! What the kernel's own netconsole does where `README.md` compares the agent with it: one line
//! for each finding, which the host judges (`xtask/src/vm/judge/netconsole.rs`).

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::{CONFIGFS, LIMIT, PACE, REMOTE, ip, say, set, settle, tool, write};

pub(super) const PHASE: &str = "netconsole";
const ADDRESS: &str = "10.0.2.15";
/// Ports, one for each target whose packets leave the guest.
const PORT_AT_LOAD: u16 = 6670;
const PORT_GIVEN: u16 = 6671;
const PORT_OTHER: u16 = 6672;
const PORT_BRIDGE: u16 = 6673;
/// The next hop's MAC that a target is given, and the one that it has later.
const GIVEN_MAC: &str = "02:00:00:00:00:17";
const NEW_MAC: &str = "02:00:00:00:00:99";
const PRINTK: &str = "/proc/sys/kernel/printk";
/// How long a target may take to go on by itself.
const COMES_BACK: Duration = Duration::from_secs(2);

fn found(name: &str, value: &str) {
    say(&format!("INFO {PHASE}-{name} {value}"));
}

/// A target by the module's parameter, before the log has much: is it sent what was logged before?
pub(super) fn at_load() -> Result<()> {
    let target = format!("netconsole=+6665@{ADDRESS}/eth0,{PORT_AT_LOAD}@{REMOTE}/");
    tool("modprobe", &["netconsole", &target])?;
    settle()?;
    tool("rmmod", &["netconsole"])
}

pub(super) fn run() -> Result<()> {
    for module in ["dummy", "bonding", "veth", "bridge"] {
        tool("modprobe", &[module])?;
    }
    for (what, scene) in [
        ("drivers", drivers as fn() -> Result<()>),
        ("ports of a master", ports),
        ("a device that comes back", comes_back),
        ("settings", settings),
        ("who prints", who_prints),
        ("what is sent", what_is_sent),
        ("the way of a bridge", over_bridge),
    ] {
        scene().context(what)?;
    }
    Ok(())
}

/// A target in configfs, removed when dropped.
struct Target(PathBuf);

impl Target {
    fn new(device: &str, port: u16) -> Result<Self> {
        let dir = Path::new(CONFIGFS).join(format!("{device}-{port}"));
        fs::create_dir(&dir).with_context(|| format!("make {}", dir.display()))?;
        let target = Self(dir);
        target.set("extended", "1")?;
        target.set("dev_name", device)?;
        target.set("local_ip", ADDRESS)?;
        target.set("remote_ip", REMOTE)?;
        target.set("remote_port", &port.to_string())?;
        Ok(target)
    }

    fn set(&self, file: &str, value: &str) -> Result<()> {
        set(&self.0.join(file), value)
    }

    /// Tries to set it; what the kernel says.
    fn answer(&self, file: &str, value: &str) -> String {
        match fs::write(self.0.join(file), value) {
            Ok(()) => "taken".to_owned(),
            Err(error) => format!("refused ({error})"),
        }
    }

    fn enable(self) -> Result<Self> {
        self.set("enabled", "1")?;
        Ok(self)
    }

    fn get(&self, file: &str) -> Result<String> {
        let text = fs::read_to_string(self.0.join(file));
        Ok(text.with_context(|| format!("read {file}"))?.trim().to_owned())
    }

    fn is_enabled(&self) -> Result<bool> {
        Ok(self.get("enabled")? == "1")
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        // What is left over would only send more.
        drop(fs::remove_dir(&self.0));
    }
}

fn drivers() -> Result<()> {
    ip("link add port0 type veth")?;
    ip("link set port0 up")?;
    found("veth", &Target::new("port0", PORT_OTHER)?.answer("enabled", "1"));
    ip("link del port0")
}

fn ports() -> Result<()> {
    for kind in ["bridge", "bond"] {
        ip(&format!("link add master0 type {kind}"))?;
        ip("link set dummy0 up")?;
        let target = Target::new("dummy0", PORT_OTHER)?.enable()?;
        // A bond takes no port that is up.
        ip("link set dummy0 down")?;
        ip("link set dummy0 master master0")?;
        found(&format!("{kind}-joined"), &format!("enabled={}", target.is_enabled()?));
        drop(target);
        let target = Target::new("dummy0", PORT_OTHER)?;
        found(&format!("{kind}-port"), &target.answer("enabled", "1"));
        ip("link set dummy0 nomaster")?;
        ip("link del master0")?;
    }
    Ok(())
}

fn comes_back() -> Result<()> {
    ip("link set dummy0 up")?;
    let target = Target::new("dummy0", PORT_OTHER)?.enable()?;
    ip("link del dummy0")?;
    found("device-gone", &format!("enabled={}", target.is_enabled()?));
    ip("link add dummy0 type dummy")?;
    ip("link set dummy0 up")?;
    let start = Instant::now();
    while !target.is_enabled()? && start.elapsed() < COMES_BACK {
        thread::sleep(PACE);
    }
    found("device-back", &format!("enabled={}", target.is_enabled()?));
    Ok(())
}

fn settings() -> Result<()> {
    let target = Target::new("dummy0", PORT_OTHER)?;
    // Some kernels make an address of it, though not that of the name.
    let answer = target.answer("remote_ip", "localhost");
    found("name", &format!("{answer} as {}", target.get("remote_ip")?));
    target.set("remote_ip", REMOTE)?;
    let target = target.enable()?;
    found("other-address", &target.answer("remote_ip", "10.0.2.3"));
    let files = fs::read_dir(&target.0).context("list the target's settings")?;
    let mut files: Vec<String> =
        files.flatten().map(|file| file.file_name().to_string_lossy().into_owned()).collect();
    files.sort();
    found("settings", &files.join(" "));
    Ok(())
}

/// How many packets of ten records the driver has when the writer goes on, and which threads print.
fn who_prints() -> Result<()> {
    let target = Target::new("dummy0", PORT_OTHER)?.enable()?;
    let packets = || -> Result<u64> {
        let text = fs::read_to_string("/sys/class/net/dummy0/statistics/tx_packets");
        text.context("read a counter")?.trim().parse().context("read a counter")
    };
    settle()?;
    let before = packets()?;
    for number in 0..10 {
        fs::write("/dev/kmsg", format!("<12>printed {number}\n")).context("write to /dev/kmsg")?;
    }
    found("at-return", &(packets()? - before).to_string());
    drop(target);
    let processes = fs::read_dir("/proc").context("list the processes")?.flatten();
    let names = processes.filter_map(|entry| fs::read_to_string(entry.path().join("comm")).ok());
    let printers: Vec<String> = names
        .map(|name| name.trim().to_owned())
        .filter(|name| name.starts_with("pr/netcon"))
        .collect();
    found("printers", &printers.join(" "));
    Ok(())
}

/// Two targets of one device: the console's level, the next hop's MAC, a device that is down.
fn what_is_sent() -> Result<()> {
    let given = Target::new("eth0", PORT_GIVEN)?;
    given.set("remote_mac", GIVEN_MAC)?;
    let _given = given.enable()?;
    let _other = Target::new("eth0", PORT_OTHER)?.enable()?;
    set(Path::new(PRINTK), "5")?;
    for level in 4..=6 {
        write(format!("<{level}>netconsole level {level}\n"))?;
    }
    settle()?;
    set(Path::new(PRINTK), "8")?;

    tool("arp", &["-s", REMOTE, NEW_MAC])?;
    let table = fs::read_to_string("/proc/net/arp").context("read the neighbours")?;
    ensure!(table.contains(NEW_MAC), "the next hop did not get another MAC:\n{table}");
    write("<12>netconsole next hop moved\n")?;
    // The entry ends with the device.
    dark("device", "eth0")
}

/// Logs before, while and after eth0 is down, and so `device` is down or without a carrier.
fn dark(what: &str, device: &str) -> Result<()> {
    write(format!("<12>netconsole {what} before\n"))?;
    settle()?;
    ip("link set eth0 down")?;
    if device != "eth0" {
        await_carrier(device, "0")?;
    }
    write(format!("<12>netconsole {what} meanwhile\n"))?;
    settle()?;
    ip("link set eth0 up")?;
    await_carrier(device, "1")?;
    write(format!("<12>netconsole {what} after\n"))?;
    settle()
}

fn await_carrier(device: &str, wanted: &str) -> Result<()> {
    let file = format!("/sys/class/net/{device}/carrier");
    let start = Instant::now();
    while fs::read_to_string(&file).is_ok_and(|text| text.trim() != wanted) {
        ensure!(start.elapsed() < LIMIT, "the carrier of {device} does not become {wanted}");
        thread::sleep(PACE);
    }
    Ok(())
}

/// A bridge whose only port goes down is up, and has no carrier.
fn over_bridge() -> Result<()> {
    ip("link add br0 type bridge")?;
    ip("link set eth0 master br0")?;
    ip("link set br0 up")?;
    await_carrier("br0", "1")?;
    let target = Target::new("br0", PORT_BRIDGE)?.enable()?;
    let result = dark("carrier", "br0");
    drop(target);
    ip("link set eth0 nomaster")?;
    ip("link del br0")?;
    result
}
