//! `receive --netoops` as a crash collector meets it: dumps of several hosts at once, over a
//! network that loses, repeats and reorders, among packets that want to do harm.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr, UdpSocket},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use agent_tests::{
    agent::binary,
    netns::{Namespace, root_or_skip},
};
use netconsole_agent::netoops::{Dump, Kind, PORT, placeholder, wire::PACKET_BYTES};
use rustix::process::{Pid, Signal, kill_process};

const PATIENCE: Duration = Duration::from_secs(20);

/// A namespace of its own, in which the default port is free.
fn namespace() -> Namespace {
    let namespace = Namespace::new("n");
    namespace.ip("link set lo up");
    namespace
}

/// A running receiver; killed on drop.
struct Receiver {
    child: Option<Child>,
}

impl Receiver {
    fn start(namespace: &Namespace, arguments: &[&str]) -> Self {
        let child = Command::new("nsenter")
            .arg(format!("--net=/run/netns/{}", namespace.name()))
            .arg(binary())
            .args(["receive", "--netoops"])
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("start the receiver");
        let receiver = Self { child: Some(child) };
        let pid = receiver.pid();
        let bound = format!(":{PORT:04X} ");
        let begin = Instant::now();
        // Of its own namespace, once nsenter has become the receiver.
        while !["udp", "udp6"].iter().any(|table| {
            let table = std::fs::read_to_string(format!("/proc/{pid}/net/{table}"));
            table.is_ok_and(|table| table.contains(&bound))
        }) {
            assert!(begin.elapsed() < PATIENCE, "it does not listen on port {PORT}");
            std::thread::sleep(Duration::from_millis(10));
        }
        receiver
    }

    fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// Ends it as systemd would and returns what it said.
    fn stop(self) -> (String, String) {
        let pid = Pid::from_raw(self.pid() as i32).expect("a pid");
        kill_process(pid, Signal::TERM).expect("send SIGTERM");
        self.end()
    }

    /// Waits for its end and returns what it said.
    fn end(mut self) -> (String, String) {
        let child = self.child.take().expect("it runs");
        let Output { status, stdout, stderr } = child.wait_with_output().expect("its end");
        let stderr = String::from_utf8(stderr).expect("UTF-8");
        assert!(status.success(), "{status}: {stderr}");
        (String::from_utf8(stdout).expect("UTF-8"), stderr)
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A host: an address of the loopback device.
struct Host {
    socket: UdpSocket,
    to: SocketAddr,
}

impl Host {
    fn new(namespace: &Namespace, address: &str) -> Self {
        let address: IpAddr = address.parse().expect("an address");
        let socket = namespace.run(|| UdpSocket::bind((address, 0)).expect("bind"));
        let to: IpAddr = if address.is_ipv4() { [127, 0, 0, 1].into() } else { address };
        Self { socket, to: (to, PORT).into() }
    }

    fn send(&self, datagram: &[u8]) {
        self.socket.send_to(datagram, self.to).expect("sent");
    }
}

fn text_of(host: &str, lines: usize) -> Vec<u8> {
    let line = |number| format!("<6>[{number:5}.000000] {host}: line {number}\n");
    (0..lines).map(line).collect::<String>().into_bytes()
}

/// The packets of one pass, the newest first.
fn packets(id: u16, kind: Kind, text: &[u8]) -> Vec<[u8; PACKET_BYTES]> {
    let dump = Dump::new(id, kind, b"6.12.0-test", text.len()).expect("short enough");
    let packet = |packet_no| {
        let mut out = [0; PACKET_BYTES];
        assert_eq!(dump.packet(text, packet_no, &mut out), PACKET_BYTES);
        out
    };
    (0..dump.packet_count()).map(packet).collect()
}

/// Texts by the part of the file's name before the time.
fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let read = |entry: std::io::Result<std::fs::DirEntry>| {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name").to_str().expect("UTF-8");
        let name = name.rsplit_once('-').expect("a time").0.to_owned();
        (name, std::fs::read(path).expect("a file"))
    };
    let files = std::fs::read_dir(dir).expect("the folder").map(read);
    let (count, files) = files.fold((0, BTreeMap::new()), |(count, mut files), (name, text)| {
        files.insert(name, text);
        (count + 1, files)
    });
    assert_eq!(files.len(), count, "two files of one dump: {:?}", files.keys());
    files
}

fn wait_for_files(dir: &Path, count: usize) {
    let begin = Instant::now();
    while std::fs::read_dir(dir).expect("the folder").count() < count {
        assert!(begin.elapsed() < PATIENCE, "{:?}", files(dir).keys());
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Packets that are none, or whose fields want memory or another place for the file.
fn hostile() -> Vec<Vec<u8>> {
    let good = packets(9, Kind::Hard, b"x")[0];
    let with = |at: usize, bytes: &[u8]| {
        let mut packet = good.to_vec();
        packet[at..at + bytes.len()].copy_from_slice(bytes);
        packet
    };
    vec![
        Vec::new(),
        b"6,10,1000001,-;a record\n".to_vec(),
        good[..1240].to_vec(),
        [&good[..], b"x"].concat(),
        vec![0xff; 9000],
        with(0, &[3, 0]),
        with(2, &[0xff, 0xff]),
        with(8, &[2, 0]),
        with(10, &[0; 4]),
        with(10, &[0xff; 4]),
        with(14, &[0xff; 4]),
    ]
}

#[test]
fn each_dump_becomes_a_file_whatever_else_arrives() {
    if !root_or_skip("each_dump_becomes_a_file_whatever_else_arrives") {
        return;
    }
    let namespace = namespace();
    let dir = tempfile::tempdir().expect("a folder");
    let receiver = Receiver::start(&namespace, &["--dir", &dir.path().display().to_string()]);
    let hosts = ["127.0.0.2", "127.0.0.3", "::1"].map(|address| Host::new(&namespace, address));
    let stranger = Host::new(&namespace, "127.0.0.9");
    let texts = [text_of("two", 300), text_of("three", 1), text_of("six", 4000)];
    let dumps: Vec<_> = texts.iter().map(|text| packets(7, Kind::Hard, text)).collect();
    for pass in 0..3 {
        for index in 0..dumps.iter().map(Vec::len).max().unwrap_or(0) {
            for (host, dump) in hosts.iter().zip(&dumps) {
                let Some(rest) = dump.len().checked_sub(index + 1) else { continue };
                // The second pass goes the other way round, and each loses another third.
                let place = if pass == 1 { rest } else { index };
                if place % 3 != pass {
                    host.send(&dump[place]);
                    host.send(&dump[place]);
                }
            }
            for packet in hostile() {
                stranger.send(&packet);
            }
            // The receiver's buffer is large, but not without end.
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    wait_for_files(dir.path(), 3);
    let (out, err) = receiver.stop();
    let files = files(dir.path());
    assert_eq!(files.len(), 3, "{:?}", files.keys());
    for (name, text) in [
        ("netoops-127.0.0.2-00007-hard", &texts[0]),
        ("netoops-127.0.0.3-00007-hard", &texts[1]),
        ("netoops-__1-00007-hard", &texts[2]),
    ] {
        assert_eq!(
            files.get(name).map(|text| String::from_utf8_lossy(text)),
            Some(String::from_utf8_lossy(text)),
            "{name} of {:?}",
            files.keys()
        );
    }
    assert_eq!(out.lines().count(), 3, "{out}");
    for line in out.lines() {
        assert!(line.contains("dump 7 hard, kernel 6.12.0-test"), "{line}");
        assert!(!line.contains("missing") && !line.contains("conflicting"), "{line}");
        let path = PathBuf::from(line.rsplit(", ").next().expect("a path"));
        assert!(path.is_file() && path.starts_with(dir.path()), "{line}");
    }
    assert_eq!(err.matches("127.0.0.9: ").count(), 1, "{err}");
    assert!(err.contains("-- 3 dumps in ") && err.contains(" refused --"), "{err}");
}

#[test]
fn what_is_missing_or_contradicts_is_told_at_the_end() {
    if !root_or_skip("what_is_missing_or_contradicts_is_told_at_the_end") {
        return;
    }
    let namespace = namespace();
    let dir = tempfile::tempdir().expect("a folder");
    let arguments = ["--json", "--dir", &dir.path().display().to_string()];
    let receiver = Receiver::start(&namespace, &arguments);
    let host = Host::new(&namespace, "127.0.0.2");
    let text = text_of("two", 200);
    let packets = packets(65_535, Kind::Soft, &text);
    let count = packets.len();
    for (packet_no, packet) in packets.iter().enumerate() {
        if packet_no != 1 {
            host.send(packet);
        }
    }
    // Another text for a number that is there, and another kernel, whose name is a path.
    let mut other = packets[0];
    other[217] ^= 1;
    host.send(&other);
    let mut other = packets[1];
    other[25..41].copy_from_slice(b"/../../etc/shado");
    host.send(&other);
    // One packet that claims the longest dump.
    let mut claim = packets[0];
    claim[6..8].copy_from_slice(&[1, 0]);
    claim[10..18].copy_from_slice(&[0, 0x40, 0, 0, 0xff, 0x3f, 0, 0]);
    host.send(&claim);
    // It arrives at once on this device, but the receiver must have read it.
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(files(dir.path()).len(), 0);
    let (out, err) = receiver.stop();
    assert_eq!(err, "");
    let lines: Vec<serde_json::Value> =
        out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines.len(), 3, "{out}");
    let told = lines.iter().find(|line| line["dump_id"] == 65_535).expect("the dump");
    assert_eq!(told["source"], "127.0.0.2");
    assert_eq!(told["kind"], "soft");
    assert_eq!(told["kernel"], "6.12.0-test");
    assert_eq!((&told["packets"], &told["received"]), (&count.into(), &(count - 1).into()));
    assert_eq!(told["missing"], serde_json::json!([[1, 1]]));
    assert_eq!(told["conflicting"], 2);
    let claimed = lines.iter().find(|line| line["dump_id"] == 1).expect("the claim");
    assert_eq!(claimed["missing"], serde_json::json!([[0, 16_382]]));
    assert_eq!(lines[2]["summary"]["incomplete"], 2, "{out}");

    let files = files(dir.path());
    assert_eq!(files.len(), 2, "{:?}", files.keys());
    let path = PathBuf::from(told["path"].as_str().expect("a path"));
    let hole = (count - 2) * 1024;
    let mut expected = text[..hole].to_vec();
    if expected.last() != Some(&b'\n') {
        expected.push(b'\n');
    }
    expected.extend(placeholder(&(1..=1)).as_bytes());
    expected.extend(&text[hole + 1024..]);
    let written = std::fs::read(&path).expect("the file");
    assert_eq!(String::from_utf8_lossy(&written), String::from_utf8_lossy(&expected));
}

#[test]
fn a_silent_dump_is_written_while_it_runs_and_none_is_overwritten() {
    if !root_or_skip("a_silent_dump_is_written_while_it_runs_and_none_is_overwritten") {
        return;
    }
    let namespace = namespace();
    let dir = tempfile::tempdir().expect("a folder");
    let arguments = ["--count", "2", "--dir", &dir.path().display().to_string()];
    let receiver = Receiver::start(&namespace, &arguments);
    let host = Host::new(&namespace, "127.0.0.2");
    let text = text_of("two", 100);
    let packets = packets(7, Kind::Hard, &text);
    // The same id twice, as after a crash that came early in the next boot.
    host.send(&packets[0]);
    wait_for_files(dir.path(), 1);
    for packet in &packets {
        host.send(packet);
    }
    let (out, _) = receiver.end();
    assert_eq!(out.lines().count(), 2, "{out}");
    let mut files: Vec<_> = std::fs::read_dir(dir.path())
        .expect("the folder")
        .map(|entry| std::fs::read(entry.expect("an entry").path()).expect("a file"))
        .collect();
    files.sort_by_key(|file| file == &text);
    assert_eq!(files.len(), 2);
    assert!(String::from_utf8_lossy(&files[0]).contains("are missing here"));
    assert_eq!(files[1], text);
}
