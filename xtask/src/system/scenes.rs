//! What is tried in the system, in this order.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};

use super::machine::{Machine, RECEIVER};
use super::receiver::Receiver;
use super::{PORT, SERVICE};
use crate::dist::Packages;
use crate::run::root;

type Scene = fn(&mut Stage<'_>) -> Result<()>;

/// All of them.
pub(super) const ALL: &[(&str, Scene)] = &[
    ("installed-and-not-started", installed),
    ("not-configured", not_configured),
    ("configured-and-started", started),
    ("restrictions", restrictions),
    ("nothing-is-replaced-by-less", nothing_less),
    ("unit-file-socket-and-capture-file", features),
    ("a-file-that-only-root-reads", files_of_root),
    ("reload", reload),
    ("control-group", control_group),
    ("killed", killed),
    ("watchdog", watchdog),
    ("after-crash", after_crash),
    ("upgraded-while-it-runs", upgraded),
    ("upgraded-while-it-is-stopped", upgraded_stopped),
    ("upgraded-with-a-bad-configuration", upgraded_badly),
    ("removed-and-purged", removed),
    ("package-as-the-readme-says", readme_package),
    ("tarball-as-the-readme-says", readme_tarball),
    ("shutdown", shutdown),
];

const CONFIG: &str = "/etc/netconsole-agent/agent.toml";
const USER: &str = "netconsole-agent";
/// What `systemd-analyze security` may sum up to.
const EXPOSURE_MAX: f64 = 3.0;
const PATIENCE: Duration = Duration::from_secs(15);
/// WatchdogSec=, and a start after it.
const WATCHDOG: Duration = Duration::from_secs(25);
const SHUTDOWN: Duration = Duration::from_secs(60);

/// What the scenes share.
pub(super) struct Stage<'a> {
    pub(super) machine: Machine<'a>,
    pub(super) receiver: Receiver,
    pub(super) packages: Packages,
}

impl Stage<'_> {
    /// The service's log.
    pub(super) fn service_log(&self) -> String {
        let args = ["--unit", SERVICE, "--no-pager", "--output=cat", "--lines=40"];
        self.machine.check("journalctl", &args).unwrap_or_else(|error| format!("{error:#}"))
    }

    fn systemctl(&self, verb: &str) -> Result<String> {
        self.machine.check("systemctl", &[verb, SERVICE])
    }

    /// What the agent says of itself.
    fn status(&self) -> Result<serde_json::Value> {
        let told = self.machine.check("netconsole-agent", &["status", "--json"])?;
        serde_json::from_str(&told).context("read the agent's status")
    }

    fn is_active(&self) -> Result<bool> {
        Ok(self.machine.property("ActiveState")? == "active")
    }

    /// Its process, as the system numbers it.
    fn pid(&self) -> Result<String> {
        self.machine.property("MainPID")
    }

    /// The same, as this machine numbers it.
    fn host_pid(&self) -> Result<u32> {
        self.machine.host_pid(&self.pid()?)
    }

    /// Logs a line, which must arrive once.
    fn says(&mut self, text: &str) -> Result<()> {
        self.logs(text)?;
        self.hears(text).map(drop)
    }

    /// Logs a line.
    fn logs(&self, text: &str) -> Result<()> {
        self.machine.log(&format!("<6>{}\n", of_this_run(text)))
    }

    /// Waits until a line has arrived.
    fn hears(&mut self, text: &str) -> Result<String> {
        self.receiver.wait(&of_this_run(text), PATIENCE)
    }

    fn install(&self, package: &Path) -> Result<()> {
        self.machine.bring(package, "/tmp/agent.deb")?;
        self.machine.check("dpkg", &["--install", "/tmp/agent.deb"]).map(drop)
    }

    /// The paths of the system that name the agent, but for what dpkg and the journal keep.
    fn traces(&self) -> Result<Vec<String>> {
        let find = "find / -xdev ( -path /proc -o -path /sys -o -path /tmp -o -path /var/log \
                    -o -path /var/lib/dpkg ) -prune -o -name *netconsole-agent* -print";
        let args: Vec<&str> = find.split_whitespace().skip(1).collect();
        let found = self.machine.check("find", &args)?;
        let mounted =
            self.machine.check("find", &["/run", "/dev", "-name", "*netconsole-agent*"])?;
        Ok(found.lines().chain(mounted.lines()).map(str::to_owned).collect())
    }
}

/// A text that is not in the kernel's log from an earlier run: a first start sends what is there.
fn of_this_run(text: &str) -> String {
    format!("system-test {}: {text}", std::process::id())
}

fn config(more: &str) -> String {
    format!("[target.fleet]\nremote = \"{RECEIVER}:{PORT}\"\n{more}")
}

fn installed(stage: &mut Stage<'_>) -> Result<()> {
    stage.install(&stage.packages.deb)?;
    ensure!(!stage.is_active()?, "it was started");
    let enabled = stage.machine.run("systemctl", &["is-enabled", SERVICE])?;
    let enabled = String::from_utf8_lossy(&enabled.stdout).trim().to_owned();
    ensure!(enabled == "disabled", "it is {enabled}");
    let user = stage.machine.check("getent", &["passwd", USER])?;
    ensure!(user.contains("nologin"), "its user may log in: {user}");
    let kept = stage.machine.check("dpkg-query", &["-W", "-f", "${Conffiles}", USER])?;
    ensure!(kept.trim().starts_with(CONFIG), "the configuration is no conf-file: {kept:?}");
    let version = stage.machine.check("netconsole-agent", &["--version"])?;
    ensure!(version.contains(env!("CARGO_PKG_VERSION")), "{version}");
    for file in [
        "man/man1/netconsole-agent.1.gz",
        "man/man1/netconsole-agent-status.1.gz",
        "man/man5/netconsole-agent.toml.5.gz",
        "bash-completion/completions/netconsole-agent",
        "zsh/vendor-completions/_netconsole-agent",
        "fish/vendor_completions.d/netconsole-agent.fish",
        "netconsole-agent/agent.schema.json",
    ] {
        ensure!(stage.machine.path("/usr/share").join(file).exists(), "no {file}");
    }
    Ok(())
}

fn not_configured(stage: &mut Stage<'_>) -> Result<()> {
    let started = stage.machine.run("systemctl", &["start", SERVICE])?;
    ensure!(!started.status.success(), "it runs without a target");
    let log = stage.service_log();
    ensure!(log.contains("target"), "it does not say that there is no target: {log}");
    ensure!(
        stage.machine.property("ExecMainStatus")? == "78",
        "not the status of a bad configuration"
    );
    stage.systemctl("reset-failed").map(drop)
}

fn started(stage: &mut Stage<'_>) -> Result<()> {
    stage.machine.write(CONFIG, &config(""))?;
    stage.machine.check("systemctl", &["enable", "--now", SERVICE])?;
    stage.says("started")
}

fn restrictions(stage: &mut Stage<'_>) -> Result<()> {
    let status = fs::read_to_string(format!("/proc/{}/status", stage.host_pid()?))
        .context("read the agent's status")?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"));
        line.map(str::to_owned).with_context(|| format!("no {name}"))
    };
    ensure!(!field("Uid")?.starts_with("0\t"), "it runs as root");
    ensure!(field("NoNewPrivs")? == "1", "it may gain privileges");
    ensure!(field("Seccomp")? == "2", "its system calls are not filtered");
    // NET_ADMIN (12), NET_RAW (13) and IPC_LOCK (14) stay.
    ensure!(field("CapPrm")? == "0000000000007000", "it kept {}", field("CapPrm")?);
    let judged = stage.machine.check("systemd-analyze", &["security", "--no-pager", SERVICE])?;
    let overall = judged.lines().last().unwrap_or_default();
    let exposure = overall.split_whitespace().find_map(|word| word.parse::<f64>().ok());
    let exposure = exposure.with_context(|| format!("no figure in {overall:?}"))?;
    println!("    exposure {exposure}");
    ensure!(exposure <= EXPOSURE_MAX, "{overall}");
    let told = stage.machine.check("netconsole-agent", &["status", "--verbose"])?;
    ensure!(told.contains("source: tracepoint") || told.contains("source: commit"), "{told}");
    Ok(())
}

/// The restrictions have taken nothing away: what `auto` chose is the best that there is.
fn nothing_less(stage: &mut Stage<'_>) -> Result<()> {
    let status = stage.status()?;
    let target = &status["targets"][0];
    ensure!(target["state"] == "active", "the target is not active: {target}");
    ensure!(target["egress"]["kind"] == "xdp", "the way out is {}", target["egress"]);
    let source = &status["capture"]["source"];
    ensure!(source != "kmsg", "records are only read from /dev/kmsg: {}", status["capture"]);
    // The kernel's symbols are read a second after the start. A kernel that does not show what is looked
    // for has shown the others.
    let words = stage.machine.wait("the proofs of a panic", PATIENCE, |_| {
        let words = stage.status().ok()?["last_words"].clone();
        let why = words["why"].as_str().unwrap_or_default();
        (words["proof"].is_string() || why.contains("kallsyms")).then_some(words)
    })?;
    let why = words["why"].as_str().unwrap_or_default();
    let all_looked_at = words["proof"].is_string() || why.contains("CONFIG_KALLSYMS_ALL");
    ensure!(all_looked_at, "no line of a panic would be held: {words}");
    ensure!(words["understudy_cpu"].is_u64() && words["targets"] == 1, "last words: {words}");
    println!("    by {source} and xdp; a panic is told by {}", words["proof"]);
    Ok(())
}

/// What needs files, sockets and the tree of control groups.
fn features(stage: &mut Stage<'_>) -> Result<()> {
    stage.machine.write("/etc/role", "database")?;
    let more = "[target.fleet.sysdata]\nunit = true\n[target.fleet.userdata]\nrole = \"{file:/etc/role}\"\n\
                [target.file]\nremote = \"192.0.2.2:6667\"\negress = \"pcap\"\n\
                pcap = \"/var/lib/netconsole-agent/records.pcap\"\n";
    let agent = "[agent]\nmetrics = \"unix:/run/netconsole-agent/metrics.sock\"\n";
    stage.machine.write(CONFIG, &format!("{agent}{}", config(more)))?;
    stage.systemctl("restart")?;
    stage.says("with features")?;
    // The first line of a unit makes the agent look who it is.
    let speaker = format!(
        "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'echo \"<6>{}\" >/dev/kmsg; sleep 3; \
         echo \"<6>{}\" >/dev/kmsg'\n",
        of_this_run("a unit begins"),
        of_this_run("a unit speaks")
    );
    stage.machine.write("/etc/systemd/system/speaker.service", &speaker)?;
    stage.machine.check("systemctl", &["daemon-reload"])?;
    stage.machine.check("systemctl", &["start", "speaker.service"])?;
    let line = stage.hears("a unit speaks")?;
    ensure!(line.contains("speaker.service"), "its unit is not told: {line}");
    ensure!(line.contains("database"), "the file's text is not told: {line}");

    let metrics = stage.machine.path("/run/netconsole-agent/metrics.sock");
    let mut http = UnixStream::connect(&metrics).context("connect to the metrics")?;
    http.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
    let mut page = String::new();
    http.read_to_string(&mut page).context("read the metrics")?;
    ensure!(page.contains("\nnetconsole_agent_"), "no metrics: {page}");
    let pcap = stage.machine.path("/var/lib/netconsole-agent/records.pcap");
    stage.machine.wait("the capture file", PATIENCE, |_| {
        let bytes = fs::read(&pcap).ok()?;
        bytes.windows(12).any(|bytes| bytes == b"a unit speak").then_some(())
    })?;
    Ok(())
}

/// A start reads by the service's user, as each reload will: what works once works again.
fn files_of_root(stage: &mut Stage<'_>) -> Result<()> {
    stage.machine.check("chmod", &["0600", CONFIG])?;
    let started = stage.machine.run("systemctl", &["restart", SERVICE])?;
    ensure!(!started.status.success(), "it reads what only root may read");
    let log = stage.service_log();
    ensure!(log.contains("Permission denied"), "it does not say why: {log}");
    stage.machine.check("chmod", &["0644", CONFIG])?;
    stage.systemctl("reset-failed")?;
    stage.machine.write(CONFIG, &config(""))?;
    stage.systemctl("start").map(drop)
}

fn reload(stage: &mut Stage<'_>) -> Result<()> {
    let pid = stage.pid()?;
    stage.machine.write(CONFIG, &config("[target.fleet.userdata]\nrack = \"r12\"\n"))?;
    stage.systemctl("reload")?;
    stage.says("reloaded")?;
    stage.receiver.wait("r12", PATIENCE)?;
    stage.machine.write(CONFIG, &config("formatt = \"basic\"\n"))?;
    let refused = stage.machine.run("systemctl", &["reload", SERVICE])?;
    ensure!(!refused.status.success(), "a bad configuration was taken");
    let log = stage.service_log();
    ensure!(log.contains("agent.toml:3"), "the place of the mistake is not told: {log}");
    stage.machine.write(CONFIG, &config(""))?;
    stage.systemctl("reload")?;
    stage.says("reloaded again")?;
    ensure!(stage.pid()? == pid, "it was restarted");
    Ok(())
}

fn control_group(stage: &mut Stage<'_>) -> Result<()> {
    let drop_in = "/etc/systemd/system/netconsole-agent.service.d/group.conf";
    stage.machine.write(drop_in, "[Service]\nSupplementaryGroups=adm\n")?;
    stage.machine.write(CONFIG, &format!("[agent]\ncontrol_group = \"adm\"\n{}", config("")))?;
    stage.machine.check("systemctl", &["daemon-reload"])?;
    stage.systemctl("restart")?;
    let socket =
        stage.machine.check("stat", &["-c", "%G %a", "/run/netconsole-agent/control.sock"])?;
    ensure!(socket.trim() == "adm 660", "the socket is {socket}");
    let args = ["--reuid=nobody", "--regid=nogroup", "--groups=adm", "netconsole-agent", "status"];
    stage.machine.check("setpriv", &args).map(drop)
}

fn killed(stage: &mut Stage<'_>) -> Result<()> {
    let pid = stage.pid()?;
    stage.machine.check("systemctl", &["kill", "--signal=KILL", SERVICE])?;
    stage.logs("while it is dead")?;
    stage.machine.wait("a restart", PATIENCE, |machine| {
        let now = machine.property("MainPID").ok()?;
        (now != "0" && now != pid).then_some(())
    })?;
    stage.hears("while it is dead").map(drop)
}

fn watchdog(stage: &mut Stage<'_>) -> Result<()> {
    let pid = stage.pid()?;
    stage.machine.check("systemctl", &["kill", "--signal=STOP", SERVICE])?;
    stage.logs("while it stands still")?;
    stage.machine.wait("the watchdog", WATCHDOG, |machine| {
        let now = machine.property("MainPID").ok()?;
        (now != "0" && now != pid).then_some(())
    })?;
    stage.hears("while it stands still").map(drop)
}

fn after_crash(stage: &mut Stage<'_>) -> Result<()> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).context("the time")?;
    let file = format!("/var/lib/systemd/pstore/{}/dmesg.txt", now.as_secs());
    let text = of_this_run("before the crash");
    let text = format!("Oops#1 Part1\n<4>[   12.000000] {text}\n");
    let part = file.replace("dmesg.txt", "dmesg-efi-170000000001001");
    stage.machine.write(&part, &text)?;
    stage.machine.check("chmod", &["0600", &part])?;
    stage.machine.write(CONFIG, &config("after_crash = true\n"))?;
    stage.systemctl("restart")?;
    stage.hears("before the crash").map(drop)
}

fn upgraded(stage: &mut Stage<'_>) -> Result<()> {
    let pid = stage.pid()?;
    stage.install(&stage.packages.newer_deb)?;
    ensure!(stage.is_active()?, "it was stopped");
    ensure!(stage.pid()? != pid, "the old version still runs");
    let kept = fs::read_to_string(stage.machine.path(CONFIG)).context("read the configuration")?;
    ensure!(kept.contains(RECEIVER), "the configuration was replaced");
    stage.says("upgraded")?;
    let again = stage.receiver.count(&of_this_run("started"));
    ensure!(again == 1, "what was sent before came {again} times");
    Ok(())
}

fn upgraded_stopped(stage: &mut Stage<'_>) -> Result<()> {
    stage.systemctl("stop")?;
    stage.install(&stage.packages.newer_deb)?;
    ensure!(!stage.is_active()?, "it was started");
    stage.logs("while it was stopped")?;
    stage.systemctl("start")?;
    stage.hears("while it was stopped").map(drop)
}

/// A new version that refuses the old configuration is installed all the same.
fn upgraded_badly(stage: &mut Stage<'_>) -> Result<()> {
    stage.machine.write(CONFIG, &config("formatt = \"basic\"\n"))?;
    stage.install(&stage.packages.newer_deb)?;
    ensure!(!stage.is_active()?, "it runs with a bad configuration");
    let state = stage.machine.check("dpkg-query", &["-W", "-f", "${Status}", USER])?;
    ensure!(state.trim() == "install ok installed", "the package is {state}");
    stage.machine.write(CONFIG, &config(""))?;
    stage.systemctl("reset-failed")?;
    stage.systemctl("start")?;
    stage.says("repaired")
}

fn removed(stage: &mut Stage<'_>) -> Result<()> {
    stage.machine.check("dpkg", &["--remove", USER])?;
    ensure!(!stage.is_active()?, "it still runs");
    ensure!(stage.machine.path(CONFIG).exists(), "the configuration is gone");
    // Whoever had it in each boot has it so again.
    stage.install(&stage.packages.deb)?;
    stage.machine.check("systemctl", &["is-enabled", SERVICE])?;
    stage.machine.check("dpkg", &["--remove", USER])?;
    stage.machine.check("dpkg", &["--purge", USER])?;
    let drop_ins = "/etc/systemd/system/netconsole-agent.service.d";
    let traces: Vec<_> =
        stage.traces()?.into_iter().filter(|path| !path.starts_with(drop_ins)).collect();
    ensure!(traces.is_empty(), "left behind: {}", traces.join(", "));
    let user = stage.machine.run("getent", &["passwd", USER])?;
    ensure!(!user.status.success(), "its user is left behind");
    Ok(())
}

/// Runs the commands of the README's block with these words beside a file, with an editor that writes a
/// target.
fn as_the_readme_says(stage: &mut Stage<'_>, words: &str, file: &Path) -> Result<()> {
    let readme = root().join("README.md");
    let text = fs::read_to_string(&readme).with_context(|| format!("read {}", readme.display()))?;
    let blocks = text.split("\n```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
    let block = blocks.into_iter().find(|block| block.contains(words));
    let block = block.with_context(|| format!("no block of the README has {words:?}"))?;
    let editor = format!("#!/bin/sh\ncat >\"$1\" <<END\n{}END\n", config(""));
    stage.machine.write("/usr/bin/editor", &editor)?;
    stage.machine.check("chmod", &["0755", "/usr/bin/editor"])?;
    let name = file.file_name().context("a file's name")?.to_string_lossy();
    stage.machine.check("mkdir", &["-p", "/root/download"])?;
    stage.machine.bring(file, &format!("/root/download/{name}"))?;
    stage.machine.check("sh", &["-e", "-c", &format!("cd /root/download\n{block}")])?;
    stage.says(&format!("installed from {name}"))
}

fn readme_package(stage: &mut Stage<'_>) -> Result<()> {
    let file = stage.packages.deb.clone();
    as_the_readme_says(stage, "apt-get install ./", &file)?;
    stage.machine.check("dpkg", &["--purge", USER]).map(drop)
}

fn readme_tarball(stage: &mut Stage<'_>) -> Result<()> {
    let file = stage.packages.tarball.clone();
    as_the_readme_says(stage, "tar -xzf netconsole-agent-", &file)?;
    let unit = "/etc/systemd/system/netconsole-agent.service";
    stage.machine.check("systemctl", &["disable", "--now", SERVICE])?;
    stage
        .machine
        .check("rm", &["-r", unit, "/usr/bin/netconsole-agent", "/etc/netconsole-agent"])?;
    stage.machine.check("systemctl", &["daemon-reload"]).map(drop)
}

/// Installed anew, it sends what is logged while the system goes down, after every ordinary service
/// has been stopped.
fn shutdown(stage: &mut Stage<'_>) -> Result<()> {
    stage.install(&stage.packages.deb)?;
    stage.machine.write(CONFIG, &config(""))?;
    stage.machine.check("systemctl", &["enable", "--now", SERVICE])?;
    // It is started before, and so stopped after, everything that has the default dependencies.
    let stops = of_this_run("the last service stops");
    let last = format!(
        "[Unit]\nDefaultDependencies=no\nConflicts=shutdown.target\nBefore=shutdown.target \
                sysinit.target\n[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\n\
                ExecStop=/bin/sh -c 'echo \"<6>{stops}\" >/dev/kmsg'\n"
    );
    stage.machine.write("/etc/systemd/system/last.service", &last)?;
    stage.machine.check("systemctl", &["daemon-reload"])?;
    stage.machine.check("systemctl", &["start", "last.service"])?;
    stage.says("before the shutdown")?;
    // It does not answer any more.
    stage.machine.run("systemctl", &["--no-block", "poweroff"])?;
    stage.machine.wait_for_end(SHUTDOWN)?;
    stage.receiver.wait(&stops, Duration::from_secs(2)).map(drop)
}
