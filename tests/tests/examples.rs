//! The commands of the documents, run as they stand there: each line of a `sh` fence, each `Exec…=`
//! line of a unit, and each `netconsole-agent …` within a sentence, in the order of its document, on a
//! [`Host`] of its own. A line is good if it ends with 0; one of [`LASTING`] if it still runs after a
//! while.
//!
//! What cannot be run here is in [`NOT_RUN`] and [`STUBS`], each with the reason, and nothing is in there
//! in vain. Whether the arguments are good of those, too, `documents.rs` checks.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{BufRead as _, BufReader},
    os::unix::{fs::symlink, process::CommandExt as _},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use agent_tests::{
    agent::binary,
    documents::{Document, commands, documents, joined, root},
    netns::{Pair, root_or_skip},
};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

const PATIENCE: Duration = Duration::from_secs(60);
/// How long a command runs that would never end.
const LASTS: Duration = Duration::from_millis(700);

/// Blocks and lines with these words, and why they are not run.
const NOT_RUN: [(&str, &str); 5] = [
    ("cargo ", "it builds and tests everything, this test included; xtask tests its own arguments"),
    (
        "/sys/kernel/config/",
        "it is configfs, of which the kernel's netconsole may be missing, and of which no other folder has \
         the ways; documents.rs makes its tree, and imports that",
    ),
    ("apt-get install ./", "`cargo xtask system` runs it in a Debian of its own"),
    ("tar -xzf netconsole-agent-", "`cargo xtask system` runs it in a Debian of its own"),
    ("netconsole-agent import", "documents.rs runs it, and compares what it prints"),
];

/// Programs in whose place one is run that does nothing, and why. The rest of their lines is run.
const STUBS: [(&str, &str); 5] = [
    ("systemctl", "no systemd runs on the host of the test; `cargo xtask system` has one"),
    ("modprobe", "the modules are the kernel's, and that is everybody's"),
    ("grubby", "RHEL's"),
    ("update-grub", "it writes the boot loader's configuration"),
    ("update-initramfs", "it makes what the next boot begins with"),
];

/// Lines with these words do not end by themselves.
const LASTING: [&str; 4] =
    ["netconsole-agent receive", "netconsole-agent tail", "status --watch", "rsyslogd -n "];

/// Names that stand for one's own.
const PLACEHOLDERS: [(&str, &str); 1] = [("NAME", "fleet")];

/// For the documents' targets; one more is sent dumps.
const DUMPS: &str = "[target.dumps]\nremote = \"192.0.2.10:6668\"\ndump = \"netoops\"\n";

/// What the mount namespace has of its own: the places to which the documents' commands write.
const MOUNTS: &str = "\
set -e
cp -a /etc \"$0/etc\"
mount --bind \"$0/etc\" /etc
mount -t tmpfs none /run
mount -t tmpfs none /var
mkdir /var/crash /var/lib /var/log /var/tmp
rm -rf /etc/netconsole-agent
mkdir -p /etc/netconsole-agent/targets.d /etc/default /etc/modprobe.d /etc/modules-load.d
echo 'options netconsole netconsole=@/eth0,@192.0.2.10/' > /etc/modprobe.d/netconsole.conf
echo netconsole > /etc/modules-load.d/netconsole.conf
echo 'GRUB_CMDLINE_LINUX=\"quiet netconsole=@/eth0,@192.0.2.10/\"' > /etc/default/grub
echo ready
exec sleep infinity
";

/// Namespaces in which the documents' addresses, paths and programs are those of a host that one would
/// try them on: a cable to a receiver at 192.0.2.10, and files of its own in `/etc`, `/run` and `/var`.
struct Host {
    pair: Pair,
    folder: tempfile::TempDir,
    /// Holds the mount namespace.
    keeper: Child,
    agent: Option<Child>,
}

impl Host {
    fn new(config: &str) -> Self {
        let pair = Pair::new();
        pair.right.ip("addr add 192.0.2.10/24 dev right0");
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path();
        fs::create_dir(path.join("bin")).expect("a folder");
        fs::create_dir(path.join("work")).expect("a folder");
        symlink(binary(), path.join("bin/netconsole-agent")).expect("a link");
        for (name, _) in STUBS {
            symlink("/bin/true", path.join("bin").join(name)).expect("a link");
        }
        let configs = root().canonicalize().expect("the repository").join("configs");
        symlink(configs, path.join("work/configs")).expect("a link");
        let mut keeper = Command::new("nsenter")
            .arg(format!("--net=/run/netns/{}", pair.left.name()))
            .args(["unshare", "--mount", "--propagation", "private", "sh", "-c", MOUNTS])
            .arg(path)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start the host");
        let mut line = String::new();
        let stdout = keeper.stdout.take().expect("its output");
        BufReader::new(stdout).read_line(&mut line).expect("its output");
        let host = Self { pair, folder, keeper, agent: None };
        assert_eq!(line, "ready\n", "the host has not what it needs");
        host.write("agent.toml", config);
        host.write("targets.d/dumps.toml", DUMPS);
        host
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.folder.path().join("etc/netconsole-agent").join(name);
        fs::write(path, text).expect("write the configuration");
    }

    /// A line of shell on the host, or on the receiver's, which has the same files.
    fn shell(&self, line: &str, receiver: bool) -> Command {
        let id = self.keeper.id();
        let net = match receiver {
            true => format!("--net=/run/netns/{}", self.pair.right.name()),
            false => format!("--net=/proc/{id}/ns/net"),
        };
        let path = std::env::var("PATH").unwrap_or_default();
        let work = self.folder.path().join("work");
        let mut command = Command::new("nsenter");
        command
            .args([format!("--mount=/proc/{id}/ns/mnt"), net])
            .arg("env")
            .arg(format!("PATH={}/bin:{path}", self.folder.path().display()))
            .args(["sh", "-c", &format!("cd '{}' && {line}", work.display())])
            .stdin(Stdio::null())
            .process_group(0);
        command
    }

    /// Runs a line, which ends well; returns what it printed.
    fn run(&self, line: &str, place: &str) -> String {
        println!("{place}: {line}");
        let log = tempfile::NamedTempFile::new().expect("a file");
        let file = || log.reopen().expect("the file");
        let mut command = self.shell(line, false);
        let child = command.stdout(file()).stderr(append(log.path())).spawn();
        let mut child = child.expect("start the shell");
        let begin = Instant::now();
        loop {
            let printed =
                || String::from_utf8_lossy(&fs::read(log.path()).expect("it")).into_owned();
            if let Some(status) = child.try_wait().expect("its state") {
                let printed = printed();
                assert!(status.success(), "{place}: {line}: {status}\n{printed}\n{}", self.log());
                return printed;
            }
            if begin.elapsed() > PATIENCE {
                end_group(&mut child);
                panic!("{place}: {line}: it does not end\n{}", printed());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Runs a line for a while, which would go on.
    fn run_for_a_while(&self, line: &str, place: &str) {
        println!("{place}: {line} (for a while)");
        let log = tempfile::NamedTempFile::new().expect("a file");
        let mut command = self.shell(line, false);
        command.stdout(append(log.path())).stderr(append(log.path()));
        let mut child = command.spawn().expect("start the shell");
        std::thread::sleep(LASTS);
        let ended = child.try_wait().expect("its state");
        end_group(&mut child);
        let printed = String::from_utf8_lossy(&fs::read(log.path()).expect("it")).into_owned();
        assert!(ended.is_none(), "{place}: {line}: {ended:?}\n{printed}");
    }

    /// Starts the agent as the documents do, unless it runs.
    fn start_agent(&mut self) {
        if self.agent.is_some() {
            return;
        }
        let mut command = self.shell("exec netconsole-agent run", false);
        let log = File::create(self.folder.path().join("log")).expect("a file");
        command.stdout(Stdio::null()).stderr(log);
        self.agent = Some(command.spawn().expect("start the agent"));
        let begin = Instant::now();
        loop {
            let mut status = self.shell("exec netconsole-agent status", false);
            let output = status.output().expect("ask the agent");
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            if output.status.success() && !text.contains("waiting") && text.contains("active") {
                return;
            }
            assert!(begin.elapsed() < PATIENCE, "{text}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Ends the agent, which ends well.
    fn stop(mut self) {
        let Some(mut agent) = self.agent.take() else { return };
        kill_process(id(&agent), Signal::TERM).expect("a signal");
        let status = agent.wait().expect("its end");
        assert!(status.success(), "{status}\n{}", self.log());
        assert!(self.log().contains("balances"), "{}", self.log());
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            end_group(&mut agent);
        }
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
    }
}

fn append(path: &Path) -> File {
    File::options().append(true).open(path).expect("the file")
}

fn id(child: &Child) -> Pid {
    Pid::from_raw(child.id().cast_signed()).expect("a process id")
}

/// The group: a pipeline has several processes.
fn end_group(child: &mut Child) {
    let _ = kill_process_group(id(child), Signal::TERM);
    let _ = child.wait();
}

/// A command of a document.
struct Line {
    text: String,
    /// The block that it is in, or itself.
    around: String,
    place: String,
}

fn lines(document: &Document) -> Vec<Line> {
    let (blocks, beside) = document.split();
    let mut lines = Vec::new();
    for block in &blocks {
        let mut add = |text: &str| {
            lines.push(Line {
                text: text.to_owned(),
                around: block.text.clone(),
                place: block.place.clone(),
            });
        };
        match block.kind.as_str() {
            "sh" => {
                joined(&block.text).lines().filter(|line| !commands(line).is_empty()).for_each(add)
            }
            "ini" => {
                let runs = block.text.lines().filter(|line| line.starts_with("Exec"));
                let runs = runs.filter_map(|line| line.split_once('=')).map(|(_, run)| run);
                runs.for_each(|run| add(&run.trim_start_matches('-').replace("/usr/bin/", "")));
            }
            _ => {}
        }
    }
    // Every second part is within backticks; a span does not go over a paragraph.
    for paragraph in beside.split("\n\n").flat_map(|paragraph| paragraph.split("\n|")) {
        for span in paragraph.split('`').skip(1).step_by(2) {
            if span.starts_with("netconsole-agent ") {
                let text = span.replace('\n', " ");
                lines.push(Line { around: text.clone(), text, place: document.name.clone() });
            }
        }
    }
    for line in &mut lines {
        for (name, own) in PLACEHOLDERS {
            line.text = line.text.replace(name, own);
        }
    }
    lines
}

/// The configuration that the documents show for their commands.
fn config() -> String {
    let wanted = ["# /etc/netconsole-agent/agent.toml\n", "[target.trial]\n"];
    let blocks: Vec<_> = documents().iter().flat_map(|document| document.split().0).collect();
    let find = |begin: &str| {
        let block = blocks.iter().find(|block| block.text.starts_with(begin));
        block.unwrap_or_else(|| panic!("no block begins with {begin:?}")).text.clone()
    };
    wanted.map(find).concat()
}

#[test]
fn every_command_is_run_as_it_stands_there() {
    if !root_or_skip("every_command_is_run_as_it_stands_there") {
        return;
    }
    let config = config();
    let mut needed = BTreeSet::new();
    let (mut count, mut starts) = (0, 0);
    for document in documents() {
        let lines = lines(&document);
        let mut host = Host::new(&config);
        let is_start = |line: &Line| line.text.starts_with("netconsole-agent run");
        if !lines.iter().any(is_start) {
            host.start_agent();
        }
        for line in &lines {
            if let Some((words, reason)) =
                NOT_RUN.iter().find(|(words, _)| line.around.contains(words))
            {
                println!("{}: {} is not run: {reason}", line.place, line.text);
                needed.insert(*words);
                continue;
            }
            let programs = commands(&line.text);
            needed.extend(
                STUBS
                    .map(|(name, _)| name)
                    .iter()
                    .filter(|name| programs.iter().any(|words| words[0] == **name)),
            );
            count += 1;
            if is_start(line) {
                host.start_agent();
                starts += 1;
            } else if let Some(words) = LASTING.iter().find(|words| line.text.contains(**words)) {
                needed.insert(*words);
                host.run_for_a_while(&line.text, &line.place);
            } else {
                host.run(&line.text, &line.place);
            }
        }
        host.stop();
    }
    for name in NOT_RUN.iter().chain(&STUBS).map(|(name, _)| name).chain(&LASTING) {
        assert!(needed.contains(name), "nothing needs the exception for {name:?}");
    }
    assert!(count > 50 && starts > 0, "{count} commands, {starts} starts");
}

/// Whatever differs between hosts, kernels and dumps, as one and the same.
fn shape(line: &str) -> String {
    let mut shape = String::new();
    for c in line.replace("soft", "hard").replace("(aarch64)", "(x86)").chars() {
        match c {
            '0'..='9' if shape.ends_with('0') => {}
            '0'..='9' => shape.push('0'),
            c => shape.push(c),
        }
    }
    // The release: up to three numbers, and whatever a distribution puts behind.
    let (head, rest) = shape.split_once(", kernel ").expect("a kernel");
    let (_, tail) = rest.split_once(' ').expect("an architecture");
    format!("{head}, kernel 0 {tail}")
}

#[test]
fn the_receiver_of_dumps_says_what_is_shown() {
    if !root_or_skip("the_receiver_of_dumps_says_what_is_shown") {
        return;
    }
    let blocks: Vec<_> = documents().iter().flat_map(|document| document.split().0).collect();
    let block = blocks.iter().find(|block| block.text.contains("receive --netoops")).expect("it");
    let [command, shown] = block.text.lines().collect::<Vec<_>>()[..] else { panic!("{block:?}") };
    let command = command.strip_prefix("$ ").expect("a command");
    let mut host = Host::new(&config());
    host.start_agent();
    let log = tempfile::NamedTempFile::new().expect("a file");
    let mut receiver = host.shell(command, true);
    receiver.stdout(append(log.path())).stderr(append(log.path()));
    let mut receiver = receiver.spawn().expect("start the receiver");
    let printed = || fs::read_to_string(log.path()).expect("its output");
    let begin = Instant::now();
    // It may not listen yet, and what sends dumps may not be ready.
    while !printed().contains(" packets") && begin.elapsed() < PATIENCE {
        let _ = host.shell("netconsole-agent dump", false).output().expect("ask for a dump");
        std::thread::sleep(Duration::from_millis(500));
    }
    end_group(&mut receiver);
    let printed = printed();
    let line = printed.lines().find(|line| line.contains(" packets"));
    let line = line.unwrap_or_else(|| panic!("no dump arrives: {printed:?}\n{}", host.log()));
    assert_eq!(shape(line), shape(shown), "{line}");
    let file = line.rsplit(' ').next().expect("a path");
    host.run(&format!("test -s {file}"), &block.place);
    host.stop();
}
