use super::*;
use crate::control::last_words::LastWordsStatus;
use crate::control::status::ShedStatus;
use crate::control::status::after_crash::AfterCrashStatus;
use crate::control::status::{
    Account, CaptureStatus, EgressStatus, NextHopStatus, RefusedStatus, Status, TargetStatus,
};

fn target(name: &str, state: &str, remote: &str) -> TargetStatus {
    TargetStatus {
        name: name.to_owned(),
        remote: remote.to_owned(),
        remote_address: None,
        format: "extended".to_owned(),
        state: state.to_owned(),
        waiting_for: None,
        waiting_kind: None,
        egress: None,
        next_hop: None,
        warnings: Vec::new(),
        suspected: 0,
        transitions: Vec::new(),
        live: Vec::new(),
        last_error: None,
        account: Account {
            first_seq: 0,
            next_seq: 0,
            seen: 0,
            sent: 0,
            filtered: 0,
            lost: [("backlog".to_owned(), 0)].into(),
            queued: 0,
            approximated: 0,
            backfilled: 0,
            doubled: 0,
            packets: 0,
            messages: 0,
            messages_lost: 0,
            balances: true,
            unbalanced: 0,
        },
        after_crash: None,
    }
}

fn status() -> Status {
    let mut fleet = target("fleet", "active", "192.0.2.10:1514");
    fleet.egress =
        Some(EgressStatus { kind: "xdp".to_owned(), reason: String::new(), queue: Some(3) });
    fleet.next_hop = Some(NextHopStatus {
        device: "enp65s0f0np0".to_owned(),
        source: "192.0.2.1".to_owned(),
        mac: Some("02:00:00:00:00:02".to_owned()),
        gateway: None,
        confirmed_s: None,
    });
    fleet.account.sent = 1_234_567;
    fleet.account.filtered = 99_999;
    fleet.live = vec!["max_level".to_owned()];
    let mut away = target("debug-of-rack-12", "waiting", "collector.example.net:6666");
    away.waiting_for = Some("no route to 2001:db8::10\u{1b}[31m; the link is down".to_owned());
    away.account.queued = 61;
    away.account.lost.insert("backlog".to_owned(), 12);
    away.warnings = vec!["odd".to_owned()];
    Status {
        after_crash: AfterCrashStatus::default(),
        version: "0.1.0".to_owned(),
        pid: 4711,
        uptime_s: 7265,
        capture: CaptureStatus {
            source: "commit".to_owned(),
            hook: Some("fentry".to_owned()),
            ..CaptureStatus::default()
        },
        last_words: LastWordsStatus::default(),
        targets: vec![fleet, away],
        config_error: None,
        config_generation: 1,
        removed: Vec::new(),
        refused: RefusedStatus::default(),
        metrics_error: None,
    }
}

#[test]
fn eighty_columns_show_what_matters_most() {
    let expected = "\
netconsole-agent 0.1.0, pid 4711, up 2h 1m 5s, source commit (fentry)

TARGET           STATE    WAY           SENT  LOST  QUEUED  LAST ERROR
fleet*           active   …0np0/3/xdp  1.23M     0       0
debug-of-rack-…  waiting  -                0    12      61  no route to 2001:db…
* changed live, until the agent restarts (--verbose says what)
1 target has warnings (--verbose shows them)
no room for NEXT HOP, REMOTE, FILTERED (--verbose)
";
    assert_eq!(status().to_screen(Some(80)), expected);
}

#[test]
fn a_wide_terminal_shows_all_columns() {
    let expected = "\
netconsole-agent 0.1.0, pid 4711, up 2h 1m 5s, source commit (fentry)

TARGET            STATE    REMOTE                      WAY                 NEXT HOP            SENT  FILTERED  LOST  QUEUED  LAST ERROR
fleet*            active   192.0.2.10:1514             enp65s0f0np0/3/xdp  02:00:00:00:00:02  1.23M     99999     0       0
debug-of-rack-12  waiting  collector.example.net:6666  -                   -                      0         0    12      61  no route to 2001:db8::10\\x1b[31m; …
* changed live, until the agent restarts (--verbose says what)
1 target has warnings (--verbose shows them)
";
    assert_eq!(status().to_screen(Some(160)), expected);
}

#[test]
fn no_line_is_wider_than_the_terminal_and_nothing_is_cut_without_one() {
    let mut status = status();
    status.config_error = Some("x".repeat(500));
    for width in 0..400 {
        for line in status.to_screen(Some(width)).lines() {
            assert!(line.chars().count() <= width, "{width}: {line}");
        }
    }
    let whole = status.to_screen(None);
    assert!(!whole.contains('…'), "{whole}");
    for text in
        ["collector.example.net:6666", "debug-of-rack-12", "the link is down", &"x".repeat(500)]
    {
        assert!(whole.contains(text), "{whole}");
    }
    assert!(!whole.contains('\u{1b}'), "{whole}");
}

#[test]
fn troubles_are_in_the_head_and_errors_have_no_column_if_there_are_none() {
    let mut status = status();
    status.targets.truncate(1);
    status.refused = RefusedStatus { not_allowed: 3, malformed: 2, too_many_clients: 1 };
    status.config_error = Some("agent.toml:3:1: no such key".to_owned());
    status.capture.ring_full = 5;
    let text = status.to_screen(None);
    assert!(!text.contains("LAST ERROR"), "{text}");
    for line in [
        "capture: ring full 5",
        "configuration NOT IN USE: agent.toml:3:1: no such key",
        "refused at the control socket: 3 not allowed, 2 malformed, 1 too many at once",
    ] {
        assert!(text.lines().any(|shown| shown == line), "{line}\n{text}");
        assert!(
            status
                .to_text()
                .lines()
                .any(|shown| shown.contains(line.trim_start_matches("capture: ")))
        );
    }
    status.capture.shed = ShedStatus { debug: 4, info: 2, notice: 1, warning: 0 };
    let text = status.to_screen(None);
    assert!(
        text.contains("\ncapture: ring full 5, left out while the ring filled up 7\n"),
        "{text}"
    );
    let shed = "  left out while the ring filled up: debug 4, info 2, notice 1, warning 0\n";
    assert!(status.to_text().contains(shed));
    status.targets[0].last_error = Some("the socket was dead".to_owned());
    assert!(status.to_screen(Some(100)).contains("the socket was dead"));
    assert!(status.to_text().contains("  last error: the socket was dead\n"));
    assert!(status.to_text().contains("  changed live: max_level\n"));
    status.targets.clear();
    assert!(status.to_screen(Some(80)).ends_with("\nThere is no target.\n"));
}

#[test]
fn counts_are_short_and_never_more_than_there_are() {
    for (count, text) in [
        (0, "0"),
        (99_999, "99999"),
        (100_000, "100k"),
        (999_999, "999k"),
        (1_000_000, "1.00M"),
        (1_239_999, "1.23M"),
        (12_399_999, "12.3M"),
        (1_000_000_000_000, "1.00T"),
        (u64::MAX, "18E"),
    ] {
        assert_eq!(short(count), text);
    }
}

#[test]
fn an_older_status_is_still_understood() {
    let mut json = serde_json::to_value(status()).expect("JSON");
    let object = json.as_object_mut().expect("an object");
    for field in ["config_error", "config_generation", "refused"] {
        assert!(object.remove(field).is_some(), "{field}");
    }
    for target in object["targets"].as_array_mut().expect("targets") {
        for field in ["live", "last_error"] {
            assert!(target.as_object_mut().expect("an object").remove(field).is_some(), "{field}");
        }
    }
    let old: Status = serde_json::from_value(json).expect("understood");
    assert_eq!((old.config_generation, old.refused), (0, RefusedStatus::default()));
    assert_eq!(old.targets.len(), 2);
}
