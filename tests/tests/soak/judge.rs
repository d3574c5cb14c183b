//! The judgement of one target: each seq between the checkpoints at both ends of a run was
//! captured at the peer's device, or told lost in the stream, or refused by the account.
//!
//! A run answers for the seqs from the checkpoint that it found to the one that it left. What it
//! sent beyond that is sent again by the next run, at most one batch; what it told about seqs
//! beyond is told again.
//!
//! Between a change of the link and the agent's notice of it the kernel takes frames that go
//! nowhere: those have vanished. They are bounded, and must be where the link was changed. Apart from
//! these, what is missing is exactly what was told and what was refused.

use std::{
    collections::BTreeMap,
    ops::{Range, RangeInclusive},
    time::{Duration, Instant},
};

use agent_tests::{
    kmsg::seq_of,
    stream::{Gap, Stream},
    view::AccountView,
};

/// Datagrams as they came.
pub(crate) type Frames = Vec<(Instant, Vec<u8>)>;

/// Records that one kick may hand over, and so the most that may come twice after a kill.
const BATCH: usize = 256;
/// Of everything sent, at most this share may vanish between an event and its notice.
const VANISHED_MAX: f64 = 0.002;
/// Before a change was asked for and after it was over, as the machine's clocks go.
const TOLERANCE: Duration = Duration::from_millis(100);
/// What the agent's own messages begin with.
const OWN: &[u8] = b"netconsole-agent, ";
const NOTICE: &[u8] = b"netconsole-agent, notice: ";
/// Reasons that are told in the stream.
const TOLD: [&str; 3] = ["kernel_overwrote", "not_captured", "backlog"];

/// What one run has to answer for.
#[derive(Debug)]
pub(crate) struct RunOfTarget {
    /// The first configuration of it.
    pub(crate) first_generation: u64,
    /// From the checkpoint that it found to the one that it left.
    pub(crate) seqs: Range<u64>,
    /// The last account that was read.
    pub(crate) account: Option<AccountView>,
    /// From its start to its end.
    pub(crate) times: RangeInclusive<Instant>,
    /// The line that it logged when it ended in order.
    pub(crate) final_account: Option<String>,
}

/// A record that came.
#[derive(Debug)]
struct Record {
    at: Instant,
    seq: u64,
    /// Without userdata: as `/dev/kmsg` shows it.
    line: Vec<u8>,
}

impl Record {
    /// Estimated fields are not those of `/dev/kmsg`.
    fn is_approximated(&self) -> bool {
        let header = self.line.split(|byte| *byte == b';').next().unwrap_or_default();
        header.ends_with(b",approx=1")
    }
}

/// What came of one run.
#[derive(Debug, Default)]
struct Came {
    records: Vec<Record>,
    gaps: Vec<Gap>,
}

/// See the module's description.
#[derive(Debug)]
pub(crate) struct Judgement {
    name: String,
    came: Vec<Came>,
}

impl Judgement {
    /// Judges.
    ///
    /// # Panics
    /// If anything is not as it must be.
    pub(crate) fn of(
        name: &str,
        frames: &Frames,
        runs: &[RunOfTarget],
        outages: &[RangeInclusive<Instant>],
    ) -> Self {
        let mut came: Vec<Came> = runs.iter().map(|_| Came::default()).collect();
        let (datagrams, broken) = joined(frames);
        for (at, payload) in datagrams {
            let (line, generation) = split_generation(&payload);
            let run = runs.partition_point(|run| run.first_generation <= generation) - 1;
            if line.starts_with(NOTICE) {
                came[run].gaps.extend(Stream::of(&[line.to_vec()]).gaps);
            } else if !line.starts_with(OWN) {
                came[run].records.push(Record { at, seq: seq_of(line), line: line.to_vec() });
            }
        }
        let mut sums = Sums { broken, ..Sums::default() };
        for (number, (run, came)) in runs.iter().zip(&came).enumerate() {
            judge_run(&format!("{name}, run {number}"), run, came, outages, &mut sums);
        }
        let Sums { arrived, doubled, told, refused, unexplained, broken } = sums;
        println!(
            "SOAK {name}: {} runs, {arrived} arrived, {doubled} of them once more, {told} told \
             lost, {unexplained} missing besides ({refused} refused), {broken} broken off",
            runs.len()
        );
        let most = refused + (arrived as f64 * VANISHED_MAX) as u64;
        assert!(unexplained <= most, "{name}: more than {most} vanished");
        Self { name: name.to_owned(), came }
    }

    /// Whether a record came.
    pub(crate) fn has(&self, seq: u64) -> bool {
        self.came.iter().flat_map(|came| &came.records).any(|record| record.seq == seq)
    }

    /// Each record is what an independent reader has read, byte for byte.
    ///
    /// # Panics
    /// If it is not so.
    pub(crate) fn compare_with(&self, reference: &BTreeMap<u64, &[u8]>) {
        let mut all: BTreeMap<u64, &Record> = BTreeMap::new();
        let (mut compared, mut approximated) = (0, 0);
        for record in self.came.iter().flat_map(|came| &came.records) {
            if record.is_approximated() {
                approximated += 1;
                if let Some(line) = reference.get(&record.seq) {
                    same(text_of(line), text_of(&record.line), "another text");
                }
                continue;
            }
            if let Some(line) = reference.get(&record.seq) {
                same(line, &record.line, "not what /dev/kmsg has");
                compared += 1;
            }
            let first = all.entry(record.seq).or_insert(record);
            same(&first.line, &record.line, "twice, and not the same");
        }
        println!("SOAK {}: {compared} compared, {approximated} approximated", self.name);
        assert!(compared > 0, "{}", self.name);
    }
}

/// What was printed, as it is escaped.
fn text_of(line: &[u8]) -> &[u8] {
    let at = line.iter().position(|byte| *byte == b';').expect("a header");
    line[at + 1..].split(|byte| *byte == b'\n').next().unwrap_or_default()
}

fn same(expected: &[u8], actual: &[u8], what: &str) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert_eq!(text(expected), text(actual), "{what}");
}

/// What is told of a target.
#[derive(Debug, Default)]
struct Sums {
    arrived: u64,
    doubled: u64,
    told: u64,
    refused: u64,
    /// Missing and not told.
    unexplained: u64,
    /// Records of which only a part came, at that time.
    broken: u64,
}

fn judge_run(
    name: &str,
    run: &RunOfTarget,
    came: &Came,
    outages: &[RangeInclusive<Instant>],
    sums: &mut Sums,
) {
    let Range { start, end } = run.seqs;
    let records = &came.records;
    for pair in records.windows(2) {
        assert!(pair[0].seq < pair[1].seq, "{name}: {} after {}", pair[1].seq, pair[0].seq);
    }
    if let Some(first) = records.first() {
        assert!(first.seq >= start, "{name}: {} was sent before {start}", first.seq);
    }
    if let Some(account) = &run.account {
        assert_eq!(account.first_seq, start, "{name}: {account:?}");
    }
    let own = &records[..records.partition_point(|record| record.seq < end)];
    let beyond = records.len() - own.len();
    assert!(beyond <= BATCH, "{name}: {beyond} from {end} on");
    // What was told beyond is told again.
    let gaps: Vec<_> = came.gaps.iter().filter(|gap| gap.first_seq < end).collect();
    for gap in &gaps {
        assert!(start <= gap.first_seq && gap.last_seq < end, "{name}: {start}..{end} {gap:?}");
    }
    let told: u64 = gaps.iter().flat_map(|gap| gap.lost.values()).sum();
    let refused = run.account.as_ref().map_or(0, |account| {
        let others = account.lost.iter().filter(|(reason, _)| !TOLD.contains(&reason.as_str()));
        others.map(|(_, count)| count).sum()
    });
    let missing = end - start - own.len() as u64;
    let unexplained = missing.checked_sub(told);
    let unexplained =
        unexplained.unwrap_or_else(|| panic!("{name}: {missing} missing, {told} told: {gaps:?}"));
    sums.arrived += own.len() as u64;
    sums.doubled += beyond as u64;
    sums.told += told;
    sums.refused += refused;
    sums.unexplained += unexplained;

    let near = |from: Instant, to: Instant| {
        outages
            .iter()
            .any(|outage| from <= *outage.end() + TOLERANCE && to + TOLERANCE >= *outage.start())
    };
    let (begin, over) = run.times.clone().into_inner();
    if !near(begin, over) {
        assert_eq!(unexplained, 0, "{name}: {missing} missing, {told} told; {:?}", run.account);
    }
    // Where nothing was told, the link was changed.
    let is_told = |seq: u64| gaps.iter().any(|gap| (gap.first_seq..=gap.last_seq).contains(&seq));
    let mut before = (start, begin);
    let ends = own.iter().map(|record| (record.seq, record.at)).chain([(end, over)]);
    for (seq, at) in ends {
        let untold: Vec<_> = (before.0..seq).filter(|seq| !is_told(*seq)).collect();
        if let (Some(first), Some(last)) = (untold.first(), untold.last()) {
            assert!(near(before.1, at), "{name}: {first} to {last} missing, and not told");
        }
        before = (seq + 1, at);
    }
    if let (Some(line), Some(account)) = (&run.final_account, &run.account) {
        judge_final(name, line, account, run, own.len() as u64, told, unexplained);
    }
}

/// The ledger that was logged at the end says the same.
fn judge_final(
    name: &str,
    line: &str,
    account: &AccountView,
    run: &RunOfTarget,
    arrived: u64,
    told: u64,
    unexplained: u64,
) {
    println!("SOAK {name}: {line}");
    let number = |what: &str| -> u64 {
        let rest = line.split_once(what).map(|(_, rest)| rest).unwrap_or_default();
        let digits = rest.split(|byte: char| !byte.is_ascii_digit()).next();
        digits.and_then(|digits| digits.parse().ok()).unwrap_or(0)
    };
    // Others may log much while it stops: then it does not get to send everything.
    assert_eq!(number("seen "), run.seqs.end - run.seqs.start + number("queued "), "{name}");
    assert_eq!(number("+ filtered "), 0, "{name}");
    let in_ledger: u64 = TOLD.iter().map(|reason| number(&format!("{reason} "))).sum();
    assert_eq!(in_ledger, told, "{name}: {line} {account:?}");
    let other = number("+ lost ") - in_ledger;
    assert!(other <= unexplained, "{name}: {other} refused and {unexplained} missing");
    // What vanished was sent.
    assert_eq!(number("= sent "), arrived + unexplained - other, "{name}: {line}");
}

/// Whole datagrams, and how many came in part: the agent was killed, or the socket or the settings
/// changed under a record, which then begins anew.
fn joined(frames: &Frames) -> (Frames, u64) {
    const MARK: &[u8] = b",ncfrag=";
    let mut whole = Vec::new();
    let mut broken = 0;
    let mut open: Option<(&[u8], Vec<u8>)> = None;
    for (at, payload) in frames {
        let end = payload.iter().position(|byte| *byte == b';').unwrap_or(0);
        let mark = payload[..end].windows(MARK.len()).position(|window| window == MARK);
        let Some(mark) = mark.filter(|_| !payload.starts_with(OWN)) else {
            broken += u64::from(open.take().is_some());
            whole.push((*at, payload.clone()));
            continue;
        };
        let field = std::str::from_utf8(&payload[mark + MARK.len()..end]).expect("digits");
        let (offset, total) = field.split_once('/').expect("offset/total");
        let (offset, total): (usize, usize) =
            (offset.parse().expect("offset"), total.parse().expect("total"));
        let head = &payload[..mark];
        if offset == 0 {
            broken += u64::from(open.replace((head, Vec::new())).is_some());
        }
        let Some((own, text)) = &mut open else {
            broken += 1;
            continue;
        };
        if *own != head || text.len() != offset {
            broken += 1;
            open = None;
            continue;
        }
        text.extend_from_slice(&payload[end + 1..]);
        if text.len() == total {
            whole.push((*at, [head, b";", text].concat()));
            open = None;
        }
    }
    (whole, broken)
}

/// The payload without its last line, which is userdata, and the number in that.
fn split_generation(payload: &[u8]) -> (&[u8], u64) {
    let text = payload.strip_suffix(b"\n").unwrap_or(payload);
    let at = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let number = text[at..]
        .strip_prefix(b" soak=")
        .and_then(|number| std::str::from_utf8(number).ok()?.parse().ok());
    let number = number.unwrap_or_else(|| panic!("{:?}", String::from_utf8_lossy(payload)));
    (&payload[..at], number)
}

mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    fn record(seq: u64, generation: u64) -> Vec<u8> {
        format!("6,{seq},1,-;text {seq}\n soak={generation}\n").into_bytes()
    }

    fn notice(generation: u64, text: &str) -> Vec<u8> {
        format!("netconsole-agent, notice: {text}\n soak={generation}\n").into_bytes()
    }

    /// Two runs, the second one from seq 10 on. The first one lost 4 and 5, and sent 10 and 11,
    /// which it did not get to know.
    fn datagrams() -> Vec<Vec<u8>> {
        let mut all: Vec<_> = (0..4).map(|seq| record(seq, 0)).collect();
        all.push(notice(0, "2 records lost, seq 4 to 5: backlog 2"));
        all.extend((6..12).map(|seq| record(seq, 0)));
        all.extend((10..20).map(|seq| record(seq, 1)));
        all
    }

    /// Whether it is as it must be, with an outage in between or without one.
    fn is_right(datagrams: Vec<Vec<u8>>, outage: bool) -> bool {
        let begin = Instant::now();
        let at = |ms| begin + Duration::from_millis(ms);
        let run = |first_generation, seqs, times: Range<u64>| RunOfTarget {
            first_generation,
            seqs,
            account: None,
            times: at(times.start)..=at(times.end),
            final_account: None,
        };
        let runs = [run(0, 0..10, 0..10_000), run(1, 10..20, 10_000..90_000)];
        let frames: Frames = (1..).map(|number| at(number * 1_000)).zip(datagrams).collect();
        // What is missing may be 0.2 % if the outage explains it: none of so few.
        let outages = [at(0)..=at(90_000)];
        let outages = if outage { &outages[..] } else { &[] };
        let reference: Vec<_> = (0..20).map(|seq| record(seq, 0)).collect();
        let reference = reference
            .iter()
            .map(|payload| (seq_of(payload), split_generation(payload).0))
            .collect();
        let judge = || Judgement::of("it", &frames, &runs, outages).compare_with(&reference);
        catch_unwind(AssertUnwindSafe(judge)).is_ok()
    }

    #[test]
    fn the_judge_sees_what_is_wrong() {
        assert!(is_right(datagrams(), false) && is_right(datagrams(), true));
        for left_out in 0..datagrams().len() {
            let mut less = datagrams();
            less.remove(left_out);
            // What the first run sent beyond its end came once more.
            let is_needless = [9, 10].contains(&left_out);
            assert_eq!(is_right(less.clone(), false), is_needless, "without {left_out}");
            assert_eq!(is_right(less, true), is_needless, "without {left_out}");
        }
        for (at, second) in [(3, 0), (8, 7), (15, 14)] {
            let mut swapped = datagrams();
            swapped.swap(at, second);
            assert!(!is_right(swapped, false), "{at} and {second} swapped");
        }
        for wrong in [
            // Twice in a run, before its begin, more told than missing.
            record(19, 1),
            record(9, 1),
            notice(1, "1 record lost, seq 12 to 12: kernel_overwrote 1"),
        ] {
            let mut more = datagrams();
            more.push(wrong.clone());
            assert!(!is_right(more, false), "{}", String::from_utf8_lossy(&wrong));
        }
        let mut other = datagrams();
        other[2] = b"6,2,1,-;text 3\n soak=0\n".to_vec();
        assert!(!is_right(other, false), "another text");
    }

    #[test]
    fn what_vanishes_must_do_so_where_the_link_was_changed() {
        let begin = Instant::now();
        let at = |ms| begin + Duration::from_millis(ms);
        let run = |count: u64| RunOfTarget {
            first_generation: 0,
            seqs: 0..count,
            account: None,
            times: begin..=at(count),
            final_account: None,
        };
        let is_right = |missing: Range<u64>| {
            let came = (0..1_000).filter(|seq| !missing.contains(seq));
            let frames = came.map(|seq| (at(seq), record(seq, 0))).collect();
            let judge = || Judgement::of("it", &frames, &[run(1_000)], &[at(500)..=at(520)]);
            catch_unwind(AssertUnwindSafe(judge)).is_ok()
        };
        assert!(is_right(500..500) && is_right(450..451) && is_right(600..601));
        assert!(!is_right(300..301), "before");
        assert!(!is_right(700..701), "after");
        assert!(!is_right(500..503), "more than 0.2 %");
    }

    #[test]
    fn a_record_that_was_broken_off_begins_anew() {
        let now = Instant::now();
        let part = |text: &str| (now, format!("6,7,1,-,ncfrag={text}").into_bytes());
        let frames = [part("0/6;abc"), part("0/6;abc"), part("3/6;def"), part("3/6;def")];
        let (whole, broken) = joined(&frames.to_vec());
        let payloads: Vec<_> = whole.into_iter().map(|(_, payload)| payload).collect();
        assert_eq!((payloads, broken), (vec![b"6,7,1,-;abcdef".to_vec()], 2));
    }
}
