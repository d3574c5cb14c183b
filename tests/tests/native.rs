//! The whole agent on the running kernel: agent in one namespace, receiver in
//! another, AF_XDP over the veth pair between them.
//!
//! printk is global, so these tests run one at a time.

use std::{collections::BTreeMap, time::Duration};

use agent_tests::{
    agent::Agent,
    kmsg::{Reader, Unlimited, seq_of, write},
    netns::{Pair, root_or_skip},
    peer::{Peer, join_fragments},
};

const PORT: u16 = 6666;
const TARGET: &str =
    "[target.peer]\nremote = \"192.0.2.2:6666\"\negress = \"xdp\"\npace = \"off\"\n";
const QUIET: Duration = Duration::from_millis(400);

/// Records of every level, of lengths from 0 to the longest and of all byte values. Two
/// writers get different ones.
fn mixed(writer: u64, count: u64) -> Vec<Vec<u8>> {
    // A multiplicative generator: any mix will do, but the same at each run.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(writer + 1);
    let mut random = move || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 33
    };
    (0..count)
        .map(|index| {
            let mut record = format!("<{}>w{writer} {index} ", random() % 192).into_bytes();
            let length = match index % 10 {
                0 => 0,
                // With the newline as much as the kernel takes (`PRINTKRB_RECORD_MAX`).
                9 => 1023,
                _ => random() as usize % 1000,
            };
            if length == 0 {
                record.truncate(record.iter().position(|byte| *byte == b'>').unwrap_or(0) + 1);
            }
            // A NUL ends the text of a write, so most records are without.
            let floor = u64::from(index % 50 != 0);
            while record.len() < length {
                record.push((floor + random() % (256 - floor)) as u8);
            }
            record.push(b'\n');
            record
        })
        .collect()
}

#[test]
fn datagrams_equal_what_dev_kmsg_shows() {
    if !root_or_skip("datagrams_equal_what_dev_kmsg_shows") {
        return;
    }
    for capture in ["tracepoint", "kmsg"] {
        let pair = Pair::new();
        let _unlimited = Unlimited::new();
        let peer = Peer::start(&pair.right, PORT);
        let mut agent = Agent::start(&pair.left, &format!("capture = {capture:?}"), TARGET, 1);
        let first_seq = agent.status().capture.first_seq;
        let reader = Reader::start();
        std::thread::scope(|scope| {
            for writer in 0..2 {
                scope.spawn(move || write(&mixed(writer, 5000), 1500));
            }
        });
        // A record is only certain to be shown once a later one exists.
        write(&[b"<6>the end\n".to_vec()], 0);
        peer.settle(QUIET);
        let read = reader.finish();
        assert_eq!(read.overwritten, 0, "the independent reader was too slow");
        let status =
            agent.wait(Duration::from_secs(5), |status| status.targets[0].account.queued == 0);
        let log = agent.stop();
        let messages = join_fragments(&peer.finish());

        let shown: Vec<_> = read.lines.iter().filter(|line| line.seq >= first_seq).collect();
        assert!(shown.len() >= 10_001, "{} records were shown", shown.len());
        let first_shown = shown[0].seq;
        let arrived: Vec<_> =
            messages.iter().filter(|message| seq_of(message) >= first_shown).collect();
        for (message, line) in arrived.iter().zip(&shown) {
            assert_eq!(
                String::from_utf8_lossy(message),
                String::from_utf8_lossy(&line.bytes),
                "{capture}"
            );
            assert_eq!(*message, &line.bytes, "{capture}");
        }
        assert_eq!(arrived.len(), shown.len(), "{capture}: each once, and no more");
        let account = &status.targets[0].account;
        assert!(account.balances, "{}", account.line());
        assert_eq!((account.lost_total(), account.approximated), (0, 0), "{}", account.line());
        if capture == "tracepoint" {
            assert_eq!(status.capture.backfilled, 0, "{log}");
        }
        assert!(log.contains("final account"), "{log}");
    }
}

#[test]
fn at_full_speed_every_seq_arrives() {
    if !root_or_skip("at_full_speed_every_seq_arrives") {
        return;
    }
    const LINES: usize = 50_000;
    let pair = Pair::new();
    let _unlimited = Unlimited::new();
    let peer = Peer::start(&pair.right, PORT);
    let mut agent = Agent::start(
        &pair.left,
        "capture = \"tracepoint\"",
        &format!("{TARGET}[target.peer.sysdata]\ntaskname = true\n"),
        1,
    );
    let first_seq = agent.status().capture.first_seq;
    let text = |writer: usize, index: usize| {
        format!(
            "full speed writer {writer} line {index:05} and some text to make it eighty bytes long"
        )
    };
    std::thread::scope(|scope| {
        for writer in 0..2 {
            let records: Vec<_> = (0..LINES)
                .map(|index| format!("<6>{}\n", text(writer, index)).into_bytes())
                .collect();
            scope.spawn(move || write(&records, 0));
        }
    });
    write(&[b"<6>the end\n".to_vec()], 0);
    let status = agent.wait(Duration::from_secs(30), |status| {
        let account = &status.targets[0].account;
        account.queued == 0 && account.seen >= 2 * LINES as u64
    });
    peer.settle(QUIET);
    let log = agent.stop();
    println!("{}", status.to_text());
    let messages = peer.finish();

    let mut marked = 0;
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    for (expected, message) in (first_seq..).zip(&messages) {
        assert_eq!(seq_of(message), expected, "each seq once and in order");
        let line = String::from_utf8_lossy(message);
        let (header, rest) = line.split_once(';').expect("a header");
        let body = rest.split('\n').next().unwrap_or_default();
        *seen.entry(body.to_owned()).or_default() += 1;
        if header.contains(",approx=1") {
            marked += 1;
            assert!(header.starts_with("4,"), "{header}");
        } else if body.starts_with("full speed") {
            assert!(header.starts_with("14,"), "facility 1, level 6: {header}");
        }
    }
    for writer in 0..2 {
        for index in 0..LINES {
            assert_eq!(seen.get(&text(writer, index)), Some(&1), "writer {writer} line {index}");
        }
    }
    let account = &status.targets[0].account;
    assert!(account.balances, "{}", account.line());
    assert_eq!(account.lost_total(), 0, "{}", account.line());
    assert_eq!(marked, account.approximated, "approximated records are marked and counted");
    let completed = status.capture.completed;
    assert!(completed > LINES as u64, "the programs bring headers: {completed}");
    assert!(log.contains("final account"), "{log}");
}
