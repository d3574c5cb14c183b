//! Rates: windows, counts, notices, and times that are not as they should be.

use std::time::Duration;

use super::*;

const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MS;

fn rate(count: u32, period_ms: u64) -> Rate {
    Rate { count, period: Duration::from_millis(period_ms) }
}

fn of_target(rate: Rate, rules: Vec<Rule>) -> Filter {
    Filter::compile(FilterSpec { rate: Some(rate), ..spec(rules) }).unwrap()
}

fn at(ts_ns: u64) -> Record<'static> {
    Record { ts_ns, ..record(b"text") }
}

/// Asks for each of these times, in records' time and the pump's alike.
fn sent(filter: &Filter, times: impl IntoIterator<Item = u64>) -> Vec<bool> {
    times
        .into_iter()
        .map(|ts_ns| filter.decide(&at(ts_ns), None, ts_ns) == Decision::Send)
        .collect()
}

fn text(notice: Notice) -> String {
    let mut buffer = [0; NOTICE_MAX_BYTES];
    String::from_utf8(notice.write(&mut buffer).to_vec()).unwrap()
}

#[test]
fn a_period_begins_with_its_first_record_and_ends_before_its_length() {
    for filter in [
        filter(vec![rule(Action::Rate(rate(2, 1000)))]),
        of_target(rate(2, 1000), Vec::new()),
        of_target(rate(2, 1000), vec![rule(Action::Send)]),
    ] {
        let begin = 7 * SECOND + 3;
        let times =
            [begin, begin, begin + 1, begin + SECOND - 1, begin + SECOND, begin + 2 * SECOND - 1];
        assert_eq!(sent(&filter, times), [true, true, false, false, true, true]);
        assert_eq!(sent(&filter, [begin + 2 * SECOND - 1]), [false]);
    }
}

#[test]
fn what_was_suppressed_is_said_when_the_period_is_over() {
    let filter = filter(vec![
        Rule { text: contains("no"), ..rule(Action::Drop) },
        rule(Action::Rate(rate(10, 5000))),
    ]);
    assert_eq!(filter.notice_due_ns(), None);
    let begin = 100 * SECOND;
    assert_eq!(sent(&filter, (0..10).map(|i| begin + i * MS)), [true; 10]);
    assert_eq!(filter.notice_due_ns(), None, "nothing suppressed yet");
    assert_eq!(sent(&filter, (10..47).map(|i| begin + i * MS)), [false; 37]);
    let due = begin + 5 * SECOND;
    assert_eq!(filter.notice_due_ns(), Some(due));
    assert_eq!(filter.take_notice(due - 1), None);
    let notice = filter.take_notice(due).unwrap();
    assert_eq!(notice, Notice { rule: Some(1), suppressed: 37, rate: rate(10, 5000) });
    let told = "37 records suppressed by rate 10/5s of filter rule 2";
    assert_eq!(text(notice), told);
    let shown = format!("`netconsole-agent, notice: {told}`");
    let readme = include_str!("../../../../../README.md");
    assert!(readme.contains(&shown), "the README shows another one");
    assert_eq!((filter.take_notice(u64::MAX), filter.notice_due_ns()), (None, None));
}

#[test]
fn a_record_of_a_later_period_ends_the_earlier_at_once() {
    let filter = of_target(rate(1, 1000), Vec::new());
    assert_eq!(sent(&filter, [0, 1, 2 * SECOND, 2 * SECOND + 1]), [true, false, true, false]);
    assert_eq!(filter.notice_due_ns(), Some(0));
    let first = filter.take_notice(2 * SECOND + 1).unwrap();
    assert_eq!(text(first), "1 record suppressed by rate 1/1s of the target");
    // The second period is not over.
    assert_eq!(filter.take_notice(2 * SECOND + 1), None);
    assert_eq!(filter.notice_due_ns(), Some(3 * SECOND));
    // Several periods are said at once if nobody asked.
    assert_eq!(
        sent(&filter, [4 * SECOND, 4 * SECOND, 6 * SECOND, 6 * SECOND]),
        [true, false, true, false]
    );
    assert_eq!(filter.take_notice(6 * SECOND).map(|notice| notice.suppressed), Some(2));
    assert_eq!(filter.take_notice(7 * SECOND).map(|notice| notice.suppressed), Some(1));
    assert_eq!(filter.take_notice(u64::MAX), None);
}

/// A backlog: the pump's clock stands at one time while the records' runs.
#[test]
fn a_backlog_passes_as_it_would_have_live() {
    let times: Vec<u64> = (0..500).map(|i| i * 17 * MS).collect();
    let rates = || filter(vec![rule(Action::Rate(rate(3, 100)))]);
    let live = rates();
    let live_sent = sent(&live, times.iter().copied());
    let late = rates();
    let now = 9_999 * SECOND;
    let late_sent: Vec<bool> =
        times.iter().map(|ts_ns| late.decide(&at(*ts_ns), None, now) == Decision::Send).collect();
    assert_eq!(live_sent, late_sent);
    // 3 of 6 in 102 ms.
    assert_eq!(live_sent.iter().filter(|sent| **sent).count(), 251);
    let told = |filter: &Filter| -> u64 {
        std::iter::from_fn(|| filter.take_notice(u64::MAX)).map(|notice| notice.suppressed).sum()
    };
    assert_eq!((told(&live), told(&late)), (249, 249));
}

#[test]
fn the_last_period_of_a_backlog_is_over_when_its_rest_has_passed() {
    let filter = filter(vec![rule(Action::Rate(rate(1, 1000)))]);
    let now = 500 * SECOND;
    let first = filter.decide(&at(10 * SECOND), None, now);
    let second = filter.decide(&at(10 * SECOND + 400 * MS), None, now);
    assert_eq!((first, second), (Decision::Send, Decision::Filter));
    assert_eq!(filter.notice_due_ns(), Some(now + 600 * MS));
    assert!(filter.take_notice(now + 600 * MS).is_some());
    // One that still comes is not let through, and is said for itself.
    assert_eq!(filter.decide(&at(10 * SECOND + 900 * MS), None, now + SECOND), Decision::Filter);
    assert_eq!(filter.notice_due_ns(), Some(now + SECOND + 100 * MS));
    assert_eq!(filter.take_notice(u64::MAX).map(|notice| notice.suppressed), Some(1));
}

#[test]
fn time_may_run_backwards() {
    let filter = filter(vec![rule(Action::Rate(rate(2, 1000)))]);
    let begin = 50 * SECOND;
    // A little: the same period.
    assert_eq!(
        sent(&filter, [begin, begin - 3 * MS, begin - 5 * MS, begin - SECOND]),
        [true, true, false, false]
    );
    // Far: the clock was set back, and nothing waits until it has caught up.
    assert_eq!(sent(&filter, [SECOND, SECOND, SECOND]), [true, true, false]);
    assert_eq!(
        sent(&filter, [0, u64::MAX, u64::MAX, 0, 0, 0]),
        [false, true, true, true, true, false]
    );
    let told: u64 =
        std::iter::from_fn(|| filter.take_notice(u64::MAX)).map(|notice| notice.suppressed).sum();
    assert_eq!(told, 5);
}

#[test]
fn a_rule_counts_before_the_target() {
    let noisy = Rule { text: contains("noisy"), ..rule(Action::Rate(rate(2, 1000))) };
    let sends = Rule { text: contains("wanted"), ..rule(Action::Send) };
    let filter = of_target(rate(3, 1000), vec![noisy, sends]);
    let explain = |text: &'static [u8]| {
        let record = Record { ts_ns: SECOND, ..record(text) };
        let explanation = filter.explain(&record, None);
        // Asking changes nothing.
        assert_eq!(filter.explain(&record, None), explanation);
        assert_eq!(filter.decide(&record, None, SECOND), explanation.decision);
        explanation.to_string()
    };
    assert_eq!(explain(b"noisy"), "sent: filter rule 1 (rate 2/1s)");
    assert_eq!(explain(b"noisy"), "sent: filter rule 1 (rate 2/1s)");
    assert_eq!(explain(b"noisy"), "left out: filter rule 1 (rate 2/1s is used up)");
    // What the rule held back did not count against the target; what a rule sends does.
    assert_eq!(explain(b"wanted"), "sent: filter rule 2 (send)");
    assert_eq!(explain(b"wanted"), "left out: rate 3/1s of the target is used up");
    assert_eq!(explain(b"else"), "left out: rate 3/1s of the target is used up");
    assert_eq!(explain(b"noisy"), "left out: filter rule 1 (rate 2/1s is used up)");
    let notices: Vec<String> =
        std::iter::from_fn(|| filter.take_notice(u64::MAX)).map(text).collect();
    assert_eq!(
        notices,
        [
            "2 records suppressed by rate 2/1s of filter rule 1",
            "2 records suppressed by rate 3/1s of the target",
        ]
    );
    // Another target that wants the same starts anew.
    let other = filter.for_another_target();
    assert_eq!(other.spec(), filter.spec());
    assert_eq!(
        other.decide(&Record { ts_ns: SECOND, ..record(b"noisy") }, None, 0),
        Decision::Send
    );
}

#[test]
fn rates_are_written_as_the_configuration_does() {
    for (count, period, wanted) in [
        (10, Duration::from_secs(5), "10/5s"),
        (1, Duration::from_millis(1500), "1/1500ms"),
        (1, Duration::from_secs(60), "1/1m"),
        (1, Duration::from_secs(90), "1/90s"),
        (7, Duration::from_secs(7200), "7/2h"),
        (u32::MAX, Duration::from_secs(86_400), "4294967295/1d"),
        (1, Duration::from_micros(1001), "1/1001us"),
        (1, Duration::from_nanos(1_000_001), "1/1000001ns"),
    ] {
        assert_eq!(Rate { count, period }.to_string(), wanted);
    }
}

#[test]
fn the_longest_notice_fits() {
    let longest = Notice {
        rule: Some(usize::MAX - 1),
        suppressed: u64::MAX,
        rate: Rate { count: u32::MAX, period: Duration::from_nanos(86_399_999_999_999) },
    };
    assert_eq!(text(longest), longest.to_string());
}

proptest::proptest! {
    /// Every record is admitted or told, and no window of records' time holds more
    /// than two counts.
    #[test]
    fn nothing_is_forgotten(
        count in 1u32..20,
        period_ms in 1u64..200,
        steps in proptest::collection::vec((0u64..50, 0u64..300, proptest::bool::ANY), 1..300),
    ) {
        let filter = filter(vec![rule(Action::Rate(rate(count, period_ms)))]);
        let (mut ts_ns, mut now_ns, mut told, mut passed) = (0, 0, 0, Vec::new());
        for (ts_ms, now_ms, ask) in &steps {
            (ts_ns, now_ns) = (ts_ns + ts_ms * MS, now_ns + now_ms * MS);
            if filter.decide(&at(ts_ns), None, now_ns) == Decision::Send {
                passed.push(ts_ns);
            }
            let due = filter.notice_due_ns().is_some_and(|due_ns| due_ns <= now_ns);
            if *ask {
                let taken = filter.take_notice(now_ns);
                proptest::prop_assert_eq!(taken.is_some(), due);
                told += taken.map_or(0, |notice| notice.suppressed);
                proptest::prop_assert!(filter.notice_due_ns().is_none_or(|due_ns| due_ns > now_ns));
            }
        }
        told += std::iter::from_fn(|| filter.take_notice(u64::MAX)).map(|notice| notice.suppressed).sum::<u64>();
        proptest::prop_assert_eq!(passed.len() as u64 + told, steps.len() as u64);
        for (i, begin) in passed.iter().enumerate() {
            let within = passed[i..].iter().take_while(|ts_ns| **ts_ns - begin < period_ms * MS);
            proptest::prop_assert!(within.count() <= 2 * count as usize);
        }
    }
}

/// The caller adds the time in suspend to both clocks.
#[test]
fn a_suspend_of_hours_ends_a_period_and_its_notice_is_due() {
    const HOURS: u64 = 8 * 3_600 * SECOND;
    let filter = of_target(rate(1, 3_600_000), Vec::new());
    assert_eq!(filter.decide(&at(SECOND), None, SECOND), Decision::Send);
    assert_eq!(filter.decide(&at(2 * SECOND), None, 2 * SECOND), Decision::Filter);
    assert!(filter.take_notice(3 * SECOND).is_none());
    assert_eq!(filter.take_notice(3 * SECOND + HOURS).map(|notice| notice.suppressed), Some(1));
    let after = 4 * SECOND + HOURS;
    assert_eq!(filter.decide(&at(after), None, after), Decision::Send);
    assert_eq!(filter.decide(&at(after + SECOND), None, after + SECOND), Decision::Filter);
}
