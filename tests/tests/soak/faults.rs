//! The faults: each is bounded, and is over when its function returns. In a round each comes
//! once, in random order with random pauses. While a link fault lasts, another fault may happen.
//!
//! A receiver cannot slow UDP down, so the slow receiver is a `pace` that is set low by
//! `target set` for a while and set back.

use std::{
    collections::BTreeMap,
    ops::RangeInclusive,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use agent_tests::{
    agent::Agent,
    kmsg,
    netns::Pair,
    view::{TargetView, View},
};
use rustix::process::Signal;

use super::{
    StopAtEnd, TARGETS, line,
    memory::{Hog, MemoryLimit},
};
use crate::judge::RunOfTarget;

/// The way to the paced target.
pub(crate) const ROUTE: &str = "route replace 198.51.100.10/32 via 192.0.2.2";
const AGENT: &str = "replay = \"resume\"\nring = \"128KiB\"\nstore = \"2MiB\"\n";
/// Paces of the targets as configured, and as a slow receiver would have them.
const PACES: [&str; 2] = ["20000/s", "3000/s"];
const SLOW: &str = "100/s";
/// Over everything that the agent does at once, such as a socket that it opens.
const MEMORY_LEFT_BYTES: u64 = 8 << 20;
/// The store, the ring and the frames alone.
const MEMORY_USED_MIN_BYTES: u64 = 4 << 20;
const PATIENCE: Duration = Duration::from_secs(20);

/// What can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    Kill,
    Reload,
    DeviceDown,
    CarrierLost,
    AddressRemoved,
    RouteRemoved,
    Storm,
    SlowReceiver,
    FullRing,
    Stopped,
    CpuHog,
    MemoryPressure,
}

const ALL: [Fault; 12] = [
    Fault::Kill,
    Fault::Reload,
    Fault::DeviceDown,
    Fault::CarrierLost,
    Fault::AddressRemoved,
    Fault::RouteRemoved,
    Fault::Storm,
    Fault::SlowReceiver,
    Fault::FullRing,
    Fault::Stopped,
    Fault::CpuHog,
    Fault::MemoryPressure,
];
/// What may happen while a link fault lasts.
const WITHIN: [Fault; 5] =
    [Fault::Kill, Fault::Reload, Fault::Storm, Fault::FullRing, Fault::Stopped];

/// One run of the agent, from its start to its end.
#[derive(Debug)]
pub(crate) struct Run {
    /// The first configuration of it.
    first_generation: u64,
    /// What the checkpoints said after its end.
    end_seqs: [u64; 2],
    /// The first seqs that it had to send.
    first_seqs: [u64; 2],
    /// The last status; a killed one may have been killed before it gave any.
    last: Option<View>,
    /// From its start to its end.
    times: RangeInclusive<Instant>,
    /// The accounts that it logged when it ended in order.
    log: Option<String>,
}

impl Run {
    /// What one target has to answer for.
    pub(crate) fn of_target(&self, index: usize) -> RunOfTarget {
        let name = TARGETS[index].0;
        RunOfTarget {
            first_generation: self.first_generation,
            seqs: self.first_seqs[index]..self.end_seqs[index],
            account: self.last.as_ref().map(|view| view.target(name).account.clone()),
            times: self.times.clone(),
            final_account: self.log.as_ref().map(|log| {
                let mut lines = log.lines().filter(|line| line.contains(&format!("{name:?}")));
                let account = lines.rfind(|line| line.contains("queued "));
                account.unwrap_or_else(|| panic!("no account of {name}:\n{log}")).to_owned()
            }),
        }
    }
}

/// What is over when all faults are.
#[derive(Debug)]
pub(crate) struct Past {
    /// The runs, in order.
    pub(crate) runs: Vec<Run>,
    /// When anything was wrong with the link.
    pub(crate) outages: Vec<RangeInclusive<Instant>>,
}

/// The agent and what happens to it.
#[derive(Debug)]
pub(crate) struct Scene<'a> {
    /// Before the cgroup, which must be empty to be removed.
    pub(crate) agent: Agent,
    memory: Result<MemoryLimit, String>,
    pair: &'a Pair,
    random: fastrand::Rng,
    generation: u64,
    runs: Vec<Run>,
    outages: Vec<RangeInclusive<Instant>>,
    /// How often each fault happened.
    pub(crate) counts: BTreeMap<Fault, u64>,
    /// Lines in storms.
    pub(crate) stormed: u64,
}

fn targets(generation: u64) -> String {
    let [(plain, plain_port), (paced, paced_port)] = TARGETS;
    let pace = PACES[1];
    format!(
        "[target.{plain}]\nremote = \"192.0.2.2:{plain_port}\"\n\
         [target.{plain}.userdata]\nsoak = \"{generation}\"\n\
         [target.{paced}]\nremote = \"198.51.100.10:{paced_port}\"\npace = {pace:?}\n\
         keepalive = \"10s\"\n[target.{paced}.userdata]\nsoak = \"{generation}\"\n"
    )
}

impl<'a> Scene<'a> {
    /// Starts the agent.
    pub(crate) fn start(pair: &'a Pair, seed: u64) -> Self {
        let begin = Instant::now();
        let agent = Agent::start(&pair.left, AGENT, &targets(0), TARGETS.len());
        let memory = MemoryLimit::new();
        if let Err(reason) = &memory {
            println!("SOAK without memory pressure: {reason}");
        }
        let view = agent.view();
        let first_seqs = TARGETS.map(|(name, _)| view.target(name).account.first_seq);
        let run = Run {
            first_generation: 0,
            first_seqs,
            end_seqs: first_seqs,
            last: None,
            times: begin..=begin,
            log: None,
        };
        Self {
            agent,
            memory,
            pair,
            random: fastrand::Rng::with_seed(seed),
            generation: 0,
            runs: vec![run],
            outages: Vec::new(),
            counts: BTreeMap::new(),
            stormed: 0,
        }
    }

    /// Each fault once, in random order; fewer if the time is over before.
    pub(crate) fn a_round(&mut self, end: Instant) {
        let mut faults = ALL;
        self.random.shuffle(&mut faults);
        for fault in faults {
            if Instant::now() >= end {
                return;
            }
            self.fault(fault);
            self.pause(0..600);
        }
    }

    fn fault(&mut self, fault: Fault) {
        if fault == Fault::MemoryPressure && self.memory.is_err() {
            return;
        }
        *self.counts.entry(fault).or_default() += 1;
        match fault {
            Fault::Kill => {
                self.kill();
                // Killed anew before it sends, or long after.
                self.pause(0..500);
            }
            Fault::Reload => {
                self.wait_until_up();
                self.rewrite();
                self.agent.command(&["reload"]);
            }
            Fault::DeviceDown => {
                self.link("link set left0 down", &format!("link set left0 up\n{ROUTE}"));
            }
            Fault::CarrierLost => self.carrier(),
            Fault::AddressRemoved => self.link(
                "addr del 192.0.2.1/24 dev left0",
                &format!("addr add 192.0.2.1/24 dev left0\n{ROUTE}"),
            ),
            Fault::RouteRemoved => self.link("route del 198.51.100.10/32", ROUTE),
            Fault::Storm => self.storm(),
            Fault::SlowReceiver => self.slow(),
            Fault::FullRing => {
                self.agent.signal(Signal::STOP);
                self.storm();
                self.pause(0..200);
                self.agent.signal(Signal::CONT);
            }
            Fault::Stopped => {
                self.agent.signal(Signal::STOP);
                self.pause(0..1000);
                self.agent.signal(Signal::CONT);
            }
            Fault::CpuHog => self.hog(),
            Fault::MemoryPressure => self.squeeze(),
        }
    }

    fn pause(&mut self, ms: std::ops::Range<u64>) {
        std::thread::sleep(Duration::from_millis(self.random.u64(ms)));
    }

    fn kill(&mut self) {
        let last = View::ask(&self.agent.socket());
        self.agent.kill();
        self.run_is_over(last, None);
        self.pause(0..300);
        self.rewrite();
        let first_seqs = self.runs.last().expect("a run").end_seqs;
        let begin = Instant::now();
        self.agent.start_again();
        self.runs.push(Run {
            first_generation: self.generation,
            first_seqs,
            end_seqs: first_seqs,
            last: None,
            times: begin..=begin,
            log: None,
        });
    }

    fn run_is_over(&mut self, last: Option<View>, log: Option<String>) {
        let end_seqs = TARGETS.map(|(name, _)| self.checkpoint(name));
        let run = self.runs.last_mut().expect("a run");
        run.end_seqs = end_seqs;
        run.times = *run.times.start()..=Instant::now();
        run.last = last;
        run.log = log;
    }

    /// The first seq that the next run has to send: a number in the target's file, which the
    /// kernel keeps however the agent ends.
    fn checkpoint(&self, target: &str) -> u64 {
        const SEQ_AT_BYTES: usize = 64;
        let folder = self.agent.socket().with_file_name("checkpoints");
        let bytes = std::fs::read(folder.join(format!("{target}.seq"))).expect("a checkpoint");
        let word = bytes[SEQ_AT_BYTES..].try_into().expect("its number");
        u64::from_ne_bytes(word)
    }

    /// Another configuration, of which the agent is not told.
    fn rewrite(&mut self) {
        self.generation += 1;
        self.agent.rewrite(&targets(self.generation));
    }

    fn storm(&mut self) {
        let count = self.random.u64(10_000..30_000);
        let label = format!("storm{}", self.stormed);
        let lines: Vec<_> =
            (0..count).map(|number| line(&mut self.random, &label, number)).collect();
        kmsg::write(&lines, 0);
        self.stormed += count;
    }

    fn link(&mut self, breaks: &str, mends: &str) {
        let pair = self.pair;
        self.outage(
            || pair.left.batch(&format!("{breaks}\n")),
            || {
                pair.left.batch(&format!("{mends}\n"));
            },
        );
    }

    fn carrier(&mut self) {
        let pair = self.pair;
        self.outage(
            || pair.right.ip("link set right0 down"),
            || {
                pair.right.ip("link set right0 up");
                // What came meanwhile would wait for an answer.
                pair.left.ip(ROUTE);
            },
        );
    }

    fn outage(&mut self, breaks: impl FnOnce(), mends: impl FnOnce()) {
        let begin = Instant::now();
        breaks();
        if self.random.bool() {
            let fault = WITHIN[self.random.usize(0..WITHIN.len())];
            self.pause(0..100);
            self.fault(fault);
        }
        self.pause(0..800);
        mends();
        self.wait_until_active();
        self.outages.push(begin..=Instant::now());
    }

    fn slow(&mut self) {
        self.wait_until_up();
        let target = self.random.usize(0..TARGETS.len());
        let name = TARGETS[target].0;
        let set = |agent: &Agent, pace: &str| {
            agent.command(&["target", "set", name, &format!("pace={pace}")]);
        };
        set(&self.agent, SLOW);
        if self.random.bool() {
            self.storm();
        }
        self.pause(200..2000);
        set(&self.agent, PACES[target]);
    }

    fn hog(&mut self) {
        let stop = AtomicBool::new(false);
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        std::thread::scope(|scope| {
            let _stop_at_end = StopAtEnd(&stop);
            for _ in 0..threads {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        std::hint::spin_loop();
                    }
                });
            }
            self.pause(100..1000);
            if self.random.bool() {
                self.storm();
            }
            self.pause(100..1000);
        });
    }

    /// The agent is started in a cgroup, has next to nothing more than it uses once it sends, and
    /// shares that with a process that takes all of it.
    fn squeeze(&mut self) {
        let memory = std::mem::replace(&mut self.memory, Err(String::new()));
        match &memory {
            Ok(memory) => memory.during(|| self.kill()),
            Err(_) => self.kill(),
        }
        self.memory = memory;
        self.wait_until_active();
        let limit = |memory: &MemoryLimit| {
            let used_bytes = memory.used_bytes();
            // Else the agent would not be in it.
            assert!(used_bytes >= MEMORY_USED_MIN_BYTES, "{used_bytes} in the cgroup");
            memory.set(Some(used_bytes + MEMORY_LEFT_BYTES));
        };
        self.memory.iter().for_each(limit);
        let before = self.memory.as_ref().map_or(0, MemoryLimit::pressure);
        let hog = self.memory.as_ref().ok().map(Hog::start);
        self.storm();
        self.pause(500..1500);
        drop(hog);
        if let Ok(memory) = &self.memory {
            assert!(memory.pressure() > before, "the limits were no pressure");
            memory.set(None);
        }
        self.wait_until_up();
    }

    /// Waits until it answers.
    fn wait_until_up(&mut self) {
        self.agent.wait(PATIENCE, |_| true);
    }

    /// Waits until all targets send.
    pub(crate) fn wait_until_active(&mut self) {
        self.agent
            .wait(PATIENCE, |status| status.targets.iter().all(|target| target.state == "active"));
    }

    /// Waits until everything up to a seq has its fate.
    pub(crate) fn wait_until_past(&mut self, seq: u64, patience: Duration) {
        let socket = self.agent.socket();
        let is_past = |target: &TargetView| target.account.is_past(seq);
        self.agent.wait(patience, |_| {
            View::ask(&socket).is_some_and(|view| view.targets.iter().all(is_past))
        });
    }

    /// Stops the agent in order.
    pub(crate) fn end(mut self) -> Past {
        let last = self.agent.view();
        self.agent.end();
        let log = self.agent.log();
        self.run_is_over(Some(last), Some(log));
        Past { runs: self.runs, outages: self.outages }
    }
}
