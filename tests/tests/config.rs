//! The configuration and the unit as an operator meets them: what `check` says and
//! returns, and whether the unit grants what the agent needs and no more.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use agent_tests::{
    agent::binary,
    netns::{Pair, root_or_skip},
};
use netconsole_agent::{
    control::{protocol::Request, socket::ask, status::Status},
    privileges,
};
use rustix::{
    process::{Pid, Signal, kill_process},
    thread::{
        CapabilitySet, capability_is_in_bounding_set, remove_capability_from_bounding_set,
        set_no_new_privs,
    },
};

const EX_CONFIG: i32 = 78;

fn configs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs")
}

/// Looks at the text alone.
fn check(file: &Path) -> Output {
    agent(&["check", "--offline", "--config"], file)
}

fn agent(arguments: &[&str], file: &Path) -> Output {
    Command::new(binary()).args(arguments).arg(file).output().expect("run the agent")
}

fn check_text(text: &str) -> Output {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("agent.toml");
    std::fs::write(&file, text).expect("write the configuration");
    check(&file)
}

#[test]
fn the_example_is_good() {
    let output = check(&configs().join("agent.toml"));
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
}

#[test]
fn a_bad_file_exits_78_with_every_problem() {
    let output = check_text(
        "[agent]\nstore = \"1KiB\"\n[target.x]\nremote = \"192.0.2.300\"\npace = \"5\"\n",
    );
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(EX_CONFIG), "{said}");
    for wanted in
        ["agent.toml:2:9", "agent.toml:4:10", "\"192.0.2.300\"", "agent.toml:5:8", "needs its unit"]
    {
        assert!(said.contains(wanted), "{said}");
    }
    let missing = check(Path::new("/nonexistent/agent.toml"));
    assert_eq!(missing.status.code(), Some(EX_CONFIG), "{missing:?}");
}

#[test]
fn a_name_a_mac_and_a_pace_are_good() {
    let output = check_text(
        "[target.x]\nremote = \"netcons.example.net:1514\"\ndevice = \"02:00:00:00:00:01\"\npace = \"off\"\n",
    );
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("x -> netcons.example.net:1514"), "{said}");
}

#[test]
fn a_warning_is_no_failure() {
    let output = check_text("[target.x]\nremote = \"192.0.2.1\"\negress = \"udp\"\nqueue = 1\n");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("warning: `queue`"), "{output:?}");
}

#[test]
fn strict_accepts_no_warning() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("agent.toml");
    let write = |text: &str| std::fs::write(&file, text).expect("write the configuration");
    let strict = || agent(&["check", "--offline", "--strict", "--config"], &file);
    write("[target.x]\nremote = \"192.0.2.1\"\negress = \"udp\"\nqueue = 1\n");
    let output = strict();
    assert_eq!(output.status.code(), Some(EX_CONFIG), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("warning: `queue`"), "{output:?}");
    write("[target.x]\nremote = \"192.0.2.1\"\n");
    assert_eq!(strict().status.code(), Some(0));
}

#[test]
fn what_this_host_does_not_have_is_a_warning() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("agent.toml");
    let text = "[agent]\ncontrol_group = \"no-such-group\"\n[target.x]\nremote = \"192.0.2.1\"\n\
                device = \"nosuchdev\"\n[target.y]\nremote = \"no-such-name.invalid\"\n\
                device = \"lo\"\n[target.y.userdata]\nrack = \"{file:/nonexistent/rack}\"\n";
    std::fs::write(&file, text).expect("write the configuration");
    let output = agent(&["check", "--config"], &file);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    for wanted in [
        "agent.toml:2:17",
        "no group",
        "agent.toml:5:10",
        "no device",
        "agent.toml:7:10",
        "agent.toml:10:8",
    ] {
        assert!(said.contains(wanted), "{wanted}: {said}");
    }
    assert_eq!(said.matches("warning: ").count(), 4, "{said}");
    let output = agent(&["check", "--strict", "--config"], &file);
    assert_eq!(output.status.code(), Some(EX_CONFIG), "{output:?}");
    assert!(check(&file).stderr.is_empty());
}

/// A folder with a main file and drop-ins.
fn layers(main: &str, drop_ins: &[(&str, &str)]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("agent.toml");
    std::fs::write(&file, main).expect("write the configuration");
    std::fs::create_dir(folder.path().join("targets.d")).expect("make the folder");
    for (name, text) in drop_ins {
        let file = folder.path().join("targets.d").join(name);
        std::fs::write(file, text).expect("write a drop-in");
    }
    (folder, file)
}

#[test]
fn the_problems_of_all_files_are_told() {
    let (_folder, file) = layers(
        "[agent]\nstore = 1\n[target.a]\nremote = \"192.0.2.1\"\n",
        &[
            ("10.toml", "[target.b]\nremote = 1\n"),
            ("20.toml", "[target.a]\nremote = \"192.0.2.2\"\n"),
            ("30.txt", "not TOML"),
        ],
    );
    let output = check(&file);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(EX_CONFIG), "{said}");
    for wanted in ["agent.toml:2:9", "10.toml:2:10", "20.toml:1:9", "two targets", "agent.toml:3:9"]
    {
        assert!(said.contains(wanted), "{wanted}: {said}");
    }
    assert!(!said.contains("30.txt"), "{said}");
}

#[test]
fn what_is_shown_can_be_read_again() {
    let (folder, file) = layers(
        "[defaults]\nmax_level = \"err\"\n",
        &[("a.toml", "[target.a]\nremote = \"192.0.2.1\"\n[target.a.userdata]\nrack = \"r1\"\n")],
    );
    let output = agent(&["config", "show", "--config"], &file);
    let shown = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(shown.contains(&format!("max_level = \"err\"  # {}:2\n", file.display())), "{shown}");
    assert!(shown.contains("targets.d/a.toml:4\n"), "{shown}");
    let again = folder.path().join("again/agent.toml");
    std::fs::create_dir(folder.path().join("again")).expect("make the folder");
    std::fs::write(&again, &shown).expect("write what was shown");
    let (first, second) =
        (netconsole_agent::config::load(&file), netconsole_agent::config::load(&again));
    assert_eq!(first.expect("the first"), second.expect("the second"));
    let output = agent(&["config", "show", "--json", "--config"], &file);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(json["targets"]["a"]["userdata"]["rack"]["line"], 4, "{json}");
    assert_eq!(json["targets"]["a"]["pace"]["source"], "default", "{json}");
}

#[test]
fn the_printed_example_is_what_is_shipped() {
    let output =
        Command::new(binary()).args(["config", "example"]).output().expect("print the example");
    let shipped = std::fs::read(configs().join("agent.toml")).expect("read the example");
    assert_eq!(output.stdout, shipped);
}

fn unit() -> String {
    std::fs::read_to_string(configs().join("netconsole-agent.service")).expect("read the unit")
}

/// The value of a setting that the unit has once.
fn setting(name: &str) -> String {
    let unit = unit();
    let values: Vec<&str> =
        unit.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('=')).collect();
    let [value] = values[..] else { panic!("{name} is there {} times", values.len()) };
    value.to_owned()
}

fn capabilities() -> CapabilitySet {
    setting("CapabilityBoundingSet")
        .split_whitespace()
        .map(|name| {
            let name = name.strip_prefix("CAP_").expect("a capability");
            CapabilitySet::from_name(name).unwrap_or_else(|| panic!("no capability {name}"))
        })
        .collect()
}

#[test]
fn systemd_accepts_the_unit() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("netconsole-agent.service");
    // The command must exist for it to be accepted.
    let own = binary();
    let text = unit().replace("/usr/bin/netconsole-agent", &own.display().to_string());
    std::fs::write(&file, text).expect("write the unit");
    // Its pages need not be installed.
    let output =
        match Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&file).output() {
            Ok(output) => output,
            Err(error) => {
                let reason = format!("systemd-analyze: {error}");
                assert!(std::env::var("CI").as_deref() != Ok("true"), "{reason}");
                println!("SKIPPED: systemd_accepts_the_unit: {reason}");
                return;
            }
        };
    // A setting that it does not know is said and does not fail.
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}");
}

#[test]
fn the_unit_grants_what_the_agent_needs_and_no_more() {
    let granted = |name: &str| -> BTreeSet<String> {
        setting(name).split_whitespace().map(str::to_owned).collect()
    };
    let needs = privileges::NEEDS.iter().map(|need| need.name.to_owned());
    let kept = privileges::KEPT.iter().map(ToString::to_string);
    let needed: BTreeSet<String> = needs.chain(kept).collect();
    assert_eq!(granted("CapabilityBoundingSet"), needed);
    assert_eq!(granted("AmbientCapabilities"), needed);
}

/// A child that does not outlive the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// As systemd does for the unit, for the calling thread and what it starts.
fn bound_capabilities(kept: CapabilitySet) {
    for capability in CapabilitySet::all().difference(kept).iter() {
        // Kernels refuse those that they do not know.
        if capability_is_in_bounding_set(capability).unwrap_or(false) {
            remove_capability_from_bounding_set(capability).expect("bound the capabilities");
        }
    }
    set_no_new_privs(true).expect("forbid new privileges");
}

/// Starts the agent with a target for each way out, and waits until all send.
fn start(pair: &Pair, folder: &Path, bound: Option<CapabilitySet>) -> (Running, Status) {
    let (config, socket) = (folder.join("agent.toml"), folder.join("control.sock"));
    let targets = ["xdp", "packet", "udp"]
        .map(|egress| format!("[target.{egress}]\nremote = \"192.0.2.2\"\negress = {egress:?}\n"));
    let text = format!("[agent]\ncontrol_socket = {socket:?}\n{}", targets.concat());
    std::fs::write(&config, text).expect("write the configuration");
    let child = pair.left.run(|| {
        if let Some(kept) = bound {
            bound_capabilities(kept);
        }
        let mut command = Command::new(binary());
        command.args(["run", "--config"]).arg(&config).stderr(Stdio::null());
        command.spawn().expect("start the agent")
    });
    let agent = Running(child);
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut last = None;
    while Instant::now() < deadline {
        last = ask(&socket, &Request::Status).ok().and_then(|reply| reply.status);
        if let Some(status) = &last
            && status.targets.len() == targets.len()
            && status.targets.iter().all(|target| target.state == "active")
        {
            return (agent, *status.clone());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("not all targets send: {last:?}");
}

#[test]
fn the_units_capabilities_suffice() {
    if !root_or_skip("the_units_capabilities_suffice") {
        return;
    }
    let pair = Pair::new();
    let folder = tempfile::tempdir().expect("a folder");
    let (agent, free) = start(&pair, folder.path(), None);
    drop(agent);
    let (mut agent, bound) = start(&pair, folder.path(), Some(capabilities()));
    // With less, the agent would still run, from a lesser source.
    assert_eq!(bound.capture.source, free.capture.source, "{}", bound.capture.reason);
    assert_eq!(bound.capture.hook, free.capture.hook, "{}", bound.capture.reason);
    assert_eq!(bound.capture.netdev_events, free.capture.netdev_events);

    let status = std::fs::read_to_string(format!("/proc/{}/status", agent.0.id()));
    let status = status.expect("the agent's capabilities");
    let permitted = status.lines().find_map(|line| line.strip_prefix("CapPrm:\t"));
    let kept: u64 = privileges::KEPT.iter().map(|capability| capability.bitmask()).sum();
    assert_eq!(permitted, Some(format!("{kept:016x}").as_str()));
    kill_process(Pid::from_child(&agent.0), Signal::TERM).expect("stop the agent");
    assert!(agent.0.wait().expect("the agent's end").success());
}
