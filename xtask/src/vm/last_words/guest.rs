//! One crash: boots the guest, lets it crash, boots it again, and collects what left it and what
//! it printed. It judges nothing.
//!
//! Four lines lead to the guest: its network card, at whose other end is the peer
//! (`tests/src/bin/vm_peer.rs`), a serial line to its init script, QEMU's monitor, and the
//! kernel's console, which goes into a file. The memory of its ACPI error record table
//! is a file as well; there pstore keeps the log over the reboot.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::crashes::{After, Cause, Crash};
use super::judge::Arrival;
use super::machine::{Guard, STORE_BYTES, arguments, connect, read_lines, said};
use super::{AFTER_CRASH, Subject};
use crate::emulator;
use crate::run::cmd;
use crate::signals::Interrupt;
use crate::vm::kernel::Kernel;

const BOOT_LIMIT: Duration = Duration::from_secs(150);
const SECOND_BOOT_LIMIT: Duration = Duration::from_secs(60);
const STEP_LIMIT: Duration = Duration::from_secs(60);
/// Time in which a guest that stands still has printed and sent what it can.
const HALT: Duration = Duration::from_secs(5);
/// Time in which the agent has noticed that its neighbour does not answer.
const SILENCE: Duration = Duration::from_secs(4);
/// Between the mark and what the host does to the guest, so that nobody is awake by the mark.
const AFTER_MARK: Duration = Duration::from_millis(500);
/// So long must nothing arrive until what comes after the reboot is complete.
const QUIET: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(100);

/// What is run.
pub(super) struct Plan<'a> {
    pub(super) kernel: &'a Kernel,
    pub(super) initramfs: &'a Path,
    pub(super) peer: &'a Path,
    /// For the console, the serial line, the frames, QEMU's log.
    pub(super) dir: &'a Path,
    pub(super) crash: &'a Crash,
    pub(super) subject: Subject,
    pub(super) cpu: usize,
}

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Evidence {
    /// Files of pstore, or the log of a guest that lived on (`dmesg`).
    pub(super) files: Vec<(String, String)>,
    /// What arrived until the guest booted again.
    pub(super) first: Vec<Arrival>,
    /// What arrived afterwards.
    pub(super) second: Vec<Arrival>,
    /// Dumps that arrived until the guest booted again.
    pub(super) dumps: Vec<Dump>,
    /// What the agent said about its source of records.
    pub(super) source: Option<String>,
}

/// A netoops dump.
#[derive(Debug)]
pub(super) struct Dump {
    /// `hard` or `soft`.
    pub(super) kind: String,
    /// Packets that did not arrive.
    pub(super) missing: u64,
    pub(super) text: String,
}

/// Runs it.
///
/// # Errors
/// A boot that hangs, a guest that does not crash or leaves no log, a damaged frame.
pub(super) fn run(plan: &Plan<'_>, interrupt: &Interrupt) -> Result<Evidence> {
    let mut guest = Guest::start(plan, interrupt)?;
    guest.wait_word("BOOT first", BOOT_LIMIT)?;
    guest.wait_word("UP", BOOT_LIMIT)?;
    if plan.crash.silent_neighbour {
        guest.pass(SILENCE)?;
    } else {
        let ready = "last-words: ready";
        guest.wait("its records to arrive", STEP_LIMIT, |guest, _| {
            let arrived = |arrival: &Arrival| {
                matches!(arrival, Arrival::Record { text, .. } if text == ready)
            };
            guest.evidence.first.iter().any(arrived).then_some(())
        })?;
    }
    guest.line.write_all(b"go\n").context("speak to the guest")?;
    guest.wait_word("CRASH", STEP_LIMIT)?;
    if let Cause::Monitor(command) = plan.crash.cause {
        guest.pass(AFTER_MARK)?;
        guest.command(command)?;
    }
    match plan.crash.after {
        After::Life => {
            guest.files(STEP_LIMIT)?;
            return guest.finish();
        }
        After::Reboot => {}
        After::Halt => {
            guest.pass(HALT)?;
            guest.command("system_reset")?;
        }
    }
    let has_log = guest.second_boot(SECOND_BOOT_LIMIT).or_else(|error| {
        interrupt.check()?;
        // Emulated guests hang now and then while booting; pstore has the log already.
        println!("last-words: RESET of {}: {error:#}", plan.crash.name);
        guest.command("system_reset")?;
        guest.second_boot(BOOT_LIMIT)
    })?;
    ensure!(has_log, "the guest crashed, and pstore is empty");
    guest.rebooted = true;
    guest.answer()?;
    guest.files(BOOT_LIMIT)?;
    if AFTER_CRASH && plan.subject == Subject::Agent {
        guest.quiet()?;
    }
    guest.finish()
}

/// Something happened.
enum Event {
    /// The guest's init script said a line.
    Word(String),
    /// The peer told a fact.
    Fact(String),
}

/// A running VM with its peer; both end when it is dropped.
struct Guest<'a> {
    qemu: Guard,
    peer: Guard,
    /// Closing it ends the peer.
    to_peer: Option<ChildStdin>,
    line: UnixStream,
    monitor: UnixStream,
    events: Receiver<Event>,
    evidence: Evidence,
    rebooted: bool,
    interrupt: &'a Interrupt,
    log: PathBuf,
    /// The sockets; paths of sockets must be short.
    _sockets: tempfile::TempDir,
}

impl<'a> Guest<'a> {
    fn start(plan: &Plan<'_>, interrupt: &'a Interrupt) -> Result<Self> {
        let sockets = tempfile::tempdir().context("make a directory for the sockets")?;
        let socket = |name: &str| sockets.path().join(name);
        let (sender, events) = mpsc::channel();
        let stderr = |name: &str| {
            let path = plan.dir.join(name);
            File::create(&path).with_context(|| format!("create {}", path.display()))
        };

        let mut peer = cmd(plan.peer, [socket("peer"), socket("net")]);
        peer.args(plan.crash.silent_neighbour.then_some("silent"));
        peer.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(stderr("peer.log")?);
        // Ctrl-C reaches this process only, which then ends the others.
        peer.process_group(0);
        let mut peer = Guard(peer.spawn().context("start the VM's peer")?);
        let to_peer = peer.0.stdin.take();
        let from_peer = peer.0.stdout.take().context("the peer has no output")?;
        let facts = File::create(plan.dir.join("received.log")).context("create received.log")?;
        read_lines(from_peer, sender.clone(), facts, Event::Fact);

        let store = plan.dir.join("erst");
        let made = File::create(&store).and_then(|file| file.set_len(STORE_BYTES));
        made.with_context(|| format!("make {}", store.display()))?;
        let arguments = arguments(plan, sockets.path());
        let mut qemu = emulator::X86.command(arguments);
        let log = plan.dir.join("qemu.log");
        qemu.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr("qemu.log")?);
        qemu.process_group(0);
        let mut qemu = Guard(qemu.spawn().context("cannot start QEMU")?);
        let mut connect = |name: &str| connect(&socket(name), &mut qemu.0, &log);
        let (line, monitor) = (connect("line")?, connect("monitor")?);
        let reader = line.try_clone().context("share the serial line")?;
        let words = File::create(plan.dir.join("line.log")).context("create line.log")?;
        read_lines(reader, sender, words, Event::Word);
        // What the monitor answers is of no interest, but must be read.
        let answers = monitor.try_clone().context("share the monitor")?;
        thread::spawn(move || std::io::copy(&mut &answers, &mut std::io::sink()));
        Ok(Self {
            qemu,
            peer,
            to_peer,
            line,
            monitor,
            events,
            evidence: Evidence::default(),
            rebooted: false,
            interrupt,
            log,
            _sockets: sockets,
        })
    }

    fn command(&mut self, command: &str) -> Result<()> {
        let sent = self.monitor.write_all(format!("{command}\n").as_bytes());
        sent.with_context(|| format!("give QEMU the command {command}"))
    }

    /// Lets the peer answer ARP from now on.
    fn answer(&mut self) -> Result<()> {
        let to_peer = self.to_peer.as_mut().context("the peer has no input")?;
        to_peer.write_all(b"answer\n").context("speak to the VM's peer")
    }

    /// Waits until the guest has booted again; returns whether it found a log.
    fn second_boot(&mut self, limit: Duration) -> Result<bool> {
        self.wait("the guest to boot again", limit, |_, word| match word {
            Some("BOOT second") => Some(true),
            Some("BOOT first") => Some(false),
            _ => None,
        })
    }

    /// Takes events until `done` returns something; it is given each word of the guest, and
    /// asked once in a while without one.
    fn wait<T>(
        &mut self,
        what: &str,
        limit: Duration,
        mut done: impl FnMut(&mut Self, Option<&str>) -> Option<T>,
    ) -> Result<T> {
        let start = Instant::now();
        loop {
            let word = self.next(POLL)?;
            if let Some(found) = done(self, word.as_deref()) {
                return Ok(found);
            }
            ensure!(start.elapsed() < limit, "waited {} s for {what}", limit.as_secs());
        }
    }

    fn wait_word(&mut self, wanted: &str, limit: Duration) -> Result<()> {
        self.wait(&format!("the guest's {wanted:?}"), limit, |_, word| {
            (word == Some(wanted)).then_some(())
        })
    }

    /// Lets time pass.
    fn pass(&mut self, time: Duration) -> Result<()> {
        let start = Instant::now();
        self.wait("time to pass", time * 2 + STEP_LIMIT, |_, _| {
            (start.elapsed() >= time).then_some(())
        })
    }

    /// Waits until nothing more arrives.
    fn quiet(&mut self) -> Result<()> {
        let mut last = (self.evidence.second.len(), Instant::now());
        self.wait("nothing to arrive any more", STEP_LIMIT, |guest, _| {
            let count = guest.evidence.second.len();
            if count != last.0 {
                last = (count, Instant::now());
            }
            (count > 0 && last.1.elapsed() > QUIET).then_some(())
        })
    }

    /// Takes the files that the guest ships until it says that it is done.
    fn files(&mut self, limit: Duration) -> Result<()> {
        self.wait("the guest's log", limit, |_, word| (word == Some("DONE")).then_some(()))
    }

    /// Takes one event, if there is one in time; returns it if it is a word of the guest.
    fn next(&mut self, limit: Duration) -> Result<Option<String>> {
        self.interrupt.check()?;
        match self.events.recv_timeout(limit) {
            Ok(Event::Fact(fact)) => self.fact(&fact).map(|()| None),
            Ok(Event::Word(word)) => {
                self.word(&word)?;
                Ok(Some(word))
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                if let Some(status) = self.qemu.0.try_wait().context("look after QEMU")? {
                    bail!("QEMU ended ({status}): {}", said(&self.log));
                }
                if let Some(status) = self.peer.0.try_wait().context("look after the peer")? {
                    bail!("the VM's peer ended ({status})");
                }
                Ok(None)
            }
        }
    }

    /// Texts come as `FILE name`, their lines behind a `|`, `END`.
    fn word(&mut self, word: &str) -> Result<()> {
        if let Some(source) = word.strip_prefix("SOURCE ") {
            self.evidence.source.get_or_insert_with(|| source.trim().to_owned());
        } else if let Some(name) = word.strip_prefix("FILE ") {
            let mut text = String::new();
            loop {
                let event = self.events.recv_timeout(STEP_LIMIT);
                match event.context("a file of the guest breaks off")? {
                    Event::Fact(fact) => self.fact(&fact)?,
                    Event::Word(end) if end == "END" => break,
                    Event::Word(line) => {
                        text += line.strip_prefix('|').unwrap_or_default();
                        text.push('\n');
                    }
                }
            }
            self.evidence.files.push((name.to_owned(), text));
        }
        Ok(())
    }

    fn fact(&mut self, fact: &str) -> Result<()> {
        let fact: serde_json::Value = serde_json::from_str(fact).context("read the peer's fact")?;
        if let Some(damage) = fact["damaged"].as_str() {
            bail!("the guest sent a damaged frame: {damage}");
        }
        if let (Some(kind), Some(missing), Some(text)) =
            (fact["dump"].as_str(), fact["missing"].as_u64(), fact["text"].as_str())
        {
            let (kind, text) = (kind.to_owned(), text.to_owned());
            if !self.rebooted {
                self.evidence.dumps.push(Dump { kind, missing, text });
            }
            return Ok(());
        }
        let arrivals =
            if self.rebooted { &mut self.evidence.second } else { &mut self.evidence.first };
        if let Some(text) = fact["plain"].as_str() {
            arrivals.push(Arrival::Plain(text.to_owned()));
        } else if let (Some(seq), Some(ts_us), Some(text)) =
            (fact["seq"].as_u64(), fact["ts_us"].as_u64(), fact["text"].as_str())
            && fact["missing_bytes"] == 0
        {
            arrivals.push(Arrival::Record { seq, ts_us, text: text.to_owned() });
        }
        Ok(())
    }

    /// Ends the peer, which tells what it still holds, and the VM.
    fn finish(mut self) -> Result<Evidence> {
        self.to_peer = None;
        self.qemu.0.kill().context("end QEMU")?;
        let end = Instant::now() + STEP_LIMIT;
        loop {
            match self.events.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(Event::Fact(fact)) => self.fact(&fact)?,
                Ok(Event::Word(_)) => {}
                // Both senders have ended.
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => bail!("the VM's peer does not end"),
            }
        }
        Ok(self.evidence)
    }
}
