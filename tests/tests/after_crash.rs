//! What earlier boots left when they crashed: sent once, line by line, to the targets that want
//! it, beside this boot's records.
//!
//! The folders of pstore and systemd-pstore are the test's own, in mount namespaces of the
//! agents. A crash that is real is for the VMs.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

use agent_tests::{
    agent::Agent,
    kmsg::{self, Unlimited, mark},
    netns::{Pair, root_or_skip},
    peer::Peer,
    stream::Stream,
};
use netconsole_agent::control::status::Status;

const PREFIX: &str = "netconsole-agent, after-crash: ";
const TARGET: &str = "[target.peer]\nremote = \"192.0.2.2:6666\"\nafter_crash = true\n";
const PATIENCE: Duration = Duration::from_secs(30);
const QUIET: Duration = Duration::from_millis(500);
/// 2023-11-14T22:13:20Z.
const CRASHED_S: u64 = 1_700_000_000;

/// The folders that an agent takes for the host's.
struct Store {
    folder: tempfile::TempDir,
}

impl Store {
    /// `None` if the test cannot be run here.
    fn new(test: &str) -> Option<Self> {
        if !root_or_skip(test) {
            return None;
        }
        if !Path::new("/sys/fs/pstore").exists() {
            println!("SKIPPED: {test}: this kernel has no /sys/fs/pstore to mount over");
            return None;
        }
        let store = Self { folder: tempfile::tempdir().expect("a folder") };
        fs::create_dir(store.pstore()).expect("a folder");
        fs::create_dir(store.systemd()).expect("a folder");
        Some(store)
    }

    fn pstore(&self) -> PathBuf {
        self.folder.path().join("pstore")
    }

    fn systemd(&self) -> PathBuf {
        self.folder.path().join("systemd")
    }

    fn state_dir(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// Writes a file with the time of the crash.
    fn put(&self, path: &str, content: &[u8]) {
        let path = self.folder.path().join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(&path, content).expect("write a part");
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(CRASHED_S);
        let file = File::options().write(true).open(&path).expect("open the part");
        file.set_modified(at).expect("set its time");
    }

    /// Parts of a crash as ERST keeps them: the newest lines are in part 1. Returns the lines.
    fn crash(&self, places: &[&str], id: u64, lines: Vec<String>) -> Vec<String> {
        let size = lines.len().div_ceil(3).max(1);
        for (part, chunk) in lines.rchunks(size).enumerate() {
            let text = format!("Panic#1 Part{}\n{}\n", part + 1, chunk.join("\n"));
            for place in places {
                self.put(&format!("{place}/dmesg-erst-{}", id + part as u64), text.as_bytes());
            }
        }
        lines
    }

    fn start(&self, pair: &Pair, targets: &str, active: usize) -> Agent {
        let table = format!("state_dir = {:?}\n", self.state_dir());
        let places = [self.pstore(), self.systemd()];
        let places = [&*places[0], &*places[1]];
        Agent::start_after_crash(&pair.left, &table, targets, active, places)
    }
}

/// Deflate without compression: one stored block (RFC 1951, 3.2.4).
fn deflated(text: &[u8]) -> Vec<u8> {
    let len = u16::try_from(text.len()).expect("a short text");
    [&[1][..], &len.to_le_bytes(), &(!len).to_le_bytes(), text].concat()
}

fn kernel_lines(label: &str, count: usize) -> Vec<String> {
    (0..count).map(|index| format!("<4>[  123.{index:06}] {label} {index}")).collect()
}

/// A message about an earlier boot.
#[derive(Clone, Debug)]
struct Line {
    boot: String,
    at: String,
    dump: String,
    reason: String,
    number: usize,
    total: usize,
    continues: bool,
    text: String,
}

impl Line {
    fn parse(payload: &[u8]) -> Option<Self> {
        let payload = std::str::from_utf8(payload).expect("ASCII");
        let rest = payload.strip_prefix(PREFIX)?;
        let (line, _extra) = rest.split_once('\n').expect("a whole line");
        let (head, text) = line.split_once(": ").expect("a head");
        let words: Vec<&str> = head.split(' ').collect();
        let [boot, at, dump, reason, number] = words[..] else { panic!("{line}") };
        let value = |word: &str| word.split_once('=').expect("a value").1.to_owned();
        let (number, total) = number.split_once('/').expect("which line");
        Some(Self {
            boot: value(boot),
            at: value(at),
            dump: value(dump),
            reason: reason.to_owned(),
            number: number.parse().expect("a number"),
            total: total.trim_end_matches('+').parse().expect("a number"),
            continues: total.ends_with('+'),
            text: text.to_owned(),
        })
    }
}

/// What a receiver got: lines of dumps, and the rest.
fn apart(datagrams: &[Vec<u8>]) -> (Vec<Line>, Vec<Vec<u8>>) {
    let lines = datagrams.iter().filter_map(|payload| Line::parse(payload)).collect();
    let rest = datagrams.iter().filter(|payload| !payload.starts_with(PREFIX.as_bytes()));
    (lines, rest.cloned().collect())
}

/// The lines of each dump in the order of arrival, by the dump's name; numbers without a gap.
#[track_caller]
fn dumps(lines: &[Line]) -> BTreeMap<String, Vec<String>> {
    let mut dumps: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in lines {
        let texts = dumps.entry(line.dump.clone()).or_default();
        if line.continues {
            assert_eq!(line.number, texts.len(), "{line:?}");
            texts.last_mut().expect("its beginning").push_str(&line.text);
        } else {
            texts.push(line.text.clone());
            assert_eq!(line.number, texts.len(), "{line:?}");
        }
    }
    dumps
}

fn all_sent(status: &Status) -> bool {
    let mut wanting = status.targets.iter().filter_map(|target| target.after_crash).peekable();
    wanting.peek().is_some() && wanting.all(|sent| sent.dumps_waiting == 0)
}

#[test]
fn dumps_are_sent_once_in_order_to_those_who_want_them() {
    let Some(store) = Store::new("dumps_are_sent_once_in_order_to_those_who_want_them") else {
        return;
    };
    let pair = Pair::new();
    let _unlimited = Unlimited::new();
    let mut lines = kernel_lines("panic", 120);
    lines[60] = format!("<4>[  123.5] long {}", "0123456789".repeat(300));
    lines[61] = "<0>[  123.6] 6,1,1,-;no record: back\\x5cslash".to_owned();
    // In pstore, and copied by systemd-pstore, which joined it, too.
    let panic = store.crash(&["pstore", "systemd/7000000"], 7_000_000, lines);
    store.put("systemd/7000000/dmesg.txt", b"Panic#1 Part1\nnot the same\n");
    // Only copied, and not decompressed by the kernel.
    let oops = "<1>[   99.0] BUG: kernel NULL pointer dereference";
    let stored = deflated(format!("Oops#1 Part1\n{oops}\n").as_bytes());
    store.put("systemd/dmesg-ramoops-0.enc.z", &stored);
    store.put("systemd/dmesg-ramoops-1.enc.z", &[0x55; 500]);
    std::os::unix::fs::symlink("/etc/passwd", store.pstore().join("dmesg-erst-1"))
        .expect("a symbolic link");
    let other = "[target.other]\nremote = \"192.0.2.2:6667\"\n";
    let targets = format!("{TARGET}[target.peer.userdata]\nrack = \"r12\"\n{other}");

    let peers = [6666, 6667].map(|port| Peer::start(&pair.right, port));
    let mut agent = store.start(&pair, &targets, 2);
    let first = mark();
    for _ in 0..20 {
        kmsg::write(&[b"<6>beside the dumps\n".to_vec()], 0);
        std::thread::sleep(Duration::from_millis(10));
    }
    let last = mark();
    let status = agent.wait(PATIENCE, |status| {
        all_sent(status)
            && status
                .targets
                .iter()
                .all(|target| target.account.next_seq - target.account.queued > last)
    });
    let [got, got_other] = peers.map(|peer| {
        peer.settle(QUIET);
        peer.finish()
    });

    let (lines, rest) = apart(&got);
    let dumps_got = dumps(&lines);
    assert_eq!(dumps_got.len(), 2);
    let by_reason = |reason: &str| {
        let line = lines.iter().find(|line| line.reason == reason).expect("a line of it");
        assert_eq!((&*line.boot, &*line.at), ("-", "2023-11-14T22:13:20Z"));
        dumps_got[&line.dump].clone()
    };
    let escaped: Vec<_> = panic.iter().map(|line| line.replace('\\', "\\x5c")).collect();
    assert_eq!(by_reason("Panic#1"), escaped);
    assert_eq!(by_reason("Oops#1"), [oops]);
    assert!(lines.iter().any(|line| line.continues), "the long line is in several");
    assert!(lines.iter().all(|line| line.total == dumps_got[&line.dump].len()));
    assert!(got.iter().all(|payload| payload.len() <= 1_000));
    let with_rack = |payload: &&Vec<u8>| payload.ends_with(b"\n rack=r12\n");
    assert_eq!(
        got.iter().filter(|p| p.starts_with(PREFIX.as_bytes())).filter(with_rack).count(),
        lines.len()
    );
    let (none, rest_other) = apart(&got_other);
    assert!(none.is_empty(), "{none:?}");
    // This boot's records are as if there were nothing else.
    for rest in [rest, rest_other] {
        let stream = Stream::of(&rest);
        stream.assert_told();
        assert_eq!((stream.doubled(), stream.missing(), stream.steps_back()), (0, vec![], vec![]));
        let came = stream.by_seq();
        assert!((first..=last).all(|seq| came.contains_key(&seq)));
    }
    assert_eq!(status.after_crash.dumps.len(), 2);
    assert!(status.after_crash.dumps.iter().all(|dump| dump.sent_to == ["peer"]));
    let problems = &status.after_crash.problems;
    assert_eq!(status.after_crash.unusable, 2, "{problems:?}");
    assert!(problems.iter().any(|p| p.contains("ramoops-1") && p.contains("decompress")));
    assert_eq!(status.targets[1].after_crash, None);
    let said = agent.command(&["status", "--verbose"]);
    assert!(
        said.contains("after a crash: 2 dumps found") && said.contains("sent to peer"),
        "{said}"
    );
    agent.end();
    assert!(agent.log().contains("An earlier boot left a dump."), "{}", agent.log());

    // Again: nothing. Nothing was deleted either.
    let again = |agent: &mut Agent| {
        let peer = Peer::start(&pair.right, 6666);
        agent.start_again();
        agent.wait(PATIENCE, |status| status.targets.len() == 2 && all_sent(status));
        peer.settle(QUIET);
        agent.end();
        let (lines, rest) = apart(&peer.finish());
        Stream::of(&rest).assert_told();
        lines
    };
    assert_eq!(again(&mut agent).len(), 0);
    assert_eq!(fs::read_dir(store.pstore()).expect("the folder").count(), 4);

    // Another crash, and systemd-pstore has moved everything: only what is new.
    let second = store.crash(&["systemd/8000000"], 8_000_000, kernel_lines("again", 10));
    for entry in fs::read_dir(store.pstore()).expect("the folder") {
        fs::remove_file(entry.expect("an entry").path()).expect("remove it");
    }
    let lines = again(&mut agent);
    let dumps_got: Vec<_> = dumps(&lines).into_values().collect();
    assert_eq!(dumps_got, [second]);
    assert_eq!(again(&mut agent).len(), 0);
}

#[test]
fn a_receiver_that_is_away_gets_them_later_and_a_target_that_wants_them_later_as_well() {
    let name = "a_receiver_that_is_away_gets_them_later_and_a_target_that_wants_them_later_as_well";
    let Some(store) = Store::new(name) else { return };
    let pair = Pair::new();
    let panic = store.crash(&["pstore"], 7_000_000, kernel_lines("panic", 50));
    pair.left.ip("addr flush dev left0");
    let other = "[target.other]\nremote = \"192.0.2.2:6667\"\n";
    let peers = [6666, 6667].map(|port| Peer::start(&pair.right, port));
    let mut agent = store.start(&pair, &format!("{TARGET}{other}"), 0);
    let status = agent.wait(PATIENCE, |status| status.targets[0].state == "waiting");
    assert_eq!(status.after_crash.dumps.len(), 1);
    std::thread::sleep(Duration::from_millis(1_500));
    let sent = agent.status().targets[0].after_crash.expect("it is to be sent them");
    assert_eq!((sent.dumps_waiting, sent.lines_sent), (1, 0));

    pair.left.ip("addr add 192.0.2.1/24 dev left0");
    agent.wait(PATIENCE, all_sent);
    let _ = agent.command(&["target", "set", "other", "after_crash=true"]);
    agent.wait(PATIENCE, |status| {
        status.after_crash.dumps[0].sent_to == ["other", "peer"] && all_sent(status)
    });
    for peer in peers {
        peer.settle(QUIET);
        let (lines, _) = apart(&peer.finish());
        assert_eq!(dumps(&lines).into_values().collect::<Vec<_>>(), std::slice::from_ref(&panic));
    }
    let _ = agent.stop();
}

#[test]
fn a_kill_in_the_middle_loses_nothing() {
    let Some(store) = Store::new("a_kill_in_the_middle_loses_nothing") else { return };
    let pair = Pair::new();
    let small = store.crash(&["pstore"], 7_000_000, kernel_lines("small", 20));
    let large = kernel_lines("large", 1_500);
    let text = format!("Panic#9 Part1\n{}\n", large.join("\n"));
    store.put("pstore/dmesg-ramoops-0", text.as_bytes());

    let peer = Peer::start(&pair.right, 6666);
    let mut agent = store.start(&pair, TARGET, 1);
    let lines_sent = |status: &Status| status.targets[0].after_crash.map_or(0, |a| a.lines_sent);
    agent.wait(PATIENCE, |status| {
        let one_kept = status.after_crash.dumps.iter().any(|dump| !dump.sent_to.is_empty());
        one_kept && lines_sent(status) >= 200
    });
    // The small one is remembered: it was sent first, and the file is there.
    let file = store.state_dir().join("after-crash.json");
    let start = Instant::now();
    while !fs::read_to_string(&file).is_ok_and(|text| text.contains("peer")) {
        assert!(start.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(10));
    }
    agent.kill();
    peer.settle(QUIET);
    let (before, _) = apart(&peer.finish());
    let before = dumps(&before);
    assert!(before.values().any(|lines| *lines == small));
    let part = before.values().find(|lines| **lines != small).expect("some of the large one");
    assert!((100..large.len()).contains(&part.len()), "{}", part.len());
    assert_eq!(*part, large[..part.len()]);

    let peer = Peer::start(&pair.right, 6666);
    agent.start_again();
    let status = agent.wait(PATIENCE, |status| !status.targets.is_empty() && all_sent(status));
    assert_eq!(lines_sent(&status), 1_500);
    assert!(status.after_crash.dumps.iter().all(|dump| dump.sent_to == ["peer"]));
    peer.settle(QUIET);
    let (after, _) = apart(&peer.finish());
    // The whole dump again, and not the one that was done with.
    assert_eq!(dumps(&after).into_values().collect::<Vec<_>>(), [large]);
    // A state that cannot be read is no memory, and nothing worse.
    agent.end();
    fs::write(&file, "{").expect("damage the file");
    let peer = Peer::start(&pair.right, 6666);
    agent.start_again();
    agent.wait(PATIENCE, |status| !status.targets.is_empty() && all_sent(status));
    peer.settle(QUIET);
    let (lines, _) = apart(&peer.finish());
    assert_eq!(dumps(&lines).len(), 2);
    assert!(agent.stop().contains("not understood and begun anew"));
}
