//! The agent as a service: its privileges, its end, targets that cannot send, the
//! control socket under abuse, and every way out, each with the real binary.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Shutdown, UdpSocket},
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use agent_tests::{
    agent::{Agent, binary},
    kmsg::{Reader, Unlimited, mark, seq_of, write},
    netns::{Namespace, Pair, root_or_skip, xdp_or_skip as ready},
    peer::{Peer, join_fragments},
};
use netconsole_agent::{
    control::{
        protocol::Request,
        socket::ask,
        status::{Account, Status, TargetStatus},
    },
    privileges::KEPT,
};
use rustix::{
    net::sockopt::set_socket_recv_buffer_size_force,
    process::{Pid, Signal, kill_process},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    system::uname,
};

const PATIENCE: Duration = Duration::from_secs(20);
/// Capabilities are missing (sysexits.h).
const EX_NOPERM: i32 = 77;
const QUIET: Duration = Duration::from_millis(300);
const XDP_TARGET: &str =
    "[target.peer]\nremote = \"192.0.2.2:6666\"\negress = \"xdp\"\npace = \"off\"\n";

/// Records whose texts are `word 0`, `word 1`, and so on, of level 6.
fn numbered(word: &str, count: usize) -> Vec<Vec<u8>> {
    (0..count).map(|number| format!("<6>{word} {number}.\n").into_bytes()).collect()
}

/// The numbers of `word` in what arrived, each checked to have arrived once.
fn numbers(word: &str, datagrams: &[Vec<u8>]) -> BTreeSet<usize> {
    let mut seen = BTreeSet::new();
    for datagram in datagrams {
        let text = String::from_utf8_lossy(datagram);
        let Some((_, rest)) = text.split_once(&format!("{word} ")) else { continue };
        let Some((digits, _)) = rest.split_once('.') else { continue };
        let number = digits.parse().expect("a number");
        assert!(seen.insert(number), "{word} {number} arrived twice");
    }
    seen
}

fn target<'a>(status: &'a Status, name: &str) -> &'a TargetStatus {
    status.targets.iter().find(|target| target.name == name).expect("the target")
}

/// Whether everything up to a seq has its fate.
fn is_past(account: &Account, seq: u64) -> bool {
    account.next_seq - account.queued > seq
}

/// Waits until every target that sends is done with what was logged before.
fn catch_up(agent: &mut Agent) -> Status {
    let mark = mark();
    agent.wait(PATIENCE, |status| {
        let mut sending = status.targets.iter().filter(|target| target.state == "active");
        sending.all(|target| is_past(&target.account, mark))
    })
}

/// Runs the command line.
fn command(arguments: &[&str], socket: &Path) -> (i32, String, String) {
    let output = Command::new(binary())
        .args(arguments)
        .arg("--socket")
        .arg(socket)
        .output()
        .expect("run the command");
    (
        output.status.code().expect("an exit code"),
        String::from_utf8(output.stdout).expect("UTF-8"),
        String::from_utf8(output.stderr).expect("UTF-8"),
    )
}

/// A socket of the right namespace that takes what comes to any of its addresses.
struct Mailbox(UdpSocket);

impl Mailbox {
    fn open(namespace: &Namespace, address: &str) -> Self {
        let socket = namespace.run(|| UdpSocket::bind(address).expect("bind"));
        set_socket_recv_buffer_size_force(&socket, 512 << 20).expect("a large receive buffer");
        socket.set_read_timeout(Some(QUIET)).expect("a timeout");
        Self(socket)
    }

    /// What has come, until nothing more comes.
    fn empty(&self) -> Vec<Vec<u8>> {
        let mut buffer = [0; 2048];
        let mut datagrams = Vec::new();
        while let Ok(length) = self.0.recv(&mut buffer) {
            datagrams.push(buffer[..length].to_vec());
        }
        datagrams
    }
}

/// The lines of /proc/PID/task/*/status that begin with one of `keys`, per thread.
fn thread_states(pid: u32, keys: &[&str]) -> BTreeMap<String, BTreeMap<String, String>> {
    std::fs::read_dir(format!("/proc/{pid}/task"))
        .expect("the threads")
        .map(|entry| {
            let path = entry.expect("a thread").path().join("status");
            let text = std::fs::read_to_string(path).expect("its status");
            let lines: BTreeMap<_, _> = text
                .lines()
                .filter_map(|line| line.split_once(":\t"))
                .map(|(key, value)| (key.to_owned(), value.trim().to_owned()))
                .collect();
            let name = lines["Name"].clone();
            let kept = lines.into_iter().filter(|(key, _)| keys.contains(&key.as_str())).collect();
            (name, kept)
        })
        .collect()
}

#[test]
fn only_three_capabilities_are_left_and_it_still_works() {
    if !ready("only_three_capabilities_are_left_and_it_still_works") {
        return;
    }
    let pair = Pair::new();
    let _unlimited = Unlimited::new();
    let peer = Peer::start(&pair.right, 6666);
    let mut agent = Agent::start(&pair.left, "capture = \"tracepoint\"", XDP_TARGET, 1);
    let kept = KEPT.iter().fold(0u64, |set, capability| set | 1 << capability.index());
    let threads = thread_states(
        agent.pid(),
        &["CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb", "NoNewPrivs"],
    );
    for name in ["pump", "kmsg"] {
        assert!(threads.contains_key(name), "{threads:?}");
    }
    assert!(threads.len() >= 3, "{threads:?}");
    for (name, state) in &threads {
        let set = |key: &str| u64::from_str_radix(&state[key], 16).expect("a set");
        assert_eq!((set("CapEff"), set("CapPrm")), (kept, kept), "{name}: {state:?}");
        assert_eq!((set("CapInh"), set("CapAmb")), (0, 0), "{name}: {state:?}");
        assert_eq!(set("CapBnd") & !kept, 0, "{name}: {state:?}");
        assert_eq!(state["NoNewPrivs"], "1", "{name}: {state:?}");
    }

    write(&numbered("before", 50), 500);
    let status = catch_up(&mut agent);
    // The programs' counters are read through the bpf system call.
    assert!(status.capture.captured >= 50, "{}", status.to_text());
    for name in [&["target", "resolve", "peer"][..], &["target", "resolve"]] {
        let (code, _, said) = command(name, &agent.socket());
        assert_eq!(code, 0, "{said}\n{}", agent.log());
    }
    let (code, _, said) = command(&["target", "resolve", "nobody"], &agent.socket());
    assert_eq!(code, 1);
    assert!(said.contains("there is no target \"nobody\""), "{said}");
    let (code, text, _) = command(&["status"], &agent.socket());
    assert_eq!(code, 0);
    let line = text.lines().find(|line| line.starts_with("peer ")).expect("the target's line");
    let words: Vec<_> = line.split_whitespace().take(5).collect();
    assert_eq!(
        words,
        ["peer", "active", "192.0.2.2:6666", "left0/0/xdp", "02:00:00:00:00:02"],
        "{text}"
    );
    let (code, text, _) = command(&["status", "--verbose"], &agent.socket());
    assert_eq!(code, 0);
    assert!(text.contains("target peer: active -> 192.0.2.2:6666 (extended)"), "{text}");
    let (code, json, _) = command(&["status", "--json"], &agent.socket());
    assert_eq!(code, 0);
    let parsed: Status = serde_json::from_str(&json).expect("JSON");
    assert_eq!(parsed.pid, agent.pid());

    write(&numbered("after", 50), 500);
    catch_up(&mut agent);
    let _ = agent.stop();
    peer.settle(QUIET);
    let datagrams = peer.finish();
    assert_eq!(numbers("before", &datagrams).len(), 50);
    assert_eq!(numbers("after", &datagrams).len(), 50);
}

/// Parts of `seen 3 = sent 1 + filtered 1 + lost 1 + queued 0`.
fn final_account(log: &str, name: &str) -> [u64; 5] {
    let line = log
        .lines()
        .find(|line| line.contains("final account") && line.contains(&format!("{name:?}")))
        .unwrap_or_else(|| panic!("no final account of {name}:\n{log}"));
    assert!(!line.contains("NOT BALANCE"), "{line}");
    let words: Vec<_> =
        line.split(['"', ' ', ',', '=', '+']).filter(|word| !word.is_empty()).collect();
    ["seen", "sent", "filtered", "lost", "queued"].map(|part| {
        let at = words.iter().position(|word| *word == part).expect("the part");
        words[at + 1].parse().expect("a number")
    })
}

#[test]
fn told_to_stop_under_load_it_sends_what_is_there_and_balances() {
    if !ready("told_to_stop_under_load_it_sends_what_is_there_and_balances") {
        return;
    }
    const BEFORE: usize = 4_000;
    let pair = Pair::new();
    let _unlimited = Unlimited::new();
    let peer = Peer::start(&pair.right, 6666);
    let agent = Agent::start(&pair.left, "capture = \"tracepoint\"", XDP_TARGET, 1);
    let socket = agent.socket();
    assert!(socket.exists());
    let stop = AtomicBool::new(false);
    let log = std::thread::scope(|scope| {
        // Goes on while the agent ends.
        scope.spawn(|| {
            let mut round = 0;
            while !stop.load(Ordering::Acquire) {
                write(&numbered(&format!("load{round}"), 100), 2_000);
                round += 1;
            }
        });
        write(&numbered("before", BEFORE), 0);
        // `stop` fails unless the exit code is 0.
        let log = agent.stop();
        stop.store(true, Ordering::Release);
        log
    });
    peer.settle(QUIET);
    let datagrams = peer.finish();
    assert_eq!(numbers("before", &datagrams).len(), BEFORE, "{log}");
    let [seen, sent, filtered, lost, queued] = final_account(&log, "peer");
    assert_eq!(seen, sent + filtered + lost + queued, "{log}");
    assert_eq!((filtered, lost), (0, 0), "{log}");
    assert!(sent >= BEFORE as u64, "{log}");
    assert_eq!(datagrams.len() as u64, sent, "what is counted sent arrived:\n{log}");
    assert!(!socket.exists(), "the socket file is left behind");
}

#[test]
fn a_target_that_cannot_send_waits_quietly_and_heals_by_itself() {
    if !ready("a_target_that_cannot_send_waits_quietly_and_heals_by_itself") {
        return;
    }
    const RECORDS: usize = 600;
    let pair = Pair::new();
    let _unlimited = Unlimited::new();
    let good = Peer::start(&pair.right, 6666);
    let far = Mailbox::open(&pair.right, "0.0.0.0:6667");
    let silent = Mailbox::open(&pair.right, "0.0.0.0:6668");
    let targets = "[target.far]\nremote = \"198.51.100.1:6667\"\n\
                   [target.silent]\nremote = \"192.0.2.77:6668\"\n\
                   [target.good]\nremote = \"192.0.2.2:6666\"\n";
    // Room for what others log meanwhile.
    let agent_table = "capture = \"tracepoint\"\nstore = \"128MiB\"";
    let mut agent = Agent::start(&pair.left, agent_table, targets, 1);
    // Tried again after 1, 2 and 4 seconds in this time.
    write(&numbered("early", RECORDS), 50);
    let mark = mark();
    let status = agent.wait(PATIENCE, |status| is_past(&target(status, "good").account, mark));
    let log = agent.log();
    for (name, cause) in [("far", "route"), ("silent", "192.0.2.77")] {
        let waiting = target(&status, name);
        assert_eq!(waiting.state, "waiting");
        let reason = waiting.waiting_for.as_deref().expect("a reason");
        assert!(reason.contains(cause), "{reason}");
        assert!(status.to_text().contains(&format!("waiting: {reason}")));
        assert!(waiting.account.queued >= RECORDS as u64, "{}", waiting.account.line());
        assert_eq!((waiting.account.sent, waiting.account.lost_total()), (0, 0));
        assert!(waiting.account.balances);
        let complaints = log
            .lines()
            .filter(|line| line.contains("cannot send") && line.contains(&format!("{name:?}")));
        assert_eq!(complaints.count(), 1, "one line a minute, from the first on:\n{log}");
    }
    let healthy = &target(&status, "good").account;
    assert!(healthy.sent >= RECORDS as u64 && healthy.lost_total() == 0, "{}", healthy.line());

    pair.right.ip("addr add 192.0.2.77/24 dev right0");
    pair.right.ip("addr add 198.51.100.1/32 dev right0");
    pair.left.ip("route add 198.51.100.0/24 via 192.0.2.2");
    // The longest wait between two tries is 30 s; here it is 8.
    let status = agent.wait(Duration::from_secs(45), |status| {
        status.targets.iter().all(|target| target.state == "active")
    });
    assert!(status.targets.iter().all(|target| target.waiting_for.is_none()));
    write(&numbered("late", 100), 1_000);
    let status = catch_up(&mut agent);
    for healed in &status.targets {
        assert_eq!(healed.account.lost_total(), 0, "{}", healed.account.line());
        assert_eq!(healed.account.filtered, 0, "{}", healed.account.line());
    }
    let _ = agent.stop();
    good.settle(QUIET);
    for (name, datagrams) in
        [("far", far.empty()), ("silent", silent.empty()), ("good", good.finish())]
    {
        assert_eq!(numbers("early", &datagrams).len(), RECORDS, "{name}");
        assert_eq!(numbers("late", &datagrams).len(), 100, "{name}");
        let seqs: Vec<_> =
            join_fragments(&datagrams).iter().map(|message| seq_of(message)).collect();
        assert!(seqs.is_sorted(), "{name}: in order");
    }
}

#[test]
fn it_never_writes_to_the_kernel_log() {
    if !ready("it_never_writes_to_the_kernel_log") {
        return;
    }
    const O_ACCMODE: u32 = 3;
    let pair = Pair::new();
    let _unlimited = Unlimited::new();
    let peer = Peer::start(&pair.right, 6666);
    let reader = Reader::start();
    let targets = format!(
        "{XDP_TARGET}[target.peer.sysdata]\ntaskname = true\n\
         [target.waits]\nremote = \"198.51.100.1:6666\"\n"
    );
    let mut agent = Agent::start(&pair.left, "capture = \"tracepoint\"", &targets, 1);
    let mut kernel_logs = 0;
    for entry in std::fs::read_dir(format!("/proc/{}/fd", agent.pid())).expect("descriptors") {
        let path = entry.expect("a descriptor").path();
        // One may be closed meanwhile.
        let Ok(file) = std::fs::read_link(&path) else { continue };
        if file == Path::new("/dev/kmsg") || file == Path::new("/proc/kmsg") {
            let number = path.file_name().and_then(|name| name.to_str()).expect("a number");
            let info = std::fs::read_to_string(format!("/proc/{}/fdinfo/{number}", agent.pid()));
            let info = info.expect("its flags");
            let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).expect("flags");
            let flags = u32::from_str_radix(flags.trim(), 8).expect("octal flags");
            assert_eq!(flags & O_ACCMODE, 0, "{} is open for writing: {info}", file.display());
            kernel_logs += 1;
        }
    }
    assert_eq!(kernel_logs, 1, "it reads /dev/kmsg");
    let pid = agent.pid();
    let threads: BTreeSet<String> = std::fs::read_dir(format!("/proc/{pid}/task"))
        .expect("the threads")
        .map(|entry| entry.expect("a thread").file_name().into_string().expect("a number"))
        .collect();
    write(&numbered("own", 200), 400);
    let _ = ask(&agent.socket(), &Request::Resolve { target: None });
    catch_up(&mut agent);
    let log = agent.stop();
    peer.settle(QUIET);
    let read = reader.finish();
    let datagrams = peer.finish();
    assert_eq!(numbers("own", &datagrams).len(), 200);
    assert!(read.lines.len() >= 200);
    // Other than interrupts, records of a task are its own writes; facility 0 is
    // the kernel's, which nobody can write.
    let is_written = |line: &str| {
        let prio = line.split(',').next().and_then(|prio| prio.parse::<u32>().ok());
        prio.is_none_or(|prio| prio >> 3 != 0)
    };
    for line in &read.lines {
        let text = String::from_utf8_lossy(&line.bytes);
        assert!(!text.contains("netconsole-agent"), "{text}");
        for said in log.lines().filter_map(|line| line.split_once("Z  ")).map(|(_, said)| said) {
            assert!(!text.contains(said), "{text}");
        }
        let caller = text.split_once(",caller=T").map(|(_, rest)| rest);
        let thread = caller.map(|rest| rest.chars().take_while(char::is_ascii_digit).collect());
        let by_agent = thread.is_some_and(|thread: String| threads.contains(&thread));
        assert!(!(is_written(&text) && by_agent), "{text}");
    }
    for message in join_fragments(&datagrams) {
        let text = String::from_utf8_lossy(&message);
        for name in ["pump", "kmsg", "netconsole-agen"] {
            let by_agent = text.contains(&format!("\n taskname={name}\n"));
            assert!(!(is_written(&text) && by_agent), "{text}");
        }
    }
}

fn connect(agent: &Agent) -> UnixStream {
    let stream = UnixStream::connect(agent.socket()).expect("connect");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
    stream
}

/// What comes back until the agent closes or has said a line.
fn answer(stream: &UnixStream) -> String {
    let mut line = String::new();
    // Closed with our bytes unread counts as closed.
    let _ = BufReader::new(stream).read_line(&mut line);
    line
}

#[test]
fn the_control_socket_survives_hostile_clients() {
    if !ready("the_control_socket_survives_hostile_clients") {
        return;
    }
    const STATUS: &[u8] = b"{\"cmd\":\"status\",\"v\":1}\n";
    let pair = Pair::new();
    let _unlimited = Unlimited::new();
    let peer = Peer::start(&pair.right, 6666);
    let mut agent = Agent::start(&pair.left, "capture = \"tracepoint\"", XDP_TARGET, 1);
    let mode = std::fs::metadata(agent.socket()).expect("the socket");
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode.permissions()) & 0o777, 0o600);

    let long = [vec![b'x'; 100_000], b"\n".to_vec()].concat();
    let nested = [vec![b'['; 4_000], b"\n".to_vec()].concat();
    let cases: [(&[u8], &str); 11] = [
        (b"\x00\xff\xfe garbage \x80\n", "not understood"),
        (b"\n", "not understood"),
        (b"{}\n", "not understood"),
        (b"[1,2,3]\n", "not understood"),
        (b"{\"cmd\":\"status\",\"v\":2}\n", "version 1"),
        (b"{\"cmd\":\"status\"}\n", "not understood"),
        (b"{\"cmd\":\"status\",\"v\":-1}\n", "not understood"),
        (b"{\"cmd\":\"destroy\",\"v\":1}\n", "not understood"),
        (b"{\"cmd\":\"resolve\",\"v\":1,\"target\":\"\\u0000\"}\n", "there is no target"),
        (&nested, "not understood"),
        (&long, "at most 65536 bytes"),
    ];
    for (request, words) in cases {
        let mut stream = connect(&agent);
        // The agent may hang up before it has read everything.
        let _ = stream.write_all(request);
        let answer = answer(&stream);
        let shown = String::from_utf8_lossy(&request[..request.len().min(60)]).into_owned();
        assert!(answer.starts_with("{\"ok\":false,"), "{shown}: {answer}");
        assert!(answer.contains(words), "{shown}: {answer}");
    }
    // Half a line, and the end of it.
    let mut half = connect(&agent);
    half.write_all(&STATUS[..10]).expect("half a line");
    half.shutdown(Shutdown::Write).expect("the end");
    assert!(answer(&half).contains("at most 65536 bytes"));
    // An error does not end the conversation.
    let mut stream = connect(&agent);
    stream.write_all(&[b"nonsense\n", STATUS].concat()).expect("two requests");
    let mut reader = BufReader::new(&stream);
    let mut lines = [String::new(), String::new()];
    for line in &mut lines {
        reader.read_line(line).expect("an answer");
    }
    assert!(lines[0].starts_with("{\"ok\":false,"), "{}", lines[0]);
    assert!(lines[1].starts_with("{\"ok\":true,"), "{}", lines[1]);
    drop(stream);

    // Many that say nothing, or half a line and no end: those over the limit are told and
    // hung up on at once, the others when the agent's patience ends.
    let idle: Vec<_> = (0..50)
        .map(|number| {
            let mut stream = connect(&agent);
            if number % 2 == 0 {
                // It may be hung up already.
                let _ = stream.write_all(&STATUS[..10]);
            }
            stream
        })
        .collect();
    write(&numbered("besieged", 300), 1_000);
    for stream in &idle {
        let mut said = String::new();
        let end = (&mut &*stream).read_to_string(&mut said);
        let kind = end.err().map(|error| error.kind());
        assert_ne!(kind, Some(std::io::ErrorKind::WouldBlock), "never hung up");
        assert!(said.is_empty() || said.contains("too many clients"), "{said}");
    }
    drop(idle);
    let refused = agent.status().refused;
    assert_eq!((refused.not_allowed, refused.malformed), (0, 12), "{refused:?}");
    assert!(refused.too_many_clients >= 30, "{refused:?}");

    // One that asks and asks and never reads.
    let mut deaf = connect(&agent);
    deaf.set_write_timeout(Some(Duration::from_millis(200))).expect("a timeout");
    let requests = STATUS.repeat(1_000);
    let begin = Instant::now();
    let mut asked = 0;
    let end = loop {
        match deaf.write(&requests) {
            Ok(length) => asked += length,
            Err(error) => break error,
        }
        assert!(begin.elapsed() < PATIENCE, "it took {asked} bytes of requests");
    };
    assert_eq!(end.kind(), std::io::ErrorKind::WouldBlock, "the agent stops reading: {end}");
    // Meanwhile others are served, and records flow.
    let status = agent.status();
    assert_eq!(status.targets[0].state, "active");
    let hung_up = loop {
        match deaf.write(STATUS) {
            Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => break true,
            _ if begin.elapsed() > PATIENCE => break false,
            _ => {}
        }
    };
    assert!(hung_up, "the client that never reads keeps its place");

    write(&numbered("free", 100), 1_000);
    let status = catch_up(&mut agent);
    assert_eq!(status.targets[0].account.lost_total(), 0, "{}", status.to_text());
    let log = agent.stop();
    assert!(!log.contains("panicked"), "{log}");
    peer.settle(QUIET);
    let datagrams = peer.finish();
    assert_eq!(numbers("besieged", &datagrams).len(), 300);
    assert_eq!(numbers("free", &datagrams).len(), 100);
}

/// Sockets of the process by their protocol, such as `XDP` (what `lsof` shows).
fn sockets(pid: u32) -> BTreeMap<String, usize> {
    let mut sockets = BTreeMap::new();
    for entry in std::fs::read_dir(format!("/proc/{pid}/fd")).expect("descriptors") {
        let path = entry.expect("a descriptor").path();
        let mut name = [0; 64];
        let Ok(length) = rustix::fs::getxattr(&path, "system.sockprotoname", &mut name) else {
            continue;
        };
        let name = name[..length].split(|byte| *byte == 0).next().expect("a name");
        *sockets.entry(String::from_utf8_lossy(name).into_owned()).or_default() += 1;
    }
    sockets
}

/// Source port, destination port and payload of each frame of a pcap file.
fn pcap_packets(file: &[u8]) -> Vec<(u16, u16, Vec<u8>)> {
    let word = |at: &[u8]| u32::from_le_bytes(at[..4].try_into().expect("four bytes"));
    let half = |at: &[u8]| u16::from_be_bytes(at[..2].try_into().expect("two bytes"));
    // Nanosecond stamps, Ethernet (pcap-savefile(5)).
    assert_eq!((word(file), word(&file[20..])), (0xa1b2_3c4d, 1));
    let mut rest = &file[24..];
    let mut packets = Vec::new();
    while !rest.is_empty() {
        let length = word(&rest[8..]) as usize;
        assert_eq!(word(&rest[12..]) as usize, length, "a whole packet");
        let frame = &rest[16..16 + length];
        // Ethernet, IPv4 without options, UDP.
        assert_eq!((half(&frame[12..]), frame[14], frame[23]), (0x0800, 0x45, 17));
        let udp = &frame[34..];
        assert_eq!(half(&udp[4..]) as usize, udp.len(), "the length of the datagram");
        packets.push((half(udp), half(&udp[2..]), udp[8..].to_vec()));
        rest = &rest[16 + length..];
    }
    packets
}

#[test]
fn every_way_out_and_every_format_carries_the_records() {
    if !ready("every_way_out_and_every_format_carries_the_records") {
        return;
    }
    const RECORDS: usize = 160;
    let pair = Pair::new();
    let _unlimited = Unlimited::new();
    let folder = tempfile::tempdir().expect("a folder");
    let pcap = folder.path().join("records.pcap");
    let peers: BTreeMap<&str, Peer> =
        [("plain", 7000), ("rich", 7001), ("frames", 7002), ("sockets", 7003), ("severe", 7004)]
            .into_iter()
            .map(|(name, port)| (name, Peer::start(&pair.right, port)))
            .collect();
    let targets = format!(
        "[target.plain]\nremote = \"192.0.2.2:7000\"\negress = \"xdp\"\n\
         [target.rich]\nremote = \"192.0.2.2:7001\"\negress = \"xdp\"\nrelease = true\n\
         local = \":7777\"\n\
         [target.rich.sysdata]\ncpu = true\ntaskname = true\nrelease = true\nmsgid = true\n\
         [target.rich.userdata]\nrack = \"r12\"\nzone = \"north 1\"\n\
         [target.frames]\nremote = \"192.0.2.2:7002\"\negress = \"packet\"\nformat = \"basic\"\n\
         [target.sockets]\nremote = \"192.0.2.2:7003\"\negress = \"udp\"\n\
         [target.severe]\nremote = \"192.0.2.2:7004\"\negress = \"xdp\"\nmax_level = \"err\"\n\
         [target.file]\nremote = \"192.0.2.9:7005\"\negress = \"pcap\"\npcap = {pcap:?}\n"
    );
    let mut agent = Agent::start(&pair.left, "capture = \"tracepoint\"", &targets, 6);
    let open = sockets(agent.pid());
    assert_eq!(open.get("XDP"), Some(&1), "three targets on one device share a socket: {open:?}");
    let severe = |number: usize| number % 8 <= 3;
    let records: Vec<_> = (0..RECORDS)
        .map(|number| format!("<{}>ways {number}. \t\u{e9}\n", number % 8).into_bytes())
        .collect();
    write(&records, 400);
    let status = catch_up(&mut agent);
    println!("{}", status.to_text());
    for (name, kind) in [
        ("plain", "xdp"),
        ("rich", "xdp"),
        ("frames", "packet"),
        ("sockets", "udp"),
        ("severe", "xdp"),
        ("file", "pcap"),
    ] {
        let target = target(&status, name);
        assert_eq!(target.egress.as_ref().expect("a way out").kind, kind);
        assert!(
            target.account.balances && target.account.lost_total() == 0,
            "{}",
            status.to_text()
        );
        assert!(name == "severe" || target.account.filtered == 0, "{}", status.to_text());
    }
    let filtered = target(&status, "severe").account.filtered;
    assert!(filtered >= RECORDS as u64 / 2, "{}", status.to_text());
    let _ = agent.stop();
    let mut arrived: BTreeMap<&str, Vec<Vec<u8>>> = peers
        .into_iter()
        .map(|(name, peer)| {
            peer.settle(QUIET);
            (name, peer.finish())
        })
        .collect();
    let packets = pcap_packets(&std::fs::read(&pcap).expect("the pcap file"));
    assert!(packets.iter().all(|(from, to, _)| (*from, *to) == (6665, 7005)));
    arrived.insert("file", packets.into_iter().map(|(_, _, payload)| payload).collect());

    for (name, datagrams) in &arrived {
        let seen = numbers("ways", datagrams);
        let wanted: BTreeSet<_> =
            (0..RECORDS).filter(|number| *name != "severe" || severe(*number)).collect();
        assert_eq!(seen, wanted, "{name}");
    }
    // Whatever the way, the same bytes.
    let own = |name: &str| -> Vec<String> {
        join_fragments(&arrived[name])
            .iter()
            .map(|message| String::from_utf8(message.clone()).expect("escaped"))
            .filter(|text| text.contains(";ways "))
            .collect()
    };
    let plain = own("plain");
    assert_eq!(own("sockets"), plain);
    assert_eq!(own("file"), plain);

    let release = uname().release().to_string_lossy().into_owned();
    let mut last_msgid = None;
    for (rich, plain) in own("rich").iter().zip(&plain) {
        // The number that a message gets counts each message of the target.
        let (rest, msgid) = rich.rsplit_once(" msgid=").expect("a msgid");
        let msgid: u64 = msgid.trim_end().parse().expect("a number");
        assert!(last_msgid.is_none_or(|last| msgid > last), "{rich}");
        last_msgid = Some(msgid);
        let (before, cpu) = rest.split_once(" cpu=").expect("a cpu");
        assert_eq!(before, format!("{release},{plain} rack=r12\n zone=north 1\n"));
        let (cpu, more) = cpu.split_once('\n').expect("a line");
        assert!(cpu.parse::<u32>().is_ok(), "{rich}");
        assert!(more.starts_with(" taskname="), "{rich}");
        assert!(more.ends_with(&format!("\n release={release}\n")), "{rich}");
    }
    for (number, text) in arrived["frames"]
        .iter()
        .filter(|text| text.windows(5).any(|part| part == b"ways "))
        .enumerate()
    {
        let text = String::from_utf8(text.clone()).expect("UTF-8");
        assert!(text.starts_with('['), "time in front: {text}");
        assert!(text.ends_with(&format!("] ways {number}. \t\u{e9}\n")), "{text:?}");
    }
}

#[test]
fn auto_takes_the_way_that_the_route_means_and_says_why() {
    if !ready("auto_takes_the_way_that_the_route_means_and_says_why") {
        return;
    }
    let pair = Pair::new();
    let _unlimited = Unlimited::new();
    let addresses = ["192.0.2.2:6666", "[2001:db8::2]:6666"];
    let far = addresses.map(|address| Mailbox::open(&pair.right, address));
    let near = Mailbox::open(&pair.left, "127.0.0.1:6666");
    let targets = "[target.far4]\nremote = \"192.0.2.2:6666\"\negress = \"auto\"\n\
                   [target.far6]\nremote = \"[2001:db8::2]:6666\"\n\
                   [target.near]\nremote = \"127.0.0.1:6666\"\n";
    let mut agent = Agent::start(&pair.left, "", targets, 3);
    write(&numbered("auto", 20), 200);
    let status = catch_up(&mut agent);
    for (name, kind, words) in [
        ("far4", "xdp", "left0 is a plain Ethernet way"),
        ("far6", "xdp", "left0 is a plain Ethernet way"),
        ("near", "udp", "the remote is this host"),
    ] {
        let egress = target(&status, name).egress.as_ref().expect("a way out");
        assert_eq!((egress.kind.as_str(), egress.reason.as_str()), (kind, words), "{name}");
        assert!(status.to_text().contains(words), "{}", status.to_text());
        assert!(agent.log().contains(words), "{}", agent.log());
    }
    let hop = target(&status, "far4").next_hop.as_ref().expect("a next hop");
    assert_eq!((hop.device.as_str(), hop.source.as_str()), ("left0", "192.0.2.1"));
    assert_eq!(hop.mac.as_deref(), Some("02:00:00:00:00:02"));
    let _ = agent.stop();
    for mailbox in far.iter().chain([&near]) {
        assert_eq!(numbers("auto", &mailbox.empty()).len(), 20);
    }
}

/// An agent that is expected to be killed, or not to start.
struct Bare {
    child: Child,
    folder: PathBuf,
}

impl Bare {
    fn start(namespace: &Namespace, folder: &Path, socket: &Path, log: &str) -> Self {
        let config = folder.join("bare.toml");
        let text = format!(
            "[agent]\ncontrol_socket = {socket:?}\ncapture = \"kmsg\"\n\
             [target.near]\nremote = \"127.0.0.1:6666\"\n"
        );
        std::fs::write(&config, text).expect("write the configuration");
        let child = Command::new("nsenter")
            .arg(format!("--net=/run/netns/{}", namespace.name()))
            .arg(binary())
            .args(["run", "--config"])
            .arg(&config)
            .env("NETCONSOLE_AGENT_LOG", log)
            .stderr(Stdio::piped())
            .spawn()
            .expect("start the agent");
        Self { child, folder: folder.to_owned() }
    }

    fn wait_for_socket(&mut self, socket: &Path) -> Status {
        let begin = Instant::now();
        loop {
            let reply = ask(socket, &Request::Status).ok();
            if let Some(status) = reply.and_then(|reply| reply.status)
                && status.pid == self.child.id()
            {
                return *status;
            }
            assert_eq!(self.child.try_wait().expect("its state"), None, "in {:?}", self.folder);
            assert!(begin.elapsed() < PATIENCE, "it does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id() as i32).expect("a process id");
        kill_process(pid, signal).expect("a signal");
    }

    /// Waits for its end; exit code (none if it was killed) and log.
    fn end(mut self) -> (Option<i32>, String) {
        let mut log = String::new();
        let mut stderr = self.child.stderr.take().expect("its log");
        stderr.read_to_string(&mut log).expect("its log");
        (self.child.wait().expect("its end").code(), log)
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A terminal in the place of `/dev/kmsg`, which ends when its other end is closed: then no more
/// records come, but those that came are sent, and the account is told.
#[test]
fn an_agent_that_loses_dev_kmsg_sends_what_it_has_and_tells_its_account() {
    if !ready("an_agent_that_loses_dev_kmsg_sends_what_it_has_and_tells_its_account") {
        return;
    }
    let pair = Pair::new();
    let peer = Peer::start(&pair.right, 6666);
    // Some more than go out at once at this pace.
    const COUNT: u64 = 330;
    let other_end =
        openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("a terminal");
    grantpt(&other_end).and_then(|()| unlockpt(&other_end)).expect("a terminal");
    let terminal = ptsname(&other_end, Vec::new()).expect("its name");
    let mount = "stty -echo < \"$0\" && mount --bind \"$0\" /dev/kmsg && exec \"$@\"";
    let words = ["unshare", "--mount", "--propagation", "private", "sh", "-c", mount];
    let words = words.into_iter().chain([terminal.to_str().expect("UTF-8")]);
    let prefix: Vec<String> = words.map(str::to_owned).collect();
    let table = "capture = \"kmsg\"\nreplay = \"none\"";
    let targets =
        "[target.peer]\nremote = \"192.0.2.2:6666\"\negress = \"udp\"\npace = \"100/s\"\n";
    let mut agent = Agent::start_by(&pair.left, table, targets, 1, &prefix);
    for seq in 0..COUNT {
        let line = format!("6,{seq},{seq},-;told {seq}.\n");
        rustix::io::write(&other_end, line.as_bytes()).expect("write");
        std::thread::sleep(Duration::from_millis(1));
    }
    let before = agent.wait(PATIENCE, |status| status.targets[0].account.next_seq == COUNT);
    assert!(before.targets[0].account.queued > 0, "{}", before.to_text());
    drop(other_end);
    let end = agent.ended();
    let log = agent.log();
    assert_eq!(end.code(), Some(1), "{log}");
    assert!(log.contains("the /dev/kmsg thread has ended by itself"), "{log}");
    let [seen, sent, ..] = final_account(&log, "peer");
    assert_eq!((seen, sent), (COUNT, COUNT), "{log}");
    peer.settle(QUIET);
    assert_eq!(numbers("told", &peer.finish()).len() as u64, COUNT);
}

#[test]
fn one_control_socket_serves_one_agent() {
    if !ready("one_control_socket_serves_one_agent") {
        return;
    }
    let pair = Pair::new();
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("run/control.sock");
    let start = || Bare::start(&pair.left, folder.path(), &socket, "info");
    let mut first = start();
    first.wait_for_socket(&socket);

    let (code, log) = start().end();
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("another agent answers on the control socket"), "{log}");
    assert!(log.contains(&socket.display().to_string()), "{log}");
    assert!(log.contains("`control_socket`"), "the remedy: {log}");
    // The first one noticed nothing.
    first.wait_for_socket(&socket);

    first.signal(Signal::KILL);
    let (code, _) = first.end();
    assert_eq!(code, None);
    assert!(socket.exists(), "a killed agent leaves its socket");
    let mut third = start();
    third.wait_for_socket(&socket);
    // SIGHUP is a reload, SIGINT the end.
    third.signal(Signal::HUP);
    for _ in 0..30 {
        // Each answer is a turn of the loop that also sees the signal.
        third.wait_for_socket(&socket);
    }
    third.signal(Signal::INT);
    let (code, log) = third.end();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("The configuration was read anew"), "{log}");
    assert!(!socket.exists());
}

#[test]
fn a_file_in_the_place_of_the_control_socket_is_left_alone() {
    if !ready("a_file_in_the_place_of_the_control_socket_is_left_alone") {
        return;
    }
    let pair = Pair::new();
    let folder = tempfile::tempdir().expect("a folder");
    let precious = folder.path().join("precious");
    std::fs::write(&precious, "precious").expect("write");
    let (code, log) = Bare::start(&pair.left, folder.path(), &precious, "info").end();
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("is no socket"), "{log}");
    assert_eq!(std::fs::read_to_string(&precious).expect("it is still there"), "precious");
}

#[test]
fn what_libraries_log_is_in_the_log() {
    if !ready("what_libraries_log_is_in_the_log") {
        return;
    }
    let pair = Pair::new();
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("control.sock");
    // The programs' messages (aya-log) and netlink's go through the crate `log`;
    // the programs' cannot be provoked here, netlink's can.
    let mut agent = Bare::start(&pair.left, folder.path(), &socket, "warn,netlink_proto=trace");
    agent.wait_for_socket(&socket);
    agent.signal(Signal::TERM);
    let (code, log) = agent.end();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("read datagram from socket"), "{log}");
}

/// Who may not do what the configuration asks for is told at once, with all that is missing and how to
/// get it, and nothing is left behind.
#[test]
fn an_unprivileged_start_says_what_is_missing() {
    if !root_or_skip("an_unprivileged_start_says_what_is_missing") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let open = std::fs::Permissions::from_mode(0o777);
    std::fs::set_permissions(folder.path(), open).expect("its mode");
    // The binary may lie where only root may look.
    let copy = folder.path().join("netconsole-agent");
    std::fs::copy(binary(), &copy).expect("a copy");
    let config = folder.path().join("agent.toml");
    let start = |capture: &str, egress: &str, more: &str| {
        let socket = folder.path().join("control.sock");
        let text = format!(
            "[agent]\ncapture = \"{capture}\"\ncontrol_socket = {socket:?}\n\
             [target.peer]\nremote = \"192.0.2.2:6666\"\negress = \"{egress}\"\n{more}"
        );
        std::fs::write(&config, text).expect("the configuration");
        let output = Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .args(["--inh-caps=-all", "--ambient-caps=-all"])
            .args([copy.as_os_str(), "run".as_ref(), "--config".as_ref(), config.as_os_str()])
            .output()
            .expect("run it");
        assert!(!socket.exists());
        let told = String::from_utf8(output.stderr).expect("UTF-8");
        assert_eq!(output.status.code(), Some(EX_NOPERM), "{told}");
        told
    };
    let told = start("auto", "auto", "");
    for part in [
        "the agent (user 65534) lacks CAP_BPF (loading the programs), CAP_PERFMON",
        "CAP_NET_RAW (AF_XDP and AF_PACKET sockets)",
        "systemctl start netconsole-agent",
        "setcap cap_bpf,cap_perfmon,",
        "AmbientCapabilities=",
        "capture = \"kmsg\"",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    let told = start("kmsg", "packet", "");
    assert!(told.contains("lacks CAP_NET_RAW") || told.contains("lacks CAP_SYSLOG"), "{told}");
    assert!(!told.contains("CAP_BPF"), "{told}");
    let told = start("kmsg", "udp", "after_crash = true\n");
    assert!(told.contains("CAP_DAC_READ_SEARCH (after_crash"), "{told}");
}
