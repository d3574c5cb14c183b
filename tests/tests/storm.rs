//! A storm: random changes of the network, 20 per second, while two writers log 10,000
//! lines per second each. Afterwards everything must be accounted for, and nothing left over.
//!
//! ```text
//! NETCONSOLE_AGENT_QUICK=1   10 s instead of 60 s
//! NETCONSOLE_AGENT_SEED=17   the same storm again (as far as scheduling allows)
//! ```
//!
//! What is missing at the receiver must be missing where the agent's own log says that
//! the target could not send: the whole time of each gap in what arrives has to lie in such
//! windows, with a tolerance. Between an event and the agent's notice of it (a message from
//! the kernel and a turn of two threads) the kernel takes frames that go nowhere; the account
//! shows them as sent or refused.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    io::Write as _,
    ops::{Range, RangeInclusive},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use agent_tests::{
    agent::Agent,
    capture::{Frame, Tap},
    kmsg::{Unlimited, mark, seq_of},
    lan::Lan,
    netns::{mac_text, xdp_or_skip},
    process::{Footprint, Memory},
    quick,
    stream::is_notice,
    view::{TargetView, View},
};

const PORT: u16 = 6666;
const EVENTS_PER_S: u64 = 20;
/// Less than this share of the changes and of the lines, and it is no storm.
const STORM_MIN: f64 = 0.5;
const WRITERS: usize = 2;
const LINES_PER_S_EACH: u64 = 10_000;
/// Writers write so many lines and then wait for their time.
const LINES_AT_ONCE: u64 = 20;
/// A gap may begin so long before the log says that the target waits: the way of the kernel's
/// notice to the agent, and from there to the pump, on a machine with more threads than CPUs.
const BEFORE: Duration = Duration::from_millis(100);
/// And may end so long after the log says that it sends again.
const AFTER: Duration = Duration::from_millis(50);
/// How often the account is read, to know when records were lost before any target saw them.
const READ_EVERY: Duration = Duration::from_millis(100);
/// Of everything sent, at most this share may vanish between an event and its notice.
const VANISHED_MAX: f64 = 0.002;
/// And at most this share may be refused by a device that goes.
const REFUSED_MAX: f64 = 0.002;
const RSS_GROWTH_MAX_BYTES: u64 = 8 << 20;
/// The pace is out of the way: with both writers it is what the default allows, and a
/// backlog would never shrink.
const AGENT: &str = "store = \"64MiB\"";
const TARGET: &str = "[target.peer]\nremote = \"198.51.100.10:6666\"\npace = \"off\"";

/// splitmix64 (Steele, Lea and Flood: Fast splittable pseudorandom number generators).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// What the host's network is like now, and how it changes.
struct Weather<'a> {
    lan: &'a Lan,
    random: Random,
    device: String,
    exists: bool,
    up: bool,
    addressed: bool,
    enslaved: bool,
    gateway: u64,
    mac: u64,
    devices: u64,
    counts: BTreeMap<&'static str, u64>,
    /// What was done when.
    history: Vec<(SystemTime, String)>,
}

impl<'a> Weather<'a> {
    fn new(lan: &'a Lan, seed: u64) -> Self {
        lan.host.ip("link add hb0 type bridge");
        lan.host.ip("link set hb0 up");
        lan.host.ip("route add default via 10.0.0.1");
        Self {
            lan,
            random: Random(seed),
            device: "up0".to_owned(),
            exists: true,
            up: true,
            addressed: true,
            enslaved: false,
            gateway: 1,
            mac: 0,
            devices: 0,
            counts: BTreeMap::new(),
            history: Vec::new(),
        }
    }

    fn run(&mut self, event: &'static str, commands: &str) {
        *self.counts.entry(event).or_default() += 1;
        let begin = SystemTime::now();
        self.lan.host.batch(commands);
        let took = begin.elapsed().unwrap_or_default();
        self.history.push((begin, format!("{event}, took {took:?}: {}", commands.trim_end())));
    }

    /// The device that has the address, if it is there.
    fn holder(&self) -> &str {
        if self.enslaved { "hb0" } else { &self.device }
    }

    fn route(&self) -> String {
        format!("route replace default via 10.0.0.{}\n", self.gateway)
    }

    fn mac_text(&self) -> String {
        mac_text([2, 0, 0, 0, 0, 0x0a + self.mac as u8])
    }

    /// One event. What is broken is mended more often than not.
    fn event(&mut self) {
        if !(self.exists && self.up && self.addressed) && self.random.below(3) > 0 {
            return self.mend();
        }
        if !self.exists {
            return self.create();
        }
        // What is not possible now is drawn again.
        while !self.try_event() {}
    }

    fn try_event(&mut self) -> bool {
        let device = self.device.clone();
        match self.random.below(8) {
            0 if self.up && !self.enslaved => {
                self.up = false;
                self.run("down", &format!("link set {device} down\n"));
            }
            1 if !self.enslaved => {
                (self.exists, self.up, self.addressed) = (false, false, false);
                self.run("delete", &format!("link del {device}\n"));
            }
            2 => {
                self.device = self.new_name();
                self.run("rename", &format!("link set {device} name {}\n", self.device));
            }
            3 if !self.enslaved => {
                self.mac = (self.mac + 1) % 4;
                let mac = self.mac_text();
                self.run("mac", &format!("link set {device} address {mac}\n"));
            }
            4 if self.addressed => {
                self.addressed = false;
                let holder = self.holder().to_owned();
                self.run("address removed", &format!("addr del 10.0.0.10/24 dev {holder}\n"));
            }
            5 if self.addressed && self.up => {
                self.gateway = 3 - self.gateway;
                let route = self.route();
                self.run("gateway", &route);
            }
            6 if self.up && self.addressed => self.enslave_or_release(),
            7 => {
                let mtu = 1300 + 100 * self.random.below(3);
                self.run("mtu", &format!("link set {device} mtu {mtu}\n"));
            }
            _ => return false,
        }
        true
    }

    fn new_name(&mut self) -> String {
        self.devices += 1;
        format!("up{}", self.devices)
    }

    fn mend(&mut self) {
        if !self.exists {
            self.create();
        } else if !self.up {
            self.up = true;
            let route = if self.addressed { self.route() } else { String::new() };
            self.run("up", &format!("link set {} up\n{route}", self.device));
        } else {
            self.addressed = true;
            let (holder, route) = (self.holder().to_owned(), self.route());
            self.run("address added", &format!("addr add 10.0.0.10/24 dev {holder}\n{route}"));
        }
    }

    fn create(&mut self) {
        if self.random.below(2) == 0 {
            self.device = self.new_name();
        }
        (self.exists, self.up, self.addressed) = (true, true, true);
        // Another name for the other end: the old one may not be gone yet.
        self.devices += 1;
        let port = format!("q{}", self.devices);
        self.run(
            "create",
            &format!(
                "link add {0} address {1} type veth peer name {port} netns {2}\n",
                self.device,
                self.mac_text(),
                self.lan.switch.name()
            ),
        );
        self.lan.switch.batch(&format!("link set {port} master br0 up\n"));
        let route = self.route();
        let commands =
            format!("addr add 10.0.0.10/24 dev {0}\nlink set {0} up\n{route}", self.device);
        self.lan.host.batch(&commands);
    }

    fn enslave_or_release(&mut self) {
        let (device, route) = (self.device.clone(), self.route());
        self.enslaved = !self.enslaved;
        if self.enslaved {
            let commands = format!(
                "addr del 10.0.0.10/24 dev {device}\nlink set {device} master hb0\n\
                 addr add 10.0.0.10/24 dev hb0\n{route}"
            );
            self.run("enslave", &commands);
        } else {
            let commands = format!(
                "addr del 10.0.0.10/24 dev hb0\nlink set {device} nomaster\n\
                 addr add 10.0.0.10/24 dev {device}\n{route}"
            );
            self.run("release", &commands);
        }
    }

    /// All is well.
    fn clear_up(&mut self) {
        while !(self.exists && self.up && self.addressed) {
            self.mend();
        }
        if self.enslaved {
            self.enslave_or_release();
        }
        let route = self.route();
        self.run("gateway", &route);
    }
}

/// One record that arrived for the first time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    seq: u64,
    at: Instant,
}

#[derive(Debug, Default)]
struct Kept {
    seen: Vec<Seen>,
    seqs: BTreeSet<u64>,
    again: u64,
    /// With what came before it.
    out_of_order: Vec<(Seen, Seen)>,
    /// The number of each writer's newest record.
    numbers: [Option<u64>; WRITERS],
    wrong: Vec<String>,
}

impl Kept {
    fn take(&mut self, frame: &Frame<'_>) {
        if is_notice(frame.payload) {
            return;
        }
        let seq = seq_of(frame.payload);
        if let Some(newest) = self.seen.last().copied()
            && seq <= newest.seq
        {
            if self.seqs.contains(&seq) {
                self.again += 1;
            } else {
                self.seqs.insert(seq);
                self.out_of_order.push((newest, Seen { seq, at: frame.at }));
            }
            return;
        }
        self.seqs.insert(seq);
        self.seen.push(Seen { seq, at: frame.at });
        let text = String::from_utf8_lossy(frame.payload);
        let prefix = format!(";nca-storm {} ", std::process::id());
        let Some((_, own)) = text.split_once(&prefix) else { return };
        // `writer number.`
        let own = own.trim_end().trim_end_matches('.').split_once(' ');
        let parsed = own.and_then(|(writer, number)| {
            Some((writer.parse::<usize>().ok()?, number.parse::<u64>().ok()?))
        });
        match parsed {
            Some((writer, number))
                if writer < WRITERS && self.numbers[writer].is_none_or(|last| last < number) =>
            {
                self.numbers[writer] = Some(number);
            }
            _ => self.wrong.push(text.into_owned()),
        }
    }
}

/// Writes evenly until it is told to stop.
fn writer(number: usize, stop: &AtomicBool, count: &AtomicU64) {
    let mut file = std::fs::File::options().write(true).open("/dev/kmsg").expect("open /dev/kmsg");
    let begin = Instant::now();
    let mut text = String::new();
    let mut line = 0;
    while !stop.load(Ordering::Acquire) {
        for _ in 0..LINES_AT_ONCE {
            text.clear();
            writeln!(text, "<6>nca-storm {} {number} {line}.", std::process::id()).expect("text");
            file.write_all(text.as_bytes()).expect("write /dev/kmsg");
            line += 1;
        }
        let due = begin + Duration::from_micros(line * 1_000_000 / LINES_PER_S_EACH);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    count.fetch_add(line, Ordering::Relaxed);
}

/// The windows in which the target could not send, by the agent's log.
fn outages(log: &str, begin: SystemTime) -> Vec<RangeInclusive<SystemTime>> {
    let mut windows = Vec::new();
    let mut since = None;
    for line in log.lines().filter(|line| line.contains("target_name=\"peer\"")) {
        let Some((stamp, _)) = line.split_once(' ') else { continue };
        let Ok(at) = humantime::parse_rfc3339(stamp) else { continue };
        if line.contains("The target sends.") || line.contains("to=\"active\"") {
            windows.extend(since.take().map(|since| since..=at));
        } else if line.contains("from=\"active\"") {
            since = Some(at);
        } else if line.contains("from=") && since.is_none() && windows.is_empty() {
            // The start.
            since = Some(begin);
        }
    }
    windows.extend(since.map(|since| since..=SystemTime::now()));
    windows
}

/// How much of the time of a gap no window explains, with the tolerances at their ends.
fn uncovered(gap: Range<SystemTime>, windows: &[RangeInclusive<SystemTime>]) -> Duration {
    let mut uncovered = Duration::ZERO;
    // Windows come in order.
    let mut at = gap.start;
    for window in windows {
        let (begin, end) = (*window.start() - BEFORE, *window.end() + AFTER);
        if begin >= gap.end {
            break;
        }
        uncovered += begin.duration_since(at).unwrap_or_default();
        at = at.max(end);
    }
    uncovered + gap.end.duration_since(at).unwrap_or_default()
}

/// First seq without a fate, and how many were lost before any target saw them.
fn source_of(view: &TargetView) -> (u64, u64) {
    let account = &view.account;
    (
        account.next_seq - account.queued,
        account.lost["kernel_overwrote"] + account.lost["not_captured"],
    )
}

/// What the agent told and what was done around a moment, by time.
fn story(log: &str, history: &[(SystemTime, String)], at: SystemTime) -> String {
    const AROUND: Duration = Duration::from_millis(300);
    let stamp = |at| humantime::format_rfc3339_micros(at).to_string();
    let mut lines: Vec<String> =
        history.iter().map(|(at, what)| format!("{} ---- {what}", stamp(*at))).collect();
    lines.extend(log.lines().map(str::to_owned));
    let around = stamp(at - AROUND)..stamp(at + AROUND);
    lines.retain(|line| around.contains(&line[..line.len().min(27)].to_owned()));
    lines.push(format!("{} <<<< here", stamp(at)));
    lines.sort_unstable();
    lines.join("\n")
}

fn wait(agent: &Agent, what: &str, wanted: impl Fn(&TargetView) -> bool) -> TargetView {
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        let view = View::ask(&agent.socket());
        let view = view.as_ref().map(|view| view.target("peer"));
        if let Some(view) = view
            && wanted(view)
        {
            return view.clone();
        }
        let tail: Vec<String> = agent.log().lines().rev().take(60).map(str::to_owned).collect();
        assert!(Instant::now() < end, "not {what}: {view:#?}\nnewest first: {tail:#?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_storm_of_changes_under_load() {
    if !xdp_or_skip("a_storm_of_changes_under_load") {
        return;
    }
    let length = Duration::from_secs(if quick() { 10 } else { 60 });
    let seed = agent_tests::seed("STORM");
    println!("STORM {} s", length.as_secs());

    let lan = Lan::new();
    let _unlimited = Unlimited::new();
    let _sinks = lan.routers.each_ref().map(|router| router.sink(PORT));
    let kept = Arc::new(Mutex::new(Kept::default()));
    let tap = {
        let kept = Arc::clone(&kept);
        Tap::start(&lan.switch, PORT, &["br0"], move |frame| {
            kept.lock().expect("what arrived").take(&frame);
        })
    };
    let mut weather = Weather::new(&lan, seed);
    let begin = SystemTime::now();
    let agent =
        Agent::start_logging(&lan.host, AGENT, TARGET, 1, Some("info,netconsole_agent=debug"));
    // Whatever is made for the first records is made before it is counted.
    agent_tests::kmsg::write(&vec![b"<6>nca-storm before\n".to_vec(); 2_000], 10_000);
    let first = mark();
    let view = wait(&agent, "warm", |view| view.account.is_past(first));
    // What the agent does once, a second after its start, is over too, and the connection that
    // was asked through is closed.
    std::thread::sleep(Duration::from_secs(2));
    let before = Footprint::of(agent.pid());

    let (stop, written) = (AtomicBool::new(false), AtomicU64::new(0));
    let source = Mutex::new(vec![source_of(&view)]);
    let (took, events) = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Acquire) {
                std::thread::sleep(READ_EVERY);
                if let Some(view) = View::ask(&agent.socket()) {
                    source.lock().expect("what was read").push(source_of(view.target("peer")));
                }
            }
        });
        for number in 0..WRITERS {
            let (stop, written) = (&stop, &written);
            scope.spawn(move || writer(number, stop, written));
        }
        let start = Instant::now();
        let mut events = 0;
        while start.elapsed() < length {
            weather.event();
            events += 1;
            let due = start + Duration::from_millis(events * 1_000 / EVENTS_PER_S);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        let took = start.elapsed();
        weather.clear_up();
        stop.store(true, Ordering::Release);
        (took, events)
    });
    let written = written.into_inner();
    println!(
        "STORM {written} lines written, {events} events in {:.1} s: {:?}",
        took.as_secs_f64(),
        weather.counts
    );
    let least = |per_s: u64| (length.as_secs_f64() * per_s as f64 * STORM_MIN) as u64;
    let lines_per_s = LINES_PER_S_EACH * WRITERS as u64;
    assert!(written >= least(lines_per_s), "{written} lines: the machine is too busy for a storm");
    assert!(events >= least(EVENTS_PER_S), "{events} events: the machine is too busy for a storm");

    // It ends active, with nothing left to send.
    let last = mark();
    let view = wait(&agent, "active and done", |view| {
        view.state == "active" && view.account.is_past(last)
    });
    let account = &view.account;
    assert!(account.adds_up(), "{account:?}");
    println!("STORM {account:?}, suspected {}", view.suspected);

    // Nothing is left over.
    let after = Footprint::settled(agent.pid(), &before);
    println!("STORM before {before:?}, after {after:?}");
    assert!(after.descriptors <= before.descriptors, "descriptors: {before:?} {after:?}");
    assert!(after.sockets <= before.sockets, "sockets: {before:?} {after:?}");
    assert!(before.rings > 0 && after.rings <= before.rings, "rings: {before:?} {after:?}");
    let own = |memory: &Memory| memory.resident_bytes.saturating_sub(memory.bpf_maps_bytes);
    let grown = own(&after.memory).saturating_sub(own(&before.memory));
    assert!(grown <= RSS_GROWTH_MAX_BYTES, "{grown} bytes more: {before:?} {after:?}");

    std::thread::sleep(Duration::from_millis(300));
    let (now, wall) = (Instant::now(), SystemTime::now());
    drop(tap);
    let log = agent.stop();
    let kept = kept.lock().expect("what arrived");
    assert_eq!(kept.wrong, Vec::<String>::new(), "texts");
    let wall_of = |at: Instant| wall - now.duration_since(at);
    let story = |at| story(&log, &weather.history, wall_of(at));

    // Each seq that the account knows arrived, was lost, or vanished on its way.
    let known = account.first_seq..account.next_seq - account.queued;
    let arrived = kept.seqs.range(known.clone()).count() as u64;
    assert!(arrived <= account.sent, "{arrived} arrived: {account:?}");
    let vanished = account.sent - arrived;
    // The store is large enough, and nothing is long, filtered or removed.
    for (reason, count) in &account.lost {
        let may_be = ["refused", "kernel_overwrote", "not_captured"].contains(&reason.as_str());
        assert!(may_be || *count == 0, "{reason} {count}");
    }
    assert_eq!(account.filtered, 0);
    println!(
        "STORM {arrived} arrived, {} of them twice, {vanished} vanished, {} lost",
        kept.again,
        account.lost_total()
    );
    assert!(vanished as f64 <= account.sent as f64 * VANISHED_MAX, "{vanished} vanished");
    let refused = account.lost["refused"];
    assert!(refused as f64 <= account.sent as f64 * REFUSED_MAX, "{refused} refused");
    assert_eq!(kept.again, 0, "came twice");

    // What is missing is missing in the logged windows.
    let windows = outages(&log, begin);
    let off: Duration =
        windows.iter().filter_map(|window| window.end().duration_since(*window.start()).ok()).sum();
    println!("STORM {} outages, {:.1} s together", windows.len(), off.as_secs_f64());
    let source = source.into_inner().expect("what was read");
    let last = source_of(&view);
    let (mut outside, mut longest) = (0, Duration::ZERO);
    for pair in kept.seen.windows(2) {
        let gap = pair[1].seq - pair[0].seq - 1;
        if gap == 0 || !known.contains(&pair[0].seq) {
            continue;
        }
        let uncovered = uncovered(wall_of(pair[0].at)..wall_of(pair[1].at), &windows);
        if uncovered.is_zero() {
            continue;
        }
        // Then it was lost before any target saw it, as the account told at that time.
        let before = source.iter().rev().find(|(seq, _)| *seq <= pair[0].seq).unwrap_or(&source[0]);
        let after = source.iter().find(|(seq, _)| *seq >= pair[1].seq).unwrap_or(&last);
        if after.1 - before.1 < gap {
            println!(
                "STORM {gap} missing after seq {}, {uncovered:?} outside:\n{}",
                pair[0].seq,
                story(pair[0].at)
            );
            outside += gap;
            longest = longest.max(uncovered);
        }
    }
    let mut told = None;
    for (before, late) in &kept.out_of_order {
        println!("STORM seq {} came after {}", late.seq, before.seq);
        if told.replace(before.seq) != Some(before.seq) {
            println!("{}", story(late.at));
        }
    }
    assert_eq!(kept.out_of_order.len(), 0, "out of order; seed {seed}");
    assert_eq!(outside, 0, "missing outside of outages, by up to {longest:?}; seed {seed}");
}
