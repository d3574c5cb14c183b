//! The judge of what the kernel's own netconsole did: each test has it do something else.

use super::*;

const OLD: &str = "6.1.0-50-amd64";
const MIDDLE: &str = "6.12.95+deb12-amd64";
const NEW: &str = "7.2.12+deb13-amd64";
/// What is logged, from seq 0 on.
const LOGGED: [&str; 11] = [
    "Linux version",
    "netconsole level 4",
    "netconsole level 5",
    "netconsole level 6",
    "netconsole next hop moved",
    "netconsole device before",
    "netconsole device meanwhile",
    "netconsole device after",
    "netconsole carrier before",
    "netconsole carrier meanwhile",
    "netconsole carrier after",
];

/// A guest of this release whose netconsole does what is known of it.
fn guest(release: &str) -> Run {
    let mut run = Run { report: Report::default(), sent: Vec::new() };
    let (files, keys, veth) = match release {
        OLD => ("enabled", "", "taken"),
        MIDDLE => ("enabled userdata", "", "refused"),
        _ => ("enabled userdata", "cpu taskname release msgid", "refused"),
    };
    let is_new = release == NEW;
    for (name, value) in [
        ("release", release),
        ("sysdata", keys),
        ("netconsole-veth", veth),
        ("netconsole-bridge-joined", "enabled=false"),
        ("netconsole-bridge-port", "refused"),
        ("netconsole-bond-joined", "enabled=false"),
        ("netconsole-bond-port", "refused"),
        ("netconsole-device-gone", "enabled=false"),
        ("netconsole-device-back", if is_new { "enabled=true" } else { "enabled=false" }),
        ("netconsole-name", if is_new { "refused as 10.0.2.2" } else { "taken as 222.0.0.0" }),
        ("netconsole-other-address", "refused"),
        ("netconsole-settings", files),
        ("netconsole-at-return", if is_new { "3" } else { "10" }),
        ("netconsole-printers", if is_new { "pr/netcon_ext0" } else { "" }),
    ] {
        run.report.info.insert(name.to_owned(), value.to_owned());
    }
    run.report.records = (0..).zip(LOGGED).map(|(seq, text)| record(seq, 12, text)).collect();
    for (port, mac, seqs) in [
        (6670, [0xff; 6], &[0][..]),
        (6663, [0xff; 6], &[1]),
        (6671, [2, 0, 0, 0, 0, 0x17], &[1, 4, 5, 7]),
        (6672, [0xff; 6], &[1, 4, 5, 7]),
        (6673, [0xff; 6], &[8, 10]),
    ] {
        seqs.iter().for_each(|&seq| send(&mut run, port, mac, seq));
    }
    run
}

fn send(run: &mut Run, port: u16, destination_mac: [u8; 6], seq: usize) {
    let record = &run.report.records[seq];
    let payload = fragments(&record.header, &record.body).concat();
    run.sent.push(Datagram { source: GUEST, destination_port: port, destination_mac, payload });
}

fn failed(run: &Run) -> Vec<String> {
    let outcomes = Evidence::new(&run.report, &run.sent).netconsole();
    let failed = outcomes.into_iter().filter(|(_, verdict)| !matches!(verdict, Verdict::Passed(_)));
    failed.map(|(name, _)| name).collect()
}

#[test]
fn what_is_known_of_it_passes() {
    for release in [OLD, MIDDLE, NEW] {
        assert_eq!(failed(&guest(release)), Vec::<String>::new(), "{release}");
    }
}

#[test]
fn another_finding_is_seen() {
    for (release, finding, value, row) in [
        (OLD, "veth", "refused", "drivers"),
        (MIDDLE, "veth", "taken", "drivers"),
        (OLD, "bridge-joined", "enabled=true", "bridge"),
        (NEW, "bridge-port", "taken", "bridge"),
        (NEW, "bond-joined", "enabled=true", "bond"),
        (OLD, "bond-port", "taken", "bond"),
        (OLD, "device-gone", "enabled=true", "comes-back"),
        (MIDDLE, "device-back", "enabled=true", "comes-back"),
        (NEW, "device-back", "enabled=false", "comes-back"),
        (NEW, "name", "taken as 222.0.0.0", "addresses"),
        (OLD, "name", "taken as 127.0.0.1", "addresses"),
        (NEW, "other-address", "taken", "addresses"),
        (NEW, "settings", "enabled level userdata", "level"),
        (MIDDLE, "settings", "enabled", "extra-data"),
        (OLD, "at-return", "9", "who-prints"),
        (OLD, "printers", "pr/netcon_ext0", "who-prints"),
        (NEW, "printers", "", "who-prints"),
    ] {
        let mut run = guest(release);
        run.report.info.insert(format!("netconsole-{finding}"), value.to_owned());
        assert_eq!(failed(&run), [format!("netconsole/{row}")], "{release} {finding}");
    }
    let mut run = guest(NEW);
    run.report.info.insert("sysdata".to_owned(), "cpu taskname release".to_owned());
    assert_eq!(failed(&run), ["netconsole/extra-data"]);
}

#[test]
fn something_else_that_was_sent_is_seen() {
    for (port, seq, row) in
        [(6663, 0, "before"), (6671, 6, "device-down"), (6673, 9, "no-carrier"), (6672, 2, "level")]
    {
        let mut run = guest(NEW);
        let mac = run.to(port)[0].destination_mac;
        send(&mut run, port, mac, seq);
        run.sent.rotate_right(1);
        assert_eq!(failed(&run), [format!("netconsole/{row}")], "seq {seq} to {port}");
    }
}

#[test]
fn something_that_was_not_sent_is_seen() {
    for (port, nth, row) in
        [(6670, 0, "before"), (6671, 0, "level"), (6672, 1, "next-hop"), (6673, 0, "no-carrier")]
    {
        let mut run = guest(NEW);
        run.lose(port, nth);
        assert_eq!(failed(&run), [format!("netconsole/{row}")], "{nth} of {port}");
    }
}

#[test]
fn what_follows_the_next_hop_is_seen() {
    for port in [6671, 6672] {
        let mut run = guest(NEW);
        run.to(port)[2].destination_mac = [2, 0, 0, 0, 0, 0x99];
        assert_eq!(failed(&run), ["netconsole/next-hop"]);
    }
}

#[test]
fn a_word_about_the_loss_is_seen() {
    let mut run = guest(NEW);
    let told = record(11, 12, "1 record was dropped");
    let payload = fragments(&told.header, &told.body).concat();
    let sent = Datagram { payload, ..run.to(6673)[0].clone() };
    run.sent.push(sent);
    assert_eq!(failed(&run), ["netconsole/no-carrier"]);
}
