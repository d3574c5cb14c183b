//! What every event's test does: a running agent with one target, numbered records, a
//! capture at the far end, and the account of it all.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    time::{Duration, Instant},
};

use agent_tests::{
    agent::Agent,
    capture::{Arrived, Capture},
    kmsg::{Reader, Unlimited, mark, write},
    monitor::{Monitor, Notice},
    netns::{Namespace, Sink},
    view::{TargetView, View},
};

/// Whether this process may make namespaces, and this kernel is fit for AF_XDP.
pub(crate) use agent_tests::netns::xdp_or_skip as ready;

/// Longest time to heal where the socket stays.
pub(crate) const LIMIT: Duration = Duration::from_millis(50);
/// Longest time to heal where a new socket has to be bound.
pub(crate) const LIMIT_BIND: Duration = Duration::from_millis(150);
/// How often an event is repeated; the median counts.
pub(crate) const ROUNDS: usize = 3;
/// The worst may be so many times as long: a busy machine, but no wait for a timer.
const WORST: u32 = 5;
/// Changes of a state that `status` tells.
pub(crate) const HISTORY: usize = 16;
/// The receiver's port.
pub(crate) const PORT: u16 = 6666;
const PATIENCE: Duration = Duration::from_secs(10);
/// Level 6; `kmsg::write` makes one record of each.
const PREFIX: &str = "<6>";

/// What a test expects of its account.
#[derive(Default)]
pub(crate) struct Expected<'a> {
    /// Own records lost, by reason; none else may be.
    pub(crate) lost: &'a [(&'a str, usize)],
    /// Records of others that may be sent and vanish: what the kernel itself logs while
    /// a bridge loses its port finds the bridge without one, and the agent not told yet.
    pub(crate) vanished: u64,
    /// Own records that may be refused: what the device dropped before it took newer ones.
    pub(crate) refused_at_most: usize,
}

type Wanted<'a> = Box<dyn Fn(&Notice) -> bool + 'a>;

/// From when on sending is possible again.
pub(crate) struct Ready<'a> {
    notice: Option<Wanted<'a>>,
    done: bool,
}

/// When the commands are done.
pub(crate) fn done() -> Ready<'static> {
    Ready { notice: None, done: true }
}

/// When the kernel tells this.
pub(crate) fn told<'a>(notice: impl Fn(&Notice) -> bool + 'a) -> Ready<'a> {
    Ready { notice: Some(Box::new(notice)), done: false }
}

/// When both have happened.
pub(crate) fn told_and_done<'a>(notice: impl Fn(&Notice) -> bool + 'a) -> Ready<'a> {
    Ready { done: true, ..told(notice) }
}

/// What was seen in the end.
pub(crate) struct Outcome {
    /// What arrived, in order.
    pub(crate) arrived: Vec<Arrived>,
    /// Numbers of own records that did not.
    pub(crate) missing: Vec<usize>,
    /// The last status.
    pub(crate) view: TargetView,
}

/// A running agent with the target `peer`.
pub(crate) struct Scene {
    label: &'static str,
    pub(crate) agent: Agent,
    pub(crate) capture: Capture,
    pub(crate) monitor: Monitor,
    reader: Reader,
    next: usize,
    heals: Vec<Duration>,
    _sink: Sink,
    _unlimited: Unlimited,
}

impl Scene {
    /// Starts an agent in `host` whose target has the settings `target`, and a capture at
    /// the devices of `far`; waits until the target is active.
    pub(crate) fn start(
        label: &'static str,
        host: &Namespace,
        far: &Namespace,
        target: &str,
    ) -> Self {
        Self::start_with(label, host, (far, &[]), "", target, 1)
    }

    /// The same with settings of the agent, the devices of `far.0` that are not captured, and
    /// how many targets have to be active.
    pub(crate) fn start_with(
        label: &'static str,
        host: &Namespace,
        far: (&Namespace, &[&str]),
        agent_table: &str,
        target: &str,
        active: usize,
    ) -> Self {
        let unlimited = Unlimited::new();
        let sink = far.0.sink(PORT);
        let reader = Reader::start();
        let capture = Capture::start(far.0, PORT, far.1);
        let monitor = Monitor::start(host);
        let targets = format!("[target.peer]\n{target}\n");
        let agent = Agent::start_logging(
            host,
            agent_table,
            &targets,
            active,
            Some("info,netconsole_agent=debug"),
        );
        Self {
            label,
            agent,
            capture,
            monitor,
            reader,
            next: 0,
            heals: Vec::new(),
            _sink: sink,
            _unlimited: unlimited,
        }
    }

    /// The text of an own record.
    pub(crate) fn text(&self, number: usize) -> String {
        format!("nca-heal {} {} {number}.", std::process::id(), self.label)
    }

    /// Writes records at once and returns their numbers.
    pub(crate) fn say(&mut self, count: usize) -> Range<usize> {
        self.say_evenly(count, 0, 0)
    }

    /// Writes records, `per_second` of them (0: at once), with `padding` bytes more.
    pub(crate) fn say_evenly(
        &mut self,
        count: usize,
        per_second: u64,
        padding: usize,
    ) -> Range<usize> {
        let numbers = self.next..self.next + count;
        self.next = numbers.end;
        let padding = "x".repeat(padding);
        let records: Vec<_> = numbers
            .clone()
            .map(|number| format!("{PREFIX}{}{padding}\n", self.text(number)).into_bytes())
            .collect();
        write(&records, per_second);
        numbers
    }

    /// Waits for a record at the far end.
    #[track_caller]
    pub(crate) fn arrival(&self, number: usize) -> Arrived {
        self.arrival_of(0, number, |_| true)
    }

    /// Waits for a record at the far end as it is wanted, from the `from`th datagram on.
    #[track_caller]
    pub(crate) fn arrival_of(
        &self,
        from: usize,
        number: usize,
        wanted: impl Fn(&Arrived) -> bool,
    ) -> Arrived {
        let text = self.text(number);
        let is_it = |one: &Arrived| one.begins_with(&text) && wanted(one);
        self.capture.wait(from, PATIENCE, is_it).unwrap_or_else(|| {
            panic!("{text} does not arrive; {:#?}\n{}", self.view(), self.agent.log())
        })
    }

    /// Writes a few records and waits until they have arrived.
    #[track_caller]
    pub(crate) fn say_and_see(&mut self, count: usize) {
        let last = self.say(count).end - 1;
        let _ = self.arrival(last);
    }

    /// What the agent tells of the target.
    pub(crate) fn view(&self) -> TargetView {
        self.agent.view().target("peer").clone()
    }

    /// Waits until the agent tells of the target what is wanted.
    #[track_caller]
    pub(crate) fn wait(
        &self,
        what: &str,
        patience: Duration,
        wanted: impl Fn(&TargetView) -> bool,
    ) -> TargetView {
        let end = Instant::now() + patience;
        loop {
            let view = View::ask(&self.agent.socket());
            let view = view.as_ref().map(|view| view.target("peer"));
            if let Some(view) = view
                && wanted(view)
            {
                return view.clone();
            }
            assert!(
                Instant::now() < end,
                "{}: not {what}, but {view:#?}\n{}",
                self.label,
                self.agent.log()
            );
            std::thread::sleep(Duration::from_millis(3));
        }
    }

    /// Waits until the target waits for one of these; for anything if there are none.
    #[track_caller]
    pub(crate) fn wait_waiting(&self, kinds: &[&str]) -> TargetView {
        self.wait(&format!("waiting for {kinds:?}"), PATIENCE, |view| {
            let kind = view.waiting_kind.as_deref().unwrap_or_default();
            view.state == "waiting" && (kinds.is_empty() || kinds.contains(&kind))
        })
    }

    /// Waits until the target is active.
    #[track_caller]
    pub(crate) fn wait_active(&self) -> TargetView {
        self.wait("active", PATIENCE, |view| view.state == "active")
    }

    /// One event and its end: records before, during and after it, and the time between
    /// the moment at which sending is possible again and the first waiting record.
    #[track_caller]
    pub(crate) fn round(
        &mut self,
        fail: impl FnOnce(),
        kinds: &[&str],
        heal: impl FnOnce(),
        ready: Ready<'_>,
    ) {
        self.say_and_see(5);
        fail();
        self.wait_waiting(kinds);
        self.recover(heal, ready);
        self.say_and_see(5);
    }

    /// The second half of a round: writes records that have to wait, heals, and measures.
    #[track_caller]
    pub(crate) fn recover(&mut self, heal: impl FnOnce(), ready: Ready<'_>) {
        let waiting = self.say(20);
        let cut = self.monitor.count();
        heal();
        let returned = Instant::now();
        let arrived = self.arrival(waiting.start);
        // The notice is there by now.
        let notice = ready.notice.map(|wanted| {
            let at = self.monitor.wait(cut, Duration::from_millis(1_500), wanted);
            at.unwrap_or_else(|| panic!("{}: no notice\n{}", self.label, self.story()))
        });
        let possible = notice.into_iter().chain(ready.done.then_some(returned)).max();
        let possible = possible.expect("a moment");
        self.healed(arrived.at.saturating_duration_since(possible));
        let _ = self.arrival(waiting.end - 1);
        self.wait_active();
    }

    /// The agent's log and the kernel's notices, by time.
    pub(crate) fn story(&self) -> String {
        let text = self.agent.log() + &self.monitor.lines(0);
        let mut lines: Vec<_> = text.lines().collect();
        lines.sort_unstable();
        lines.join("\n")
    }

    /// Notes a time to heal.
    pub(crate) fn healed(&mut self, took: Duration) {
        self.heals.push(took);
    }

    /// Prints the times to heal and judges their median.
    #[track_caller]
    pub(crate) fn judge(&mut self, limit: Duration) {
        let mut heals = std::mem::take(&mut self.heals);
        let list: Vec<_> = heals.iter().map(|heal| format!("{:.1}", ms(*heal))).collect();
        heals.sort();
        let median = heals[heals.len() / 2];
        println!(
            "HEAL {}: median {:.1} ms of [{}], limit {} ms",
            self.label,
            ms(median),
            list.join(" "),
            limit.as_millis()
        );
        assert!(median <= limit, "{}: {median:?}\n{}", self.label, self.story());
        let worst = heals[heals.len() - 1];
        assert!(worst <= limit * WORST, "{}: {worst:?}\n{}", self.label, self.story());
    }

    /// The changes of the target's state as the log tells them, in order: before and after.
    pub(crate) fn logged(&self) -> Vec<(String, String)> {
        let log = self.agent.log();
        let of_target = log.lines().filter(|line| line.contains("target_name=\"peer\""));
        of_target
            .filter_map(|line| {
                let value = |key: &str| {
                    let (_, rest) = line.split_once(&format!(" {key}=\""))?;
                    Some(rest.split_once('"')?.0.to_owned())
                };
                // The line that says that it sends names where it sends instead.
                let sends = line.contains("The target sends.").then(|| "active".to_owned());
                Some((value("from")?, value("to").or(sends)?))
            })
            .collect()
    }

    /// Asserts that the target went through these states, in this order, with others between
    /// them; that `status` tells the last changes, each from where the one before ended; and
    /// that the log has the same changes, each once.
    #[track_caller]
    pub(crate) fn assert_went(&self, states: &[&str]) {
        let view = self.view();
        let mut wanted = states.iter().peekable();
        for transition in &view.transitions {
            assert!(transition.unix_ms > 0 && !transition.cause.is_empty(), "{transition:?}");
            wanted.next_if(|state| **state == transition.to);
        }
        assert_eq!(wanted.next(), None, "of {states:?} in {:#?}", view.transitions);
        for pair in view.transitions.windows(2) {
            assert_eq!(pair[0].to, pair[1].from, "{:#?}", view.transitions);
            assert!(pair[0].unix_ms <= pair[1].unix_ms, "{:#?}", view.transitions);
        }
        let told: Vec<_> =
            view.transitions.iter().map(|one| (one.from.clone(), one.to.clone())).collect();
        // The log comes through a pipe and a thread.
        let end = Instant::now() + Duration::from_secs(1);
        while !self.logged().ends_with(&told) && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(10));
        }
        let logged = self.logged();
        assert!(logged.ends_with(&told), "{told:#?}\nbut in the log {logged:#?}");
        assert_eq!(told.len(), logged.len().min(HISTORY), "{told:#?}\nof {logged:#?}");
    }

    /// Waits until everything has its fate, stops the agent, and compares what was
    /// written, what arrived and what the agent says of it.
    #[track_caller]
    pub(crate) fn finish(self, expected: &Expected<'_>) -> Outcome {
        let mark = mark();
        let view = self.wait("done with everything", PATIENCE, |view| {
            view.state == "active" && view.account.is_past(mark)
        });
        self.capture.settle(Duration::from_millis(150));
        let own: Vec<String> = (0..self.next).map(|number| self.text(number)).collect();
        let log = self.agent.stop();
        let arrived = self.capture.all();
        let written: BTreeMap<u64, String> = self
            .reader
            .finish()
            .lines
            .iter()
            .map(|line| (line.seq, text_of(&line.bytes)))
            .collect();
        let label = self.label;

        // Order, and texts.
        let mut seqs = BTreeSet::new();
        let mut again = Vec::new();
        for one in &arrived {
            let newest = seqs.last().copied();
            if seqs.insert(one.seq) {
                assert!(newest < Some(one.seq), "{label}: {} came after {newest:?}", one.seq);
            } else if one.text.is_some() {
                again.push(one.seq);
            }
            if let (Some(written), Some(text)) = (written.get(&one.seq), &one.text) {
                assert_eq!(written, text, "{label}: seq {}", one.seq);
            }
        }
        let texts: BTreeSet<&str> =
            arrived.iter().filter_map(|one| Some(first_word(one.text.as_deref()?))).collect();
        let missing: Vec<usize> =
            (0..own.len()).filter(|number| !texts.contains(own[*number].as_str())).collect();
        assert!(again.is_empty(), "{label}: {again:?} came twice\n{log}");

        // The account. Others may log as well; of their records only the sum is known.
        let account = &view.account;
        assert!(account.adds_up(), "{label}: {account:?}");
        let end = account.next_seq - account.queued;
        let not_arrived = (account.first_seq..end).filter(|seq| !seqs.contains(seq)).count() as u64;
        let accounted = account.lost_total() + account.filtered;
        assert!(
            (accounted..=accounted + expected.vanished).contains(&not_arrived),
            "{label}: {not_arrived} did not arrive: {account:?}, own missing {missing:?}\n{log}"
        );
        let expected_lost: usize = expected.lost.iter().map(|(_, count)| count).sum();
        assert!(
            (expected_lost..=expected_lost + expected.refused_at_most).contains(&missing.len()),
            "{label}: {missing:?} of {account:?}\n{log}"
        );
        // What is missing beyond that was refused, and told so.
        let refused = account.lost.get("refused").copied().unwrap_or_default();
        assert!(
            (missing.len() - expected_lost) as u64 <= refused,
            "{label}: {missing:?} of {account:?}\n{log}"
        );
        for (reason, count) in &account.lost {
            let own = expected.lost.iter().find(|(name, _)| name == reason);
            let own = own.map_or(0, |(_, count)| *count as u64);
            // What the kernel overwrote before it was read is another test's storm.
            let is_foreign = ["kernel_overwrote", "not_captured"].contains(&reason.as_str());
            let may_be_refused = reason == "refused" && *count <= expected.refused_at_most as u64;
            let fits = if may_be_refused {
                true
            } else if own > 0 {
                *count >= own
            } else {
                *count == 0 || is_foreign
            };
            assert!(fits, "{label}: {reason} {count}, expected {:?}\n{log}", expected.lost);
        }
        Outcome { arrived, missing, view }
    }
}

/// Milliseconds with a fraction.
pub(crate) fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// The text of a line of `/dev/kmsg`, as it is escaped there.
fn text_of(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let body = text.split_once(';').map_or("", |(_, body)| body);
    body.split('\n').next().unwrap_or_default().to_owned()
}

/// Own texts end with a dot, before any padding.
fn first_word(text: &str) -> &str {
    text.find('.').map_or(text, |dot| &text[..=dot])
}
