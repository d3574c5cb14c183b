//! The judges of the phases that are about one thing each: overload, clocks, contexts.

use super::*;

/// A phase with its marks around `logged` (priority and text), and what of it was sent to
/// `port`.
struct Phase {
    report: Report,
    sent: Vec<Datagram>,
}

fn datagram(port: u16, payload: Vec<u8>) -> Datagram {
    Datagram { source: GUEST, destination_port: port, destination_mac: NEIGHBOUR, payload }
}

impl Phase {
    fn new(name: &str, logged: impl IntoIterator<Item = (u32, String)>) -> Self {
        let mut report = Report::default();
        report.info.insert("release".to_owned(), RELEASE.to_owned());
        let marks = [(12, format!("vm-test {name} begin")), (12, format!("vm-test {name} end"))];
        let [begin, end] = marks;
        let all = [begin].into_iter().chain(logged).chain([end]);
        report.records =
            (100..).zip(all).map(|(seq, (prio, text))| record(seq, prio, &text)).collect();
        Self { report, sent: Vec::new() }
    }

    fn send(&mut self, port: u16, wanted: impl Fn(&Record) -> bool) {
        for record in self.report.records.iter().filter(|record| wanted(record)) {
            let payload = fragments(&record.header, &record.body).concat();
            self.sent.push(datagram(port, payload));
        }
    }

    fn judge<'a>(
        &'a self,
        judge: impl Fn(&Evidence<'a>) -> Result<String>,
    ) -> Result<String, String> {
        judge(&Evidence::new(&self.report, &self.sent)).map_err(|error| format!("{error:#}"))
    }
}

/// 100 severe records among 400 others, of which what is milder is given up earlier; and what the
/// kernel still has when the agent goes on.
fn overload(lost: impl Fn(u64, u64) -> bool) -> Phase {
    let levels = (0..500).map(|number| if number % 5 == 4 { 3 } else { 4 + number % 5 });
    let levels = levels.chain([6; 1_100]);
    let mut phase =
        Phase::new("overload", levels.map(|level| (8 | level as u32, format!("flood {level}"))));
    phase.send(7963, |record| !lost(record.level, record.seq));
    let missing =
        phase.report.records.iter().filter(|record| lost(record.level, record.seq)).count();
    phase.report.info.insert(
        "status-overload".to_owned(),
        serde_json::json!({
            "capture": { "ring_full": 0, "backfilled": 1_100, "shed": { "debug": missing } },
            "targets": [{ "account": { "balances": true, "queued": 0, "lost": { "x": missing } } }],
        })
        .to_string(),
    );
    phase
}

fn in_order(level: u64, seq: u64) -> bool {
    level >= 4 && (100 + 50 * (8 - level)..590).contains(&seq)
}

#[test]
fn an_overload_is_judged_by_level_and_account() {
    let mut good = overload(in_order);
    good.sent.push(datagram(7963, b"netconsole-agent, notice: some are missing\n".to_vec()));
    assert!(good.judge(Evidence::overload).is_ok(), "{:?}", good.judge(Evidence::overload));
    let error = |phase: Phase| phase.judge(Evidence::overload).unwrap_err();
    let severe = overload(|level, seq| in_order(level, seq) || (level, seq) == (3, 305));
    assert!(error(severe).contains("of level 3 is missing"));
    let disorder = overload(|level, seq| in_order(level, seq) || (level == 4 && seq < 120));
    assert!(error(disorder).contains("not in the order"));
    let gone = overload(|level, seq| in_order(level, seq) || (level, seq) == (6, 1_300));
    assert!(error(gone).contains("still 1300 is missing"));
    let mut unfilled = overload(in_order);
    let status = unfilled.report.info.get_mut("status-overload").unwrap();
    *status = status.replace("\"backfilled\":1100", "\"backfilled\":0");
    assert!(error(unfilled).contains("0 were filled in"));
    let mut untold = overload(in_order);
    let of_debug = |sent: &Datagram| sent.payload.ends_with(b"flood 7\n");
    let last = untold.sent.iter().rposition(of_debug).unwrap();
    untold.sent.remove(last);
    assert!(error(untold).contains("are missing"));
    let mut doubled = overload(in_order);
    doubled.sent.push(doubled.sent[0].clone());
    assert!(error(doubled).contains("twice"));
}

fn resume() -> Phase {
    let mut phase = Phase::new("resume", (0..600).map(|number| (14, format!("resumed {number}"))));
    phase.report.records.insert(0, record(99, 14, "of before"));
    phase.send(7965, |_| true);
    let status = serde_json::json!({
        "capture": { "source": "commit", "replayed": 7 },
        "targets": [{ "account": { "balances": true, "queued": 0, "lost": { "x": 0 } } }],
    });
    phase.report.info.insert("status-resume".to_owned(), status.to_string());
    phase.report.info.insert("resume-ends".to_owned(), "10".to_owned());
    phase
}

#[test]
fn every_record_must_come_over_the_ends_of_the_agent() {
    let mut good = resume();
    // A kill: the last records of a batch come again, and half of a long one.
    let again = good.sent[300].clone();
    good.sent.insert(310, again);
    good.sent.push(datagram(7965, b"6,98,1,-,ncfrag=0/9;half".to_vec()));
    let seen = good.judge(Evidence::resume);
    assert_eq!(
        seen.as_deref(),
        Ok("602 records over 10 ends of the agent, 1 came twice; 1 of before")
    );
    let error = |phase: Phase| phase.judge(Evidence::resume).unwrap_err();
    let mut lost = resume();
    lost.sent.remove(300);
    assert!(error(lost).contains("1 records are missing"));
    let mut unlike = resume();
    let mut other = unlike.sent[300].clone();
    other.payload.insert(other.payload.len() - 1, b'!');
    unlike.sent.push(other);
    assert!(error(unlike).contains("not alike"));
    let mut live = resume();
    live.sent.remove(0);
    assert!(error(live).contains("nothing was replayed"));
    for (from, to) in
        [("commit", "kmsg"), ("\"replayed\":7", "\"replayed\":0"), ("\"x\":0", "\"x\":1")]
    {
        let mut spoiled = resume();
        let status = spoiled.report.info.get_mut("status-resume").unwrap();
        *status = status.replace(from, to);
        assert!(spoiled.judge(Evidence::resume).is_err(), "{to}");
    }
}

fn clocks() -> Phase {
    let limited = |when: &'static str, count| {
        (0..count).map(move |number| (134, format!("limited {when} {number}")))
    };
    let logged = [(14, "clocks 0".to_owned()), (6, "PM: suspend exit".to_owned())]
        .into_iter()
        .chain(limited("before the suspend", 8))
        .chain(limited("after the resume", 8))
        .chain(limited("an hour forth", 1));
    let mut phase = Phase::new("clocks", logged);
    phase.report.info.insert("suspended".to_owned(), "14".to_owned());
    phase.send(8063, |_| true);
    for _ in 0..3 {
        phase.sent.push(datagram(8063, b"netconsole-agent, keepalive: x\n".to_vec()));
    }
    phase.send(8064, |record| {
        record.facility == 16
            && (0..5).any(|number| record.body.ends_with(format!(" {number}\n").as_bytes()))
            && !record.body.starts_with(b"limited an hour")
    });
    phase
}

#[test]
fn a_suspend_is_judged_by_records_keepalives_and_rate() {
    let good = clocks();
    assert!(good.judge(Evidence::clocks_all).is_ok(), "{:?}", good.judge(Evidence::clocks_all));
    let limited = good.judge(Evidence::clocks_limited);
    assert_eq!(limited.as_deref(), Ok("10 of 17 records passed"));
    let mut lost = clocks();
    lost.sent.remove(3);
    assert!(lost.judge(Evidence::clocks_all).unwrap_err().contains("seq 104 came instead"));
    let mut silent = clocks();
    let at = silent.sent.iter().position(|sent| sent.payload.starts_with(MESSAGE)).unwrap();
    silent.sent.remove(at);
    assert!(silent.judge(Evidence::clocks_all).unwrap_err().contains("2 keepalives"));
    for spoil in [
        |sent: &mut Vec<Datagram>| drop(sent.pop()),
        |sent: &mut Vec<Datagram>| {
            let again = Datagram { destination_port: 8064, ..sent[0].clone() };
            sent.push(again);
        },
    ] {
        let mut spoiled = clocks();
        spoil(&mut spoiled.sent);
        assert!(spoiled.judge(Evidence::clocks_limited).is_err());
    }
}

#[test]
fn a_context_that_did_not_happen_is_seen() {
    let logged = [
        (6, "sysrq: Show Regs".to_owned()),
        (4, "RIP: 0010:pv_native_safe_halt+0xf/0x20".to_owned()),
        (4, "NMI backtrace for cpu 0".to_owned()),
        (5, "Dumping ftrace buffer:".to_owned()),
        (12, "outer 0".to_owned()),
        (12, String::new()),
        (14, "x".repeat(1020)),
    ];
    let phase = |without: usize, piece: bool| {
        let logged = logged.iter().enumerate().filter(|(at, _)| *at != without);
        let mut phase = Phase::new("commit", logged.map(|(_, record)| record.clone()));
        let flag = if piece { 'c' } else { '-' };
        let raw = format!("6,{},1,{flag};piece\n", 100 + phase.report.records.len());
        phase.report.records.insert(1, Record::parse(raw.as_bytes()).unwrap());
        for (seq, record) in (100..).zip(&mut phase.report.records) {
            record.seq = seq;
        }
        phase.judge(|evidence| evidence.contexts("commit"))
    };
    assert!(phase(usize::MAX, true).is_ok(), "{:?}", phase(usize::MAX, true));
    assert!(phase(usize::MAX, false).unwrap_err().contains("continuation"));
    for (without, left_out) in logged.iter().enumerate() {
        assert!(phase(without, true).is_err(), "{left_out:?}");
    }
}
