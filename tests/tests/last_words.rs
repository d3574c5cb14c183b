//! What is said while the kernel panics, as far as a living kernel can show it: who speaks, what
//! is sent and acknowledged; copies; dumps. The programs' part, the hold, is tested where the kernel may
//! really panic (`cargo xtask vm --last-words`). Here the alarm is raised by hand.
//!
//! printk is global, so these tests run one at a time.

use std::{
    collections::BTreeMap,
    net::{SocketAddr, UdpSocket},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use agent_tests::{
    agent::{Agent, binary},
    kmsg::{self, Unlimited},
    netns::{LEFT_MAC, LEFT_V4, Namespace, Pair, RIGHT_MAC, RIGHT_V4, root_or_skip},
    peer::Peer,
    speech,
};
use arc_swap::ArcSwap;
use netconsole_agent::{
    capture::{
        self, Capture, Choice, Replay, SourceKind,
        bpf::{Panic, RingView},
        wait::now_ns,
    },
    egress::udp,
    frame::{FrameAddresses, HeaderTemplate},
    last_words::{
        Claim, Progress, Said, Speaker, SpeakerParts, Understudy,
        plan::{Plan, Spoken, SpokenWay},
    },
    netconsole::Format,
    netoops::TextRing,
    target::{
        TargetSettings,
        filter::{Filter, FilterSpec},
    },
};

const PORT: u16 = 6666;
const QUIET: Duration = Duration::from_millis(400);
const PATIENCE: Duration = Duration::from_secs(10);

fn settings(max_level: u8) -> Arc<ArcSwap<TargetSettings>> {
    let filter = FilterSpec { max_level, facilities: None, rules: Vec::new(), rate: None };
    Arc::new(ArcSwap::from_pointee(TargetSettings {
        name: "peer".to_owned(),
        format: Format::extended(b"6.18.0-test"),
        filter: Arc::new(Filter::compile(filter).expect("a filter")),
        names_cgroups: false,
        copies: 1,
        pace: None,
    }))
}

/// A target by frames over the pair, and one by UDP.
fn plan(pair: &Pair) -> Plan {
    let to = |port| SocketAddr::from((RIGHT_V4, port));
    let header = HeaderTemplate::new(FrameAddresses {
        src_mac: LEFT_MAC,
        dst_mac: RIGHT_MAC,
        vlan: None,
        local: SocketAddr::from((LEFT_V4, 6665)),
        remote: to(PORT),
    });
    let frames = SpokenWay::Frames {
        ifindex: pair.left.ifindex("left0"),
        header: Box::new(header.expect("a header")),
    };
    let options = udp::UdpOptions::new(to(PORT + 1));
    let socket = pair.left.run(|| udp::connected(&options)).expect("a socket");
    let spoken =
        |place, way| Spoken { place, settings: settings(7), nic: Box::default(), way, dump: None };
    Plan { targets: vec![spoken(0, frames), spoken(1, SpokenWay::Udp(Arc::new(socket)))] }
}

/// A speaker on a host of its own, and what it speaks of.
struct Stage {
    pair: Pair,
    /// What must live as long.
    _kept: (Unlimited, Capture, TextRing),
    parts: SpeakerParts,
    /// Another look at the programs' ring.
    other: RingView,
    speaker: Speaker,
}

impl Stage {
    fn new() -> Self {
        let pair = Pair::new();
        let unlimited = Unlimited::new();
        let choice = Choice::Only(SourceKind::Tracepoint);
        let mut capture =
            capture::open(choice, 1 << 20, Replay::None, &[]).expect("the tracepoint source");
        let last_words = capture.last_words.take().expect("a ring");
        let (parts, [view, other], text) = speech::parts(last_words);
        let speaker = pair.left.run(|| speech::speaker(view, &parts));
        Self { pair, _kept: (unlimited, capture, text), parts, other, speaker }
    }
}

fn lines(label: &str, count: usize) -> Vec<Vec<u8>> {
    (0..count).map(|index| format!("<3>{label} {index}\n").into_bytes()).collect()
}

/// Texts of the datagrams that hold `label`, in the order of their arrival.
fn texts(datagrams: &[Vec<u8>], label: &str) -> Vec<String> {
    let text = |datagram: &Vec<u8>| {
        let datagram = String::from_utf8_lossy(datagram).into_owned();
        let (header, text) = datagram.split_once(';').expect("a header");
        assert!(header.ends_with(",approx=1"), "{datagram}");
        Some(text.trim_end().to_owned()).filter(|text| text.starts_with(label))
    };
    datagrams.iter().filter_map(text).collect()
}

fn expected(label: &str, count: usize) -> Vec<String> {
    (0..count).map(|index| format!("{label} {index}")).collect()
}

fn panic_now(parts: &SpeakerParts, cpu: u32, position: u64) -> Panic {
    let panic = Panic { cpu, position, since_ns: now_ns(), by_hook: true };
    parts.alarm.as_ref().expect("an alarm").raise(&panic);
    panic
}

fn acknowledged(parts: &SpeakerParts) -> u64 {
    parts.alarm.as_ref().expect("an alarm").acknowledged()
}

/// Each line is sent to each target at once and in order, what the pump had sent to one before is
/// not sent to it again, and the acknowledgement never runs ahead.
#[test]
fn a_speaker_says_what_the_ring_holds() {
    if !root_or_skip("a_speaker_says_what_the_ring_holds") {
        return;
    }
    let Stage { pair, _kept, parts, other, mut speaker } = Stage::new();
    let peers = [PORT, PORT + 1].map(|port| Peer::start(&pair.right, port));

    kmsg::write(&lines("sent before", 5), 0);
    (0..2).for_each(|target| parts.beacon.set_handed(target, other.producer_position(), 0));
    // The second target is waiting for something.
    kmsg::write(&lines("waiting", 2), 0);
    parts.beacon.set_handed(0, other.producer_position(), 0);
    parts.beacon.publish(&Progress { next_seq: 1000, id_base: None, clock_offset_ns: 0 });
    kmsg::write(&lines("oops", 3), 0);
    let panic = panic_now(&parts, 0, other.producer_position());
    kmsg::write(&lines("panic", 4), 0);

    // Nobody to speak to yet: nothing is acknowledged, nothing passed over.
    assert_eq!(speaker.speak(&panic, now_ns()), Said { records: 0, all: true });
    assert_eq!(acknowledged(&parts), 0);
    parts.plan.store(Arc::new(plan(&pair)));
    let begin = Instant::now();
    loop {
        let produced = other.producer_position();
        let said = speaker.speak(&panic, now_ns());
        assert!(acknowledged(&parts) <= other.producer_position());
        if said.all && said.records == 0 && acknowledged(&parts) >= produced {
            break;
        }
        assert!(begin.elapsed() < PATIENCE, "{said:?}");
    }
    // What comes now is said in the next turns.
    kmsg::write(&lines("later", 2), 0);
    let produced = other.producer_position();
    while acknowledged(&parts) < produced {
        let _ = speaker.speak(&panic, now_ns());
        assert!(begin.elapsed() < PATIENCE);
    }
    for (peer, waited) in peers.into_iter().zip([0, 2]) {
        peer.settle(QUIET);
        let datagrams = peer.finish();
        assert!(texts(&datagrams, "sent before").is_empty());
        for (label, count) in [("waiting", waited), ("oops", 3), ("panic", 4), ("later", 2)] {
            assert_eq!(texts(&datagrams, label), expected(label, count));
        }
    }
}

/// A backlog does not stand before the panic: what lies far before it in the ring comes last.
#[test]
fn a_backlog_does_not_stand_before_a_panic() {
    if !root_or_skip("a_backlog_does_not_stand_before_a_panic") {
        return;
    }
    let Stage { pair, _kept, parts, other, mut speaker } = Stage::new();
    let peer = Peer::start(&pair.right, PORT);
    parts.plan.store(Arc::new(plan(&pair)));
    // About 160 bytes each: 320 KiB.
    kmsg::write(&lines("backlog", 2000), 0);
    let panic = panic_now(&parts, 0, other.producer_position());
    kmsg::write(&lines("panic", 3), 0);
    let begin = Instant::now();
    while !matches!(speaker.speak(&panic, now_ns()), Said { records: 0, all: true }) {
        assert!(begin.elapsed() < PATIENCE);
    }
    peer.settle(QUIET);
    let datagrams = peer.finish();
    let order: Vec<_> = texts(&datagrams, "");
    let panics = order.iter().position(|text| text == "panic 0").expect("the panic");
    let first = order.iter().position(|text| text == "backlog 0").expect("the backlog");
    assert!(panics < first, "{panics} {first}");
    let backlog: BTreeMap<_, _> =
        order.iter().filter(|text| text.starts_with("backlog")).map(|text| (text, ())).collect();
    assert_eq!(backlog.len(), 2000);
    assert_eq!(texts(&datagrams, "panic"), expected("panic", 3));
}

/// A pump that has not spoken for so long may be taken for stuck: two looks of the understudy.
const MAYBE_STUCK: Duration = Duration::from_millis(2);

/// Lets the machine panic on CPU 1 beside an understudy, and a pump that has the word already if it is on
/// another CPU; then it goes on speaking, or not. False if the pump, which is this thread, was kept from
/// speaking for too long by the host, so that this shows nothing.
fn panic_beside_understudy(pump_cpu: u32, pump_speaks: bool, understudy_speaks: bool) -> bool {
    let Stage { pair, _kept, parts, other, speaker } = Stage::new();
    let peer = Peer::start(&pair.right, PORT);
    parts.plan.store(Arc::new(plan(&pair)));
    parts.beacon.set_pump_cpu(pump_cpu);
    let stop = Arc::new(AtomicBool::new(false));
    let mut understudy = Understudy::new(speaker, parts.clone(), None, Arc::clone(&stop));
    let thread = std::thread::spawn(move || understudy.run());
    // The pump was quicker; if it does not speak, it gets stuck at once.
    if pump_cpu == 0 {
        assert!(parts.beacon.claim(Claim::Pump));
    }
    kmsg::write(&lines("before", 2), 0);
    let mut spoke = Instant::now();
    let mut was_late = false;
    let mut speak = || {
        parts.beacon.spoke(0);
        was_late |= spoke.elapsed() >= MAYBE_STUCK;
        spoke = Instant::now();
    };
    let panic = panic_now(&parts, 1, other.producer_position());
    if pump_speaks {
        speak();
    }
    kmsg::write(&lines("panic", 3), 0);
    let produced = other.producer_position();
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_millis(500) {
        if pump_speaks {
            // As its turns do.
            speak();
        }
        std::thread::sleep(Duration::from_micros(500));
    }
    let spoken = acknowledged(&parts) >= produced;
    assert_eq!(parts.panic(), Some(panic));
    // The machine lives: the next one is another panic.
    parts.lives();
    std::thread::sleep(Duration::from_millis(50));
    stop.store(true, Ordering::Release);
    thread.thread().unpark();
    thread.join().expect("the understudy");
    if spoken && pump_speaks && was_late {
        return false;
    }
    assert_eq!(spoken, understudy_speaks, "{pump_cpu} {pump_speaks}");
    peer.settle(QUIET);
    let datagrams = peer.finish();
    let said = if understudy_speaks { expected("panic", 3) } else { Vec::new() };
    assert_eq!(texts(&datagrams, "panic"), said, "{pump_cpu} {pump_speaks}");
    if understudy_speaks {
        assert_eq!(texts(&datagrams, "before"), expected("before", 2));
    }
    true
}

/// The understudy speaks when the pump's CPU panics, and when whoever speaks is stuck; else it does not.
#[test]
fn the_understudy_speaks_when_the_pump_cannot() {
    const ATTEMPTS: usize = 10;
    if !root_or_skip("the_understudy_speaks_when_the_pump_cannot") {
        return;
    }
    for (pump_cpu, pump_speaks, understudy_speaks) in
        [(1, false, true), (0, false, true), (0, true, false)]
    {
        let tries = || {
            (0..ATTEMPTS).any(|_| panic_beside_understudy(pump_cpu, pump_speaks, understudy_speaks))
        };
        assert!(tries(), "the host did not let the pump speak in time, {ATTEMPTS} times");
    }
}

/// Copies are the same bytes again, apart in time, and of severe records alone.
#[test]
fn severe_records_have_copies() {
    if !root_or_skip("severe_records_have_copies") {
        return;
    }
    let pair = Pair::new();
    let _unlimited = Unlimited::new();
    let socket = pair.right.run(|| UdpSocket::bind((RIGHT_V4, PORT)).expect("bind"));
    socket.set_read_timeout(Some(Duration::from_millis(2500))).expect("a timeout");
    let target = "[target.peer]\nremote = \"192.0.2.2:6666\"\ncopies = 3\n\
                  [target.peer.sysdata]\nmsgid = true\n";
    let mut agent = Agent::start(&pair.left, "", target, 1);
    // Longer than one datagram.
    let long = format!("<2>severe {}\n", "x".repeat(990)).into_bytes();
    kmsg::write(&[b"<3>severe short\n".to_vec(), b"<4>mild\n".to_vec(), long], 0);
    let mut came: BTreeMap<Vec<u8>, Vec<Instant>> = BTreeMap::new();
    let mut buffer = [0; 2048];
    while let Ok(length) = socket.recv(&mut buffer) {
        came.entry(buffer[..length].to_vec()).or_default().push(Instant::now());
    }
    let count = |text: &str| {
        let has = |bytes: &[u8]| bytes.windows(text.len()).any(|window| window == text.as_bytes());
        came.iter()
            .filter(|(bytes, _)| has(bytes))
            .map(|(_, times)| times.len())
            .collect::<Vec<_>>()
    };
    assert_eq!(count(";severe short"), [3]);
    assert_eq!(count(";mild"), [1]);
    assert_eq!(count("ncfrag="), [3, 3]);
    for times in came.values().filter(|times| times.len() > 1) {
        for pair in times.windows(2) {
            let apart = pair[1] - pair[0];
            assert!(
                apart > Duration::from_millis(400) && apart < Duration::from_secs(2),
                "{apart:?}"
            );
        }
        assert!(times[times.len() - 1] - times[0] < Duration::from_secs(5));
    }
    let status = agent.wait(PATIENCE, |status| status.targets[0].account.queued == 0);
    let account = &status.targets[0].account;
    assert_eq!(account.seen, account.sent, "copies are no records");
    let _ = agent.stop();
}

/// Whoever writes a panic's text proves nothing.
#[test]
fn text_raises_no_alarm() {
    if !root_or_skip("text_raises_no_alarm") {
        return;
    }
    let pair = Pair::new();
    let _unlimited = Unlimited::new();
    let peer = Peer::start(&pair.right, PORT);
    let target = "[target.peer]\nremote = \"192.0.2.2:6666\"\n";
    let mut agent = Agent::start(&pair.left, "", target, 1);
    let forged = [
        "<0>Kernel panic - not syncing: forged\n",
        "<0>BUG: unable to handle page fault for address: 0\n",
        "<0>---[ end Kernel panic - not syncing: forged ]---\n",
    ];
    kmsg::write(&forged.map(|line| line.as_bytes().to_vec()), 0);
    let last = kmsg::mark();
    let status = agent.wait(PATIENCE, |status| {
        let account = &status.targets[0].account;
        account.next_seq - account.queued > last
    });
    assert_eq!((status.last_words.held, status.last_words.spoken), (0, 0));
    assert_eq!(status.last_words.targets, 1);
    let _ = agent.stop();
    peer.settle(QUIET);
    let came = peer.finish();
    let forged =
        came.iter().filter(|datagram| String::from_utf8_lossy(datagram).contains("forged"));
    assert_eq!(forged.count(), 2, "each once");
}

/// `receive --netoops` in the right namespace; killed on drop.
struct Collector(Child);

impl Collector {
    fn start(namespace: &Namespace, folder: &std::path::Path) -> Self {
        let child = Command::new("nsenter")
            .arg(format!("--net=/run/netns/{}", namespace.name()))
            .arg(binary())
            .args(["receive", "--netoops", "--count", "1", "--for", "20s", "--dir"])
            .arg(folder)
            .stdout(Stdio::piped())
            .spawn()
            .expect("start the collector");
        let pid = child.id();
        let begin = Instant::now();
        let listens = || {
            ["udp", "udp6"].iter().any(|table| {
                std::fs::read_to_string(format!("/proc/{pid}/net/{table}"))
                    .is_ok_and(|table| table.contains(":07D4 "))
            })
        };
        while !listens() {
            assert!(begin.elapsed() < PATIENCE, "it does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
        Self(child)
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A dump that is asked for holds the newest lines, whichever way it goes and whatever the source.
#[test]
fn a_dump_holds_the_end_of_the_log() {
    if !root_or_skip("a_dump_holds_the_end_of_the_log") {
        return;
    }
    for (capture, egress) in [("tracepoint", "xdp"), ("kmsg", "udp")] {
        let pair = Pair::new();
        let _unlimited = Unlimited::new();
        let folder = tempfile::tempdir().expect("a folder");
        let mut collector = Collector::start(&pair.right, folder.path());
        let target = format!(
            "[target.peer]\nremote = \"192.0.2.2:6666\"\negress = {egress:?}\ndump = \"netoops\"\n"
        );
        let table = format!("capture = {capture:?}\n");
        let mut agent = Agent::start(&pair.left, &table, &target, 1);
        // More than a dump holds, slowly enough for /dev/kmsg.
        kmsg::write(&lines(&format!("dumped {}", "y".repeat(200)), 400), 4000);
        let last = kmsg::mark();
        let status = agent.wait(PATIENCE, |status| {
            let account = &status.targets[0].account;
            account.next_seq - account.queued > last
        });
        assert_eq!(status.last_words.dumps, 0);
        let said = agent.command(&["dump"]);
        assert!(said.starts_with("packets sent: 1"), "{said}");
        let end = collector.0.wait().expect("its end");
        assert!(end.success(), "{end}");
        let files: Vec<_> = std::fs::read_dir(folder.path())
            .expect("the folder")
            .map(|entry| entry.expect("a file").path())
            .collect();
        let [file] = &files[..] else { panic!("{files:?}") };
        assert!(file.to_string_lossy().contains("soft"), "{file:?}");
        let text = std::fs::read_to_string(file).expect("the dump");
        let numbers: Vec<usize> = text
            .lines()
            .filter(|line| line.contains("dumped y"))
            .map(|line| line.rsplit(' ').next().expect("a number").parse().expect("a number"))
            .collect();
        let count = numbers.len();
        assert!((200..400).contains(&count), "{count}");
        assert_eq!(numbers, (400 - count..400).collect::<Vec<_>>(), "{capture}");
        // Others may log as well.
        let at = |text: &str, what: &str| text.rfind(what).expect("it is there");
        assert!(at(&text, "agent-tests mark") > at(&text, "dumped y"), "{capture}");
        assert_eq!(agent.status().last_words.dumps, 1);
        // Nobody who wants one.
        agent.rewrite("[target.peer]\nremote = \"192.0.2.2:6666\"\n");
        agent.command(&["reload"]);
        let refused = agent.try_command(&["dump"]).expect_err("nobody wants it");
        assert!(refused.contains("dump = \"netoops\""), "{refused}");
        let _ = agent.stop();
    }
}
