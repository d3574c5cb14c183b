//! A running agent, as a user would run it: the binary, a configuration file, and
//! the control socket.

use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use netconsole_agent::control::{
    protocol::{Reply, Request},
    socket::ask,
    status::Status,
};
use rustix::process::{Pid, Signal, kill_process};

use crate::{dns::resolving_with, netns::Namespace, view::View};

/// Names the binary to test; else the one that cargo built beside the tests.
pub const BINARY_VARIABLE: &str = "NETCONSOLE_AGENT_BIN";

/// The agent's binary.
///
/// # Panics
/// If it is not built.
#[must_use]
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os(BINARY_VARIABLE) {
        return path.into();
    }
    let own = std::env::current_exe().expect("the path of this test");
    let profile = own.ancestors().nth(2).expect("target/<profile>/deps");
    let binary = profile.join("netconsole-agent");
    assert!(
        binary.exists(),
        "{} is missing: cargo build -p netconsole-agent (with --release for release tests)",
        binary.display()
    );
    binary
}

/// A running agent; killed on drop unless it was stopped.
#[derive(Debug)]
pub struct Agent {
    child: Child,
    log: Arc<Mutex<String>>,
    log_thread: Option<JoinHandle<()>>,
    folder: tempfile::TempDir,
    agent_table: String,
    /// What starts it, the command with all that is before it.
    command: Vec<String>,
    /// More variables of its environment.
    variables: Vec<(String, String)>,
}

impl Agent {
    /// Starts the agent in a namespace with `targets` as the target tables of its
    /// configuration, and waits until `active` of them send.
    #[must_use]
    pub fn start(namespace: &Namespace, agent_table: &str, targets: &str, active: usize) -> Self {
        Self::start_logging(namespace, agent_table, targets, active, None)
    }

    /// The same, with another file as `/etc/resolv.conf`.
    #[must_use]
    pub fn start_resolving(
        namespace: &Namespace,
        targets: &str,
        active: usize,
        resolv_conf: &Path,
    ) -> Self {
        let prefix = resolving_with(resolv_conf);
        Self::launch(namespace, "", targets, active, &[], &prefix)
    }

    /// The same, by a command that is put before the agent's, such as one that mounts something.
    #[must_use]
    pub fn start_by(
        namespace: &Namespace,
        agent_table: &str,
        targets: &str,
        active: usize,
        prefix: &[String],
    ) -> Self {
        Self::launch(namespace, agent_table, targets, active, &[], prefix)
    }

    /// The same, with another level of the log, such as `debug`.
    #[must_use]
    pub fn start_logging(
        namespace: &Namespace,
        agent_table: &str,
        targets: &str,
        active: usize,
        level: Option<&str>,
    ) -> Self {
        let level = level.map(|level| ("NETCONSOLE_AGENT_LOG", level));
        Self::launch(namespace, agent_table, targets, active, level.as_slice(), &[])
    }

    /// The same, with more variables in its environment.
    #[must_use]
    pub fn start_with(
        namespace: &Namespace,
        agent_table: &str,
        targets: &str,
        active: usize,
        variables: &[(&str, &str)],
    ) -> Self {
        Self::launch(namespace, agent_table, targets, active, variables, &[])
    }

    /// The same, with other files where pstore and systemd-pstore have theirs, of which only this
    /// agent knows.
    #[must_use]
    pub fn start_after_crash(
        namespace: &Namespace,
        agent_table: &str,
        targets: &str,
        active: usize,
        [pstore, systemd]: [&Path; 2],
    ) -> Self {
        let mount = "mount --bind \"$0\" /sys/fs/pstore && mount -t tmpfs none /var/lib && \
                     mkdir -p /var/lib/systemd/pstore && \
                     mount --bind \"$1\" /var/lib/systemd/pstore && shift && exec \"$@\"";
        let [pstore, systemd] = [pstore, systemd].map(|path| path.to_str().expect("UTF-8"));
        let unshare = ["unshare", "--mount", "--propagation", "private", "sh", "-c"];
        let words = unshare.into_iter().chain([mount, pstore, systemd]);
        let prefix: Vec<String> = words.map(str::to_owned).collect();
        Self::launch(namespace, agent_table, targets, active, &[], &prefix)
    }

    /// `prefix` is put before the agent's command, inside of the namespace.
    fn launch(
        namespace: &Namespace,
        agent_table: &str,
        targets: &str,
        active: usize,
        variables: &[(&str, &str)],
        prefix: &[String],
    ) -> Self {
        let folder = tempfile::tempdir().expect("a folder for the agent");
        let config = folder.path().join("agent.toml");
        let socket = folder.path().join("control.sock");
        // What was logged before a test is not its business, unless it says so.
        let replay = if agent_table.contains("replay") { "" } else { "replay = \"none\"\n" };
        let agent_table = format!("[agent]\ncontrol_socket = {socket:?}\n{replay}{agent_table}\n");
        std::fs::write(&config, format!("{agent_table}{targets}"))
            .expect("write the configuration");
        let mut command =
            vec!["nsenter".to_owned(), format!("--net=/run/netns/{}", namespace.name())];
        command.extend_from_slice(prefix);
        let binary = binary();
        let words = [binary.as_path(), "run".as_ref(), "--config".as_ref(), &config];
        command.extend(words.map(|word| word.to_str().expect("UTF-8").to_owned()));
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let variables: Vec<_> = variables.iter().map(owned).collect();
        let log = Arc::new(Mutex::new(String::new()));
        let (child, log_thread) = spawn(&command, &variables, &log);
        let log_thread = Some(log_thread);
        let mut agent = Self { child, log, log_thread, folder, agent_table, command, variables };
        agent.wait(Duration::from_secs(20), |status| {
            status.targets.iter().filter(|target| target.state == "active").count() >= active
        });
        agent
    }

    /// Kills it as nothing else can: it does not get to do anything any more.
    ///
    /// # Panics
    /// If it ended by itself before.
    pub fn kill(&mut self) {
        let end = self.child.try_wait().expect("the agent's state");
        assert!(end.is_none(), "the agent ended with {end:?}; its log:\n{}", self.log());
        self.child.kill().expect("kill the agent");
        let _ = self.child.wait();
    }

    /// Starts it again, as it was started before, without waiting for anything.
    ///
    /// # Panics
    /// If that is not possible.
    pub fn start_again(&mut self) {
        let (child, log_thread) = spawn(&self.command, &self.variables, &self.log);
        (self.child, self.log_thread) = (child, Some(log_thread));
    }

    /// Process id of the agent.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its control socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("control.sock")
    }

    /// Its configuration file.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.folder.path().join("agent.toml")
    }

    /// Writes other target tables into its configuration, which it is to be told.
    ///
    /// # Panics
    /// If the file cannot be written.
    pub fn rewrite(&self, targets: &str) {
        let text = format!("{}{targets}", self.agent_table);
        std::fs::write(self.config(), text).expect("write the configuration");
    }

    /// Sends it a signal.
    ///
    /// # Panics
    /// If it is not there any more.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id() as i32).expect("a process id");
        kill_process(pid, signal).expect("a signal");
    }

    /// What it has logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        self.log.lock().expect("the log").clone()
    }

    fn ask(&self, request: &Request) -> Option<Reply> {
        ask(&self.socket(), request).ok()
    }

    /// What `status` says.
    ///
    /// # Panics
    /// If the agent does not answer.
    #[must_use]
    pub fn status(&self) -> Status {
        let reply = self.ask(&Request::Status);
        let status = reply.and_then(|reply| reply.status);
        *status.unwrap_or_else(|| panic!("the agent gives no status; its log:\n{}", self.log()))
    }

    /// Waits until the status is as wanted.
    ///
    /// # Panics
    /// If it does not become so in time, or the agent ends.
    pub fn wait(&mut self, patience: Duration, wanted: impl Fn(&Status) -> bool) -> Status {
        let start = Instant::now();
        let mut last = None;
        loop {
            if let Some(end) = self.child.try_wait().expect("the agent's state") {
                std::thread::sleep(Duration::from_millis(100));
                panic!("the agent ended with {end}; its log:\n{}", self.log());
            }
            let status = self.ask(&Request::Status).and_then(|reply| reply.status);
            if let Some(status) = status {
                if wanted(&status) {
                    return *status;
                }
                last = Some(status);
            }
            assert!(
                start.elapsed() < patience,
                "not in time: {}\nits log:\n{}",
                last.map(|status| status.to_text()).unwrap_or_default(),
                self.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What the control socket tells, as any program would read it.
    ///
    /// # Panics
    /// If the agent does not answer.
    #[must_use]
    pub fn view(&self) -> View {
        View::ask(&self.socket())
            .unwrap_or_else(|| panic!("the agent gives no status; its log:\n{}", self.log()))
    }

    /// Runs a subcommand that talks to the agent; what it printed, warnings behind it.
    ///
    /// # Panics
    /// If it fails.
    pub fn command(&self, arguments: &[&str]) -> String {
        match self.try_command(arguments) {
            Ok(said) => said,
            Err(said) => panic!("{arguments:?}: {said}\n{}", self.log()),
        }
    }

    /// The same, for what may be refused: what was printed, or the error.
    ///
    /// # Panics
    /// If the binary cannot be run.
    pub fn try_command(&self, arguments: &[&str]) -> Result<String, String> {
        let mut command = Command::new(binary());
        let output = command.args(arguments).arg("--socket").arg(self.socket()).output();
        let output = output.expect("run the command");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (said, warned) = (text(&output.stdout), text(&output.stderr));
        if output.status.success() { Ok(said + &warned) } else { Err(warned) }
    }

    /// Stops the agent by SIGTERM and returns its log.
    ///
    /// # Panics
    /// If it does not end with code 0 within five seconds.
    #[must_use]
    pub fn stop(mut self) -> String {
        self.end();
        self.log()
    }

    /// The same, and it may be started again.
    ///
    /// # Panics
    /// If it does not end with code 0 within five seconds.
    pub fn end(&mut self) {
        self.signal(Signal::TERM);
        let end = self.ended();
        let log = self.log();
        assert!(end.success(), "it ended with {end}:\n{log}");
        assert!(!log.contains("NOT BALANCE"), "{log}");
    }

    /// Waits until it has ended, by itself or told to.
    ///
    /// # Panics
    /// If it does not end within five seconds.
    pub fn ended(&mut self) -> ExitStatus {
        let start = Instant::now();
        let end = loop {
            if let Some(end) = self.child.try_wait().expect("the agent's state") {
                break end;
            }
            assert!(start.elapsed() < Duration::from_secs(5), "it does not end:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        };
        if let Some(thread) = self.log_thread.take() {
            thread.join().expect("the log's reader");
        }
        end
    }
}

fn spawn(
    command: &[String],
    variables: &[(String, String)],
    log: &Arc<Mutex<String>>,
) -> (Child, JoinHandle<()>) {
    let mut child = Command::new(&command[0])
        .args(&command[1..])
        .envs(variables.iter().map(|(name, value)| (name, value)))
        .stderr(Stdio::piped())
        .spawn()
        .expect("start the agent");
    let stderr = child.stderr.take().expect("the agent's log");
    let log = Arc::clone(log);
    let log_thread = std::thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            let mut log = log.lock().expect("the log");
            log.push_str(&line);
            log.push('\n');
        }
    });
    (child, log_thread)
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
