//! The data threads are quiet in steady state: the pump and the `/dev/kmsg` thread
//! allocate and free nothing, and make no system call but those that are theirs.
//!
//! Allocations are counted in this process, around the library's own pump;
//! system calls are those of a running agent, as strace sees them.
#![allow(unsafe_code, reason = "an allocator that counts is an unsafe trait")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Read as _},
    net::SocketAddr,
    process::{Child, Command as Process, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use agent_tests::{
    agent::Agent,
    kmsg::{Unlimited, mark, seq_of, write},
    netns::{LEFT_MAC, LEFT_V4, MTU_BYTES, Pair, RIGHT_MAC, RIGHT_V4, xdp_or_skip},
    peer::{Peer, join_fragments},
    speech,
};
use arc_swap::ArcSwap;
use netconsole_agent::{
    capture::{self, Capture, Choice, Replay, SourceKind, wait::now_ns, wake::Waker},
    egress::{Egress, packet, pcap, udp, xdp},
    frame::{FrameAddresses, HeaderTemplate},
    handover::{ControlEnd, handover},
    ledger::{Ledger, SharedLedger},
    netconsole::{Format, SysdataKey, format::userdata},
    pump::{Command, Pump, PumpParts, PumpStats, PumpTarget, Returned, TargetSeed},
    record::{Context, Record},
    store::Store,
    target::{
        Route, TargetSettings,
        filter::{
            Decision, Filter, FilterSpec, NOTICE_MAX_BYTES,
            spec::{Action, Rate, Rule, TextMatch},
        },
    },
};
use rustix::{
    process::{Pid, Signal, kill_process},
    system::uname,
};

const PATIENCE: Duration = Duration::from_secs(30);

/// What one thread asked of the allocator.
#[derive(Debug, Default)]
struct Count {
    allocated: AtomicU64,
    freed: AtomicU64,
}

impl Count {
    /// A counter that outlives every thread.
    fn new() -> &'static Self {
        Box::leak(Box::default())
    }

    /// Allocations and deallocations so far.
    fn read(&self) -> (u64, u64) {
        (self.allocated.load(Ordering::SeqCst), self.freed.load(Ordering::SeqCst))
    }
}

thread_local! {
    /// The counter of this thread; without one nothing is counted.
    static COUNT: Cell<Option<&'static Count>> = const { Cell::new(None) };
}

/// Counts on this thread from now on.
fn count_here(count: &'static Count) {
    COUNT.set(Some(count));
}

struct Counting;

impl Counting {
    fn allocated(&self) {
        // A thread that is ending has no counter any more.
        if let Ok(Some(count)) = COUNT.try_with(Cell::get) {
            count.allocated.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn freed(&self) {
        if let Ok(Some(count)) = COUNT.try_with(Cell::get) {
            count.freed.fetch_add(1, Ordering::SeqCst);
        }
    }
}

// SAFETY: every call is the system allocator's; counting touches a `Cell` without
// a destructor and an atomic, neither of which allocates.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.allocated();
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        self.freed();
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        self.allocated();
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        self.allocated();
        self.freed();
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Says on standard output that the test is skipped; under `CI=true` it fails.
fn skip(test: &str, reason: &str) {
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{test}: {reason}");
    println!("SKIPPED: {test}: {reason}");
}

#[test]
fn the_counter_counts() {
    let count = Count::new();
    std::thread::spawn(move || {
        count_here(count);
        let mut grows = Vec::with_capacity(1);
        grows.push(1u64);
        assert_eq!(std::hint::black_box(&grows).len(), 1);
        assert_eq!(count.read(), (1, 0));
        grows.push(2);
        assert_eq!(std::hint::black_box(&grows).len(), 2);
        assert_eq!(count.read(), (2, 1));
        drop(grows);
        assert_eq!(count.read(), (2, 2));
        // Another thread's work is not counted here.
        COUNT.set(None);
        drop(std::hint::black_box(Box::new(1)));
        assert_eq!(count.read(), (2, 2));
    })
    .join()
    .expect("the counting thread");
}

/// Every kind of condition and action, rates that are used up, and their notices.
#[test]
fn a_filter_allocates_nothing() {
    let any = Rule {
        text: None,
        subsystem: None,
        device: None,
        task: None,
        cgroup: None,
        cpus: Vec::new(),
        action: Action::Drop,
    };
    let glob = |text: &str| Some(text.to_owned());
    let rate = Rate { count: 2, period: Duration::from_millis(10) };
    let spec = FilterSpec {
        max_level: 6,
        facilities: Some(vec![0, 1]),
        rules: vec![
            Rule { text: Some(TextMatch::Contains("drop me".to_owned())), ..any.clone() },
            Rule { text: Some(TextMatch::Regex(r"(?i)x\d+.*y$".to_owned())), ..any.clone() },
            Rule { subsystem: glob("n*t"), device: glob("+pci:*"), ..any.clone() },
            Rule { task: glob("k?oisy"), cpus: vec![1], ..any.clone() },
            Rule { cgroup: glob("/a/**/*.scope"), action: Action::Send, ..any.clone() },
            Rule { cpus: vec![2], action: Action::Rate(rate), ..any },
        ],
        rate: Some(Rate { count: 3, ..rate }),
    };
    let filter = Filter::compile(spec).expect("the filter");
    let count = Count::new();
    std::thread::spawn(move || {
        count_here(count);
        let texts: [&[u8]; 5] =
            [b"drop me", b"X12 abc y", b"BUG: bad\nCall Trace:", &[0xff; 1024], b""];
        let paths = [None, Some(&b"/a/b/c.scope"[..]), Some(b"/x")];
        let (mut sent, mut left_out, mut suppressed, mut said) = (0, 0, 0, 0);
        for i in 0..100_000u64 {
            // Coprime, so that all meet.
            let [text, path, level, cpu, known] = [5, 3, 7, 4, 11].map(|n| (i % n) as usize);
            let context =
                Context { cpu: cpu as u32, pid: 1, task: b"knoisy", cgroup_id: 1, cgroup: b"x" };
            let record = Record {
                seq: i,
                ts_ns: i * 100_000,
                facility: 0,
                level: level as u8,
                cont: false,
                caller: None,
                text: texts[text],
                subsystem: b"net",
                device: b"n2",
                context: (known > 1).then_some(context),
                approximated: known == 0,
                backfilled: false,
            };
            match filter.decide(&record, paths[path], i * 100_000) {
                Decision::Send => sent += 1,
                Decision::Filter => left_out += 1,
            }
            if filter.notice_due_ns().is_some_and(|due_ns| due_ns <= i * 100_000) {
                while let Some(notice) = filter.take_notice(i * 100_000) {
                    let mut buffer = [0; NOTICE_MAX_BYTES];
                    said += notice.write(&mut buffer).len();
                    suppressed += notice.suppressed;
                }
            }
        }
        assert_eq!(count.read(), (0, 0));
        assert!(sent > 1000 && left_out > 1000 && suppressed > 1000 && said > 1000);
    })
    .join()
    .expect("the counting thread");
}

const LEVEL_ERR: u8 = 3;
const LEVEL_DEBUG: u8 = 7;

/// One way out with a target on it.
struct Lane {
    name: &'static str,
    socket: usize,
    /// Of the peer's socket, if the way ends there.
    port: Option<u16>,
    format: Format,
    max_level: u8,
}

/// Every kind of way out; fragments, a filter, extra data and the basic format.
fn lanes(release: &[u8]) -> Vec<Lane> {
    let lane =
        |name, socket, port, format| Lane { name, socket, port, format, max_level: LEVEL_DEBUG };
    let mut rich = Format::extended(release);
    rich.release_prefix = true;
    rich.sysdata = SysdataKey::ALL[..4].iter().copied().collect();
    rich.userdata = userdata([("rack", "r12"), ("note", "steady")]).expect("userdata");
    vec![
        lane("xdp", 0, Some(7000), Format::extended(release)),
        Lane {
            max_level: LEVEL_ERR,
            ..lane("xdp filtered", 0, Some(7001), Format::extended(release))
        },
        lane("packet rich", 1, Some(7002), rich),
        lane("udp basic", 2, Some(7003), Format::basic(release)),
        lane("pcap", 3, None, Format::extended(release)),
    ]
}

/// The sockets of [`lanes`] that belong to the device, by their places.
fn device_sockets(pair: &Pair) -> [Box<dyn Egress>; 2] {
    let ifindex = pair.left.ifindex("left0");
    pair.left.run(|| {
        [
            xdp::open(&xdp::XdpOptions::new(ifindex, "left0")).expect("AF_XDP"),
            packet::open(&packet::PacketOptions::new(ifindex, "left0")).expect("AF_PACKET"),
        ]
    })
}

/// The sockets of [`lanes`], by their places.
fn sockets(pair: &Pair, pcap_path: &std::path::Path) -> Vec<Box<dyn Egress>> {
    let others = pair.left.run(|| {
        [
            udp::open(&udp::UdpOptions::new(SocketAddr::from((RIGHT_V4, 7003)))).expect("UDP"),
            pcap::open(&pcap::PcapOptions {
                path: pcap_path.to_owned(),
                stamps: pcap::PcapStamps::Nanoseconds,
            })
            .expect("a file"),
        ]
    });
    device_sockets(pair).into_iter().chain(others).collect()
}

fn header(port: u16) -> HeaderTemplate {
    HeaderTemplate::new(FrameAddresses {
        src_mac: LEFT_MAC,
        dst_mac: RIGHT_MAC,
        vlan: None,
        local: SocketAddr::from((LEFT_V4, 6665)),
        remote: SocketAddr::from((RIGHT_V4, port)),
    })
    .expect("a header")
}

/// The library's data threads on counted threads.
struct Running {
    control: ControlEnd<Command, Returned>,
    waker: Arc<Waker>,
    ledgers: Vec<Arc<SharedLedger>>,
    pump: (&'static Count, std::thread::JoinHandle<()>),
    kmsg: (&'static Count, std::thread::JoinHandle<()>),
    kmsg_stop: Arc<AtomicBool>,
    kmsg_waker: Arc<Waker>,
    first_seq: u64,
    /// Dropping them detaches the programs.
    _probes: Option<capture::bpf::Probes>,
}

impl Running {
    fn start(capture: Capture, lanes: &[Lane], sockets: Vec<Box<dyn Egress>>) -> Self {
        let (mut control, pump_end) = handover(sockets.len() + 2 * lanes.len() + 1);
        let ledgers: Vec<_> = lanes.iter().map(|_| Arc::new(SharedLedger::default())).collect();
        for (index, (lane, ledger)) in lanes.iter().zip(&ledgers).enumerate() {
            let target = PumpTarget::new(TargetSeed {
                settings: Arc::new(ArcSwap::from_pointee(TargetSettings {
                    name: lane.name.to_owned(),
                    format: lane.format.clone(),
                    filter: Arc::new(
                        Filter::compile(FilterSpec {
                            max_level: lane.max_level,
                            facilities: None,
                            rules: Vec::new(),
                            rate: None,
                        })
                        .expect("a filter"),
                    ),
                    names_cgroups: true,
                    copies: 1,
                    pace: None,
                })),
                ledger: Arc::clone(ledger),
                first_seq: None,
                checkpoint: None,
            });
            assert!(control.send(Command::Add { index, target }, 1).is_ok());
        }
        let mut pump = Pump::new(PumpParts {
            ring: capture.ring,
            doorbell: capture.doorbell,
            kmsg: capture.kmsg,
            backfill: capture.backfill,
            waker: Arc::clone(&capture.pump_waker),
            sequencer: capture.sequencer,
            store: Store::new(16 << 20, capture.begin.first_seq),
            handover: pump_end,
            cgroups: Arc::default(),
            unnamed: rtrb::RingBuffer::new(64).0,
            stats: Arc::new(PumpStats::default()),
            last_words: capture.last_words.map(speech::for_the_pump),
        })
        .expect("a pump");
        let counted = |run: Box<dyn FnOnce() + Send>| {
            let count = Count::new();
            let thread = std::thread::spawn(move || {
                count_here(count);
                run();
                // What the threads are made of is freed at their end.
                COUNT.set(None);
            });
            (count, thread)
        };
        let kmsg_thread = capture.kmsg_thread;
        let mut running = Self {
            control,
            waker: capture.pump_waker,
            ledgers,
            pump: counted(Box::new(move || pump.run())),
            kmsg: counted(Box::new(move || kmsg_thread.run().expect("the wait"))),
            kmsg_stop: capture.kmsg_stop,
            kmsg_waker: capture.kmsg_waker,
            first_seq: capture.begin.first_seq,
            _probes: capture.probes,
        };
        for (index, egress) in sockets.into_iter().enumerate() {
            running.send(Command::Install { index, egress }, 1);
        }
        for (target, lane) in lanes.iter().enumerate() {
            running.bind(target, lane);
        }
        running
    }

    fn bind(&mut self, target: usize, lane: &Lane) {
        // UDP makes its own headers; the pcap file takes any.
        let header = (lane.socket != 2).then(|| header(lane.port.unwrap_or(7999)));
        let route = Box::new(Route {
            egress: lane.socket,
            header,
            mtu_bytes: MTU_BYTES,
            nic: Box::default(),
        });
        self.send(Command::Bind { target, route }, 1);
    }

    /// Replaces the sockets of the device, which is down, by new ones, and takes the
    /// targets on them off and on again.
    fn replace_sockets(&mut self, pair: &Pair, lanes: &[Lane]) {
        let queued = |target: &usize| self.ledgers[*target].read().in_flight > 0;
        wait_until("records queue up", || [0, 1, 2].iter().all(queued));
        (0..3).for_each(|target| self.send(Command::Unbind { target }, 0));
        (0..2).for_each(|index| self.send(Command::Retire { index }, 0));
        let mut closed = 0;
        wait_until("the sockets come back", || {
            let back = std::iter::from_fn(|| self.control.take_back());
            closed += back.filter(|back| matches!(back, Returned::Egress { .. })).count();
            closed == 2
        });
        for (index, egress) in device_sockets(pair).into_iter().enumerate() {
            self.send(Command::Install { index, egress }, 1);
        }
        (0..3).for_each(|target| self.bind(target, &lanes[target]));
    }

    fn send(&mut self, command: Command, boxes: usize) {
        assert!(self.control.send(command, boxes).is_ok(), "the pump takes no command");
        self.waker.wake();
    }

    fn counts(&self) -> [(u64, u64); 2] {
        [self.pump.0.read(), self.kmsg.0.read()]
    }

    /// Waits until every target has passed what was logged before.
    fn catch_up(&self) {
        let (mark, begin) = (mark(), Instant::now());
        loop {
            let read: Vec<_> = self.ledgers.iter().map(|ledger| ledger.read()).collect();
            if read.iter().all(|ledger| ledger.next_seq - ledger.queued() > mark) {
                return;
            }
            assert!(begin.elapsed() < PATIENCE, "{mark} is not passed in time: {read:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends the threads and returns the final accounts.
    fn stop(mut self) -> Vec<Ledger> {
        self.send(Command::Stop { deadline_ns: now_ns() + 2_000_000_000 }, 0);
        self.pump.1.join().expect("the pump");
        self.kmsg_stop.store(true, Ordering::Release);
        self.kmsg_waker.wake();
        self.kmsg.1.join().expect("the /dev/kmsg thread");
        self.ledgers.iter().map(|ledger| ledger.read()).collect()
    }
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !done() {
        assert!(begin.elapsed() < PATIENCE, "{what}: not in time");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Every tenth text is so long, and escapes to so much, that it is sent in fragments.
fn records(first: usize, count: usize) -> Vec<Vec<u8>> {
    (first..first + count)
        .map(|number| {
            let long = if number % 10 == 0 { "\\\u{1}fragment".repeat(80) } else { String::new() };
            format!("<{}>quiet {number:06} {long}\n", number % 8).into_bytes()
        })
        .collect()
}

/// The numbers of the test's own records in what arrived, and datagrams in fragments.
fn numbers(datagrams: &[Vec<u8>]) -> (BTreeMap<usize, u32>, usize) {
    let mut seen = BTreeMap::new();
    for datagram in datagrams {
        let text = String::from_utf8_lossy(datagram);
        // Fragments that do not begin the text have no number, and count as none.
        let Some((_, rest)) = text.split_once("quiet ") else { continue };
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        *seen.entry(digits.parse().expect("a number")).or_default() += 1;
    }
    (seen, datagrams.iter().filter(|datagram| contains(datagram, b",ncfrag=")).count())
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// The source, if this kernel has it.
fn open_source(kind: SourceKind) -> Result<Capture, String> {
    capture::open(Choice::Only(kind), 8 << 20, Replay::None, &[]).map_err(|error| error.to_string())
}

fn no_allocation(kind: SourceKind) {
    const WARM_UP: usize = 2_000;
    const PACED: usize = 15_000;
    const AT_ONCE: usize = 5_000;
    const WHILE_DOWN: usize = 60;
    let test = format!("no_allocation with {}", kind.name());
    if !xdp_or_skip(&test) {
        return;
    }
    let pair = Pair::new();
    let _unlimited = Unlimited::new();
    let capture = match open_source(kind) {
        Ok(capture) => capture,
        Err(reason) => return skip(&test, &reason),
    };
    let folder = tempfile::tempdir().expect("a folder");
    let pcap_path = folder.path().join("quiet.pcap");
    let lanes = lanes(uname().release().to_bytes());
    let peers: Vec<_> =
        lanes.iter().map(|lane| lane.port.map(|port| Peer::start(&pair.right, port))).collect();
    let mut running = Running::start(capture, &lanes, sockets(&pair, &pcap_path));

    write(&records(0, WARM_UP), 2_000);
    running.catch_up();
    let before = running.counts();
    write(&records(WARM_UP, PACED), 5_000);
    running.catch_up();
    let paced = running.counts();
    // As fast as it goes: the threads change from being rung to napping.
    write(&records(WARM_UP + PACED, AT_ONCE), 0);
    running.catch_up();
    let at_once = running.counts();
    // What sockets that are retired give back is sent again by new ones.
    pair.left.ip("link set left0 down");
    write(&records(WARM_UP + PACED + AT_ONCE, WHILE_DOWN), 2_000);
    running.replace_sockets(&pair, &lanes);
    pair.left.ip("link set left0 up");
    running.catch_up();
    let healed = running.counts();
    let first_seq = running.first_seq;
    let total = WARM_UP + PACED + AT_ONCE + WHILE_DOWN;
    let ledgers = running.stop();

    assert_eq!(paced, before, "{test}: (allocated, freed) by pump and kmsg, paced");
    assert_eq!(at_once, before, "{test}: (allocated, freed) by pump and kmsg, at once");
    assert_eq!(healed, before, "{test}: (allocated, freed) by pump and kmsg, sockets replaced");

    for ((lane, peer), ledger) in lanes.iter().zip(peers).zip(&ledgers) {
        assert!(ledger.balances(), "{}: {ledger:?}", lane.name);
        assert_eq!(ledger.queued(), 0, "{}: {ledger:?}", lane.name);
        // Only /dev/kmsg alone may miss records of a storm.
        let lost = ledger.lost_total();
        assert!(lost == 0 || kind == SourceKind::Kmsg, "{}: {ledger:?}", lane.name);
        let datagrams = match peer {
            Some(peer) => {
                peer.settle(Duration::from_millis(200));
                peer.finish()
            }
            None => pcap_payloads(&std::fs::read(&pcap_path).expect("the pcap file")),
        };
        if lane.socket < 2 {
            // What came back was handed over twice.
            assert!(ledger.packets > datagrams.len() as u64, "{}: {ledger:?}", lane.name);
        } else {
            assert_eq!(datagrams.len() as u64, ledger.packets, "{}", lane.name);
        }
        let (seen, fragments) = numbers(&datagrams);
        assert!(seen.values().all(|times| *times == 1), "{}: twice", lane.name);
        let wanted = (0..total).filter(|number| number % 8 <= usize::from(lane.max_level));
        let missing = wanted.filter(|number| !seen.contains_key(number)).count();
        assert!(missing as u64 <= lost, "{}: {missing} records are missing: {ledger:?}", lane.name);
        if lane.max_level == LEVEL_ERR {
            assert!(ledger.filtered > 1_000, "{}: {ledger:?}", lane.name);
        }
        if lane.name == "xdp" {
            assert!(fragments > total / 10, "{fragments} fragments");
            let messages = join_fragments(&datagrams);
            assert_eq!(messages.len() as u64, ledger.sent);
            if kind != SourceKind::Kmsg {
                let seqs: Vec<_> = messages.iter().map(|message| seq_of(message)).collect();
                let wanted: Vec<_> = (first_seq..first_seq + ledger.seen()).collect();
                assert!(seqs == wanted, "each seq once and in order");
            }
        }
    }
}

/// UDP payloads of the frames of a pcap file.
fn pcap_payloads(file: &[u8]) -> Vec<Vec<u8>> {
    let mut rest = &file[24..];
    let mut payloads = Vec::new();
    while let Some((head, behind)) = rest.split_at_checked(16) {
        let len_bytes = u32::from_le_bytes(head[8..12].try_into().expect("four bytes")) as usize;
        payloads.push(behind[14 + 20 + 8..len_bytes].to_vec());
        rest = &behind[len_bytes..];
    }
    payloads
}

#[test]
fn the_tracepoint_source_allocates_nothing() {
    no_allocation(SourceKind::Tracepoint);
}

#[test]
fn the_kmsg_source_allocates_nothing() {
    no_allocation(SourceKind::Kmsg);
}

#[test]
fn the_commit_source_allocates_nothing() {
    // Not every kernel lets programs look at functions; that is no failure.
    if rustix::process::geteuid().is_root()
        && let Err(reason) = open_source(SourceKind::Commit)
    {
        println!("SKIPPED: the_commit_source_allocates_nothing: {reason}");
        return;
    }
    no_allocation(SourceKind::Commit);
}

/// strace on one thread.
struct Strace {
    child: Child,
    out: tempfile::NamedTempFile,
}

impl Strace {
    /// Attaches; the error says why that is not possible here.
    fn attach(thread: u32) -> Result<Self, String> {
        let out = tempfile::NamedTempFile::new().expect("a file");
        let mut child = Process::new("strace")
            .args(["-p", &thread.to_string(), "-o"])
            .arg(out.path())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("strace cannot be started ({error}); install strace"))?;
        let mut stderr = BufReader::new(child.stderr.take().expect("strace's messages"));
        let mut said = String::new();
        // It says that it is attached, or ends.
        while !said.contains(" attached") {
            if stderr.read_line(&mut said).expect("strace's messages") == 0 {
                let _ = child.wait();
                return Err(format!("strace cannot attach: {}", said.trim()));
            }
        }
        std::thread::spawn(move || {
            let _ = stderr.read_to_string(&mut String::new());
        });
        Ok(Self { child, out })
    }

    /// Detaches; the system calls in their order, as strace shows them.
    fn finish(mut self) -> Vec<String> {
        let pid = Pid::from_raw(self.child.id() as i32).expect("a process id");
        kill_process(pid, Signal::INT).expect("SIGINT");
        self.child.wait().expect("strace ends");
        let text = std::fs::read_to_string(self.out.path()).expect("strace's output");
        // Neither signals, ends, nor the second half of a call.
        let is_call = |line: &&str| !line.starts_with(['-', '+', '<']) && line.contains('(');
        text.lines().filter(is_call).map(str::to_owned).collect()
    }
}

/// The name of a call as strace shows it.
fn name_of(call: &str) -> &str {
    call.split('(').next().unwrap_or(call).trim()
}

/// How often each call was made.
fn counts(calls: &[String]) -> BTreeMap<&str, u32> {
    calls.iter().fold(BTreeMap::new(), |mut counts, call| {
        *counts.entry(name_of(call)).or_default() += 1;
        counts
    })
}

/// The thread of that name.
fn thread_of(pid: u32, name: &str) -> u32 {
    std::fs::read_dir(format!("/proc/{pid}/task"))
        .expect("the threads")
        .map(|entry| entry.expect("a thread").path())
        .find(|path| {
            std::fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm.trim() == name)
        })
        .and_then(|path| path.file_name()?.to_str()?.parse().ok())
        .unwrap_or_else(|| panic!("no thread {name}"))
}

#[test]
fn the_data_threads_make_only_their_own_system_calls() {
    let test = "the_data_threads_make_only_their_own_system_calls";
    const PER_SECOND: u64 = 500;
    if !xdp_or_skip(test) {
        return;
    }
    let pair = Pair::new();
    let _unlimited = Unlimited::new();
    let peer = Peer::start(&pair.right, 6666);
    let _other = Peer::start(&pair.right, 6667);
    let targets = "[target.all]\nremote = \"192.0.2.2:6666\"\negress = \"xdp\"\n\
                   [target.some]\nremote = \"192.0.2.2:6667\"\negress = \"xdp\"\nmax_level = \"err\"\n";
    let mut agent = Agent::start(&pair.left, "capture = \"tracepoint\"", targets, 2);
    write(&records(0, 200), PER_SECOND);
    let pump = Strace::attach(thread_of(agent.pid(), "pump"));
    let kmsg = Strace::attach(thread_of(agent.pid(), "kmsg"));
    let (pump, kmsg) = match (pump, kmsg) {
        (Ok(pump), Ok(kmsg)) => (pump, kmsg),
        (Err(reason), _) | (_, Err(reason)) => return skip(test, &reason),
    };
    write(&records(200, 1_000), PER_SECOND);
    // And without load.
    std::thread::sleep(Duration::from_millis(300));
    let (pump_calls, kmsg_calls) = (pump.finish(), kmsg.finish());
    let (pump, kmsg) = (counts(&pump_calls), counts(&kmsg_calls));
    println!("pump: {pump:?}\nkmsg: {kmsg:?}");
    let mark = mark();
    let status = agent.wait(PATIENCE, |status| {
        let account = &status.targets[0].account;
        account.next_seq - account.queued > mark
    });
    let _ = agent.stop();
    let (seen, _) = numbers(&peer.finish());
    assert_eq!(seen.len(), 1_200, "{}", status.to_text());

    // restart_syscall is the wait that the attaching interrupted. Its older
    // relatives are not allowed: they take whole milliseconds, and the data threads
    // nap for less.
    let is_wait = |name: &str| matches!(name, "epoll_pwait2" | "restart_syscall");
    let is_kick = |name: &str| matches!(name, "sendto" | "sendmsg");
    // On a host that stands still for longer than a look takes, the pump finds by its look what the
    // thread of /dev/kmsg has not been woken for yet, and wakes it: only then, and so rarely that it
    // is not how they work together.
    for (before, call) in pump_calls.iter().zip(&pump_calls[1..]) {
        let after_a_look = is_wait(name_of(before)) && before.ends_with(" = 0");
        assert!(name_of(call) != "write" || after_a_look, "{before}\n{call}");
    }
    let looks_that_woke = pump.get("write").copied().unwrap_or(0);
    assert!(looks_that_woke <= pump["epoll_pwait2"] / 20, "{pump:?}");
    for (thread, calls) in [("pump", &pump), ("kmsg", &kmsg)] {
        for &name in calls.keys() {
            let allowed = is_wait(name)
                || if thread == "pump" {
                    is_kick(name) || name == "write"
                } else {
                    matches!(name, "read" | "write")
                };
            assert!(allowed, "{thread} calls {name}: {calls:?}");
        }
        assert!(calls.contains_key("epoll_pwait2"), "{thread}: {calls:?}");
    }
    assert!(pump.keys().any(|name| is_kick(name)), "{pump:?}");
    assert!(kmsg.contains_key("read"), "{kmsg:?}");
}
