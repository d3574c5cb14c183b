//! Which of the lines that a dying guest printed left it. Pure: texts in, counts out.
//!
//! What was printed is known from pstore (or, if the guest lived on, from its own log), where
//! lines have no sequence number: they are compared by time and text, each as often as it was
//! printed. Only what comes behind the mark counts.
//!
//! Which lines were printed **before the other CPUs were stopped**: everything up to and with
//! the panic's own backtrace. `panic()` (kernel/panic.c; `vpanic()` since 6.15) prints
//! "Kernel panic - not syncing", then `dump_stack()` unless an oops was printed before, then
//! stops the other CPUs (`smp_send_stop`, or `crash_smp_send_stop`), and only then calls the panic
//! notifiers and `kmsg_dump`, "Rebooting in" and "---[ end Kernel panic". So the first
//! line of those that come after the stop ([`AFTER_STOP`]) divides the two. A line that is not
//! known counts as printed before, which can only make a result worse.
//! pstore is written by `kmsg_dump`: what is printed behind it is in no reference.

use std::collections::{HashMap, HashSet};

use anyhow::{Context, Result, ensure};

use super::crashes::STORM_START;

/// The text of the mark, as the guest's init script writes it.
pub(super) const MARK: &str = "last-words: it begins";
const PANIC: &str = "Kernel panic - not syncing";
/// How lines begin that panic() has printed after the other CPUs were stopped.
const AFTER_STOP: &[&str] = &[
    // native_stop_other_cpus (arch/x86/kernel/smp.c), when the first way of stopping failed.
    "Shutting down cpus with NMI",
    // Panic notifiers: dump_kernel_offset (arch/x86/kernel/setup.c), ftrace_dump.
    "Kernel Offset: ",
    "Memory Limit: ",
    "Dumping ftrace buffer:",
    // panic_print_sys_info, since 6.18 sys_info: show_state, show_mem, timers, locks.
    "Mem-Info:",
    "Timer List Version:",
    "Showing all locks held",
    // The end of panic().
    "Rebooting in ",
    "---[ end Kernel panic",
];

/// A line of the kernel log.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Line {
    /// Microseconds since boot.
    pub(super) ts_us: u64,
    pub(super) text: String,
}

impl Line {
    /// As the kernel shows it.
    fn shown(&self) -> String {
        format!("[{:5}.{:06}] {}", self.ts_us / 1_000_000, self.ts_us % 1_000_000, self.text)
    }
}

/// A record that arrived, or a line without a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// A whole record; its text may have several lines.
    Record { seq: u64, ts_us: u64, text: String },
    /// What no receiver takes for a record.
    Plain(String),
}

/// What the guest printed behind the mark.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Printed {
    /// While the other CPUs ran.
    pub(super) before_stop: Vec<Line>,
    /// After they had been stopped.
    pub(super) later: Vec<Line>,
    /// Lines of the storm, which do not belong to the crash.
    pub(super) storm: Vec<Line>,
}

/// How many of how many lines arrived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Share {
    pub(super) arrived: usize,
    pub(super) printed: usize,
}

impl Share {
    /// All of them, if there were any.
    pub(super) fn is_whole(self) -> bool {
        self.arrived == self.printed
    }

    /// In percent; nothing of nothing is everything.
    pub(super) fn percent(self) -> f64 {
        if self.printed == 0 { 100.0 } else { 100.0 * self.arrived as f64 / self.printed as f64 }
    }
}

/// The verdict on one run.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Verdict {
    pub(super) before_stop: Share,
    pub(super) later: Share,
    pub(super) storm: Share,
    /// Of the lines of the crash that did not arrive: those that were told after the reboot.
    /// Nothing of nothing if that was not looked at.
    pub(super) after_reboot: Share,
    /// The lines printed before the stop that did not arrive.
    pub(super) missing: Vec<String>,
}

/// The log that pstore kept of the last crash: the dump with the highest number, its parts in
/// their order (the first part is the newest).
///
/// # Errors
/// A file that is no part of a dump, or a part that is missing.
pub(super) fn read_pstore(files: &[(String, String)]) -> Result<Vec<Line>> {
    let mut dumps: HashMap<u32, Vec<(u32, String)>> = HashMap::new();
    for (name, content) in files {
        ensure!(!name.ends_with(".enc.z"), "the kernel could not decompress pstore's {name}");
        let (head, text) = content.split_once('\n').unwrap_or((content, ""));
        let (dump, part) =
            pstore_head(head).with_context(|| format!("pstore's {name} begins with {head:?}"))?;
        dumps.entry(dump).or_default().push((part, text.to_owned()));
    }
    let newest = dumps.into_iter().max_by_key(|(dump, _)| *dump).context("pstore has no dump")?;
    let (_, mut parts) = newest;
    parts.sort_by_key(|(part, _)| *part);
    for (number, (part, _)) in (1..).zip(&parts) {
        ensure!(number == *part, "part {number} of pstore's dump is missing");
    }
    Ok(parts.iter().rev().flat_map(|(_, text)| read_log(text)).collect())
}

/// `Panic#2 Part1` (`pstore_dump`, fs/pstore/platform.c) as 2 and 1.
fn pstore_head(head: &str) -> Option<(u32, u32)> {
    let (dump, part) = head.trim_end().split_once(" Part")?;
    let (_, dump) = dump.split_once('#')?;
    Some((dump.parse().ok()?, part.parse().ok()?))
}

/// Lines such as `<6>[    5.123456] text`, with or without the level; others are left out.
pub(super) fn read_log(text: &str) -> Vec<Line> {
    let line = |line: &str| {
        let rest = match line.strip_prefix('<') {
            Some(rest) => rest.split_once('>')?.1,
            None => line,
        };
        let (time, text) = rest.strip_prefix('[')?.split_once("] ")?;
        let (s, us) = time.trim_start().split_once('.')?;
        let ts_us = s.parse::<u64>().ok()? * 1_000_000 + us.parse::<u64>().ok()?;
        Some(Line { ts_us, text: text.trim_end_matches('\r').to_owned() })
    };
    text.split('\n').filter_map(line).collect()
}

/// Divides what was printed behind the mark.
///
/// # Errors
/// No mark, or no panic where one must be: the reference is of no use.
pub(super) fn divide(lines: Vec<Line>, panics: bool) -> Result<Printed> {
    let total = lines.len();
    let mut behind = lines.into_iter().skip_while(|line| line.text != MARK);
    // The mark itself is no word of the crash.
    ensure!(behind.next().is_some(), "the mark is not in the reference ({total} lines)");
    let mut printed = Printed::default();
    let mut panicked = false;
    for line in behind {
        if line.text.starts_with(STORM_START) {
            printed.storm.push(line);
            continue;
        }
        let after_stop = AFTER_STOP.iter().any(|start| line.text.starts_with(start));
        if panicked && (after_stop || !printed.later.is_empty()) {
            printed.later.push(line);
        } else {
            panicked |= line.text.starts_with(PANIC);
            printed.before_stop.push(line);
        }
    }
    ensure!(!printed.before_stop.is_empty(), "nothing follows the mark in the reference");
    ensure!(panicked == panics, "the reference {} a panic", if panics { "lacks" } else { "has" });
    Ok(printed)
}

/// Compares what was printed with what arrived until the reboot and, if that was asked for,
/// after it.
pub(super) fn compare(printed: &Printed, first: &[Arrival], second: Option<&[Arrival]>) -> Verdict {
    let mut arrived: HashMap<Line, HashSet<(u64, usize)>> = HashMap::new();
    for arrival in first {
        let Arrival::Record { seq, ts_us, text } = arrival else { continue };
        for (number, text) in text.split('\n').enumerate() {
            let line = Line { ts_us: *ts_us, text: text.to_owned() };
            // A record that comes twice is still one.
            arrived.entry(line).or_default().insert((*seq, number));
        }
    }
    let mut left: HashMap<Line, usize> =
        arrived.into_iter().map(|(line, places)| (line, places.len())).collect();
    let mut count = |lines: &[Line]| {
        let mut missing = Vec::new();
        for line in lines {
            match left.get_mut(line) {
                Some(count) if *count > 0 => *count -= 1,
                _ => missing.push(line.clone()),
            }
        }
        (Share { arrived: lines.len() - missing.len(), printed: lines.len() }, missing)
    };
    let (before_stop, missing) = count(&printed.before_stop);
    let (later, missing_later) = count(&printed.later);
    let after_reboot = second.map(|second| {
        let told = |line: &&Line| {
            let end = line.shown();
            let ends =
                |arrival: &Arrival| matches!(arrival, Arrival::Plain(text) if text.ends_with(&end));
            second.iter().any(ends)
        };
        let rest = || missing.iter().chain(&missing_later);
        Share { arrived: rest().filter(told).count(), printed: rest().count() }
    });
    let after_reboot = after_reboot.unwrap_or_default();
    let mut left_of_storm = left;
    let storm = printed.storm.iter().filter(|line| {
        let count = left_of_storm.get_mut(line);
        count.is_some_and(|count| std::mem::take(count) > 0)
    });
    let storm = Share { arrived: storm.count(), printed: printed.storm.len() };
    let missing = missing.into_iter().map(|line| line.text).collect();
    Verdict { before_stop, later, storm, after_reboot, missing }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PANIC_LOG: &str = "<6>[    1.000000] before\n<6>[    5.000001] last-words: it begins\n\
        <6>[    5.300000] sysrq: Trigger a crash\n\
        <0>[    5.300100] Kernel panic - not syncing: sysrq triggered crash\n\
        <4>[    5.300200] CPU: 1 PID: 80 Comm: init\n<4>[    5.300300] Call Trace:\n\
        <4>[    5.300300]  <TASK>\n<4>[    5.300300]  </TASK>\n\
        <0>[    5.300400] Kernel Offset: 0x1000 from 0xffffffff81000000\n<0>[    5.300500] odd\n";

    fn record(seq: u64, ts_us: u64, text: &str) -> Arrival {
        Arrival::Record { seq, ts_us, text: text.to_owned() }
    }

    fn lines(number: usize) -> Vec<Arrival> {
        let lines = read_log(PANIC_LOG);
        let records = (1..).zip(&lines).map(|(seq, line)| record(seq, line.ts_us, &line.text));
        records.take(number).collect()
    }

    fn printed() -> Printed {
        divide(read_log(PANIC_LOG), true).unwrap()
    }

    #[test]
    fn reads_lines_with_and_without_a_level() {
        let read = read_log("<4>[   12.000345] a] b\n[    0.000000] c\nnothing\n\n<6>[ 1.5");
        let line = |ts_us, text: &str| Line { ts_us, text: text.to_owned() };
        assert_eq!(read, [line(12_000_345, "a] b"), line(0, "c")]);
        assert_eq!(read_log("<4>[    1.000000] \n"), [line(1_000_000, "")]);
    }

    #[test]
    fn puts_the_parts_of_the_newest_dump_in_order() {
        let file = |name: &str, text: &str| (name.to_owned(), text.to_owned());
        let files = [
            file("dmesg-erst-3", "Panic#2 Part1\n<0>[    2.000000] second\n"),
            file("dmesg-erst-1", "Oops#1 Part1\n<0>[    1.000000] an older dump\n"),
            file("dmesg-erst-4", "Panic#2 Part2\n<0>[    1.000000] first\n"),
        ];
        let texts: Vec<_> = read_pstore(&files).unwrap().into_iter().map(|l| l.text).collect();
        assert_eq!(texts, ["first", "second"]);
        assert!(read_pstore(&files[2..]).is_err());
        assert!(read_pstore(&[]).is_err());
        assert!(read_pstore(&[file("x", "no head\n")]).is_err());
        assert!(read_pstore(&[file("dmesg-erst-1.enc.z", "Panic#1 Part1\n")]).is_err());
    }

    #[test]
    fn the_stop_lies_behind_the_backtrace_of_the_panic() {
        let printed = printed();
        assert_eq!(printed.before_stop.len(), 6);
        assert_eq!(printed.before_stop[0].text, "sysrq: Trigger a crash");
        assert_eq!(printed.before_stop[5].text, " </TASK>");
        // What follows the first later line is later, too.
        assert_eq!(printed.later.len(), 2);
    }

    #[test]
    fn an_oops_is_printed_before_the_stop_even_if_it_looks_like_its_end() {
        let log = "[    1.000000] last-words: it begins\n[    1.000001] Kernel Offset: odd\n\
            [    1.000002] ---[ end trace 0000000000000000 ]---\n";
        assert_eq!(divide(read_log(log), false).unwrap().before_stop.len(), 2);
        assert!(divide(read_log(log), true).is_err());
        assert!(divide(read_log("[    1.000000] other\n"), false).is_err());
        assert!(divide(read_log("[    1.000000] last-words: it begins\n"), false).is_err());
    }

    #[test]
    fn counts_what_arrived() {
        let verdict = compare(&printed(), &lines(9), None);
        assert!(verdict.before_stop.is_whole());
        assert_eq!(verdict.before_stop, Share { arrived: 6, printed: 6 });
        assert_eq!(verdict.later, Share { arrived: 1, printed: 2 });
        assert!(verdict.missing.is_empty());

        let verdict = compare(&printed(), &lines(5), None);
        assert_eq!(verdict.before_stop, Share { arrived: 3, printed: 6 });
        assert_eq!(verdict.missing, ["Call Trace:", " <TASK>", " </TASK>"]);
    }

    #[test]
    fn a_repeated_record_and_one_of_another_time_do_not_count() {
        let log =
            "[    1.000000] last-words: it begins\n[    1.000001] same\n[    1.000001] same\n";
        let printed = divide(read_log(log), false).unwrap();
        let mark = record(1, 1_000_000, MARK);
        let share = |arrivals: &[Arrival]| compare(&printed, arrivals, None).before_stop.arrived;
        assert_eq!(share(&[mark.clone(), record(2, 1_000_001, "same")]), 1);
        let twice = [mark.clone(), record(2, 1_000_001, "same"), record(2, 1_000_001, "same")];
        assert_eq!(share(&twice), 1);
        assert_eq!(share(&[mark.clone(), record(2, 1_000_001, "same\nsame")]), 2);
        assert_eq!(share(&[mark, record(2, 1_000_009, "same")]), 0);
    }

    #[test]
    fn the_storm_is_counted_apart() {
        let log = "[    1.000000] last-words: it begins\n[    1.000001] storm 1: a\n\
            [    1.000002] Kernel panic - not syncing: x\n[    1.000003] storm 2: a\n";
        let printed = divide(read_log(log), true).unwrap();
        let arrivals = [record(1, 1_000_000, MARK), record(4, 1_000_003, "storm 2: a")];
        let verdict = compare(&printed, &arrivals, None);
        assert_eq!(verdict.before_stop, Share { arrived: 0, printed: 1 });
        assert_eq!(verdict.storm, Share { arrived: 1, printed: 2 });
    }

    #[test]
    fn the_rest_may_come_after_the_reboot() {
        let plain = |text: &str| Arrival::Plain(text.to_owned());
        let second = [
            plain("boot x: <4>[    5.300300]  </TASK>"),
            plain("boot x: <0>[    5.300301] Kernel Offset: 0x1000 from 0xffffffff81000000"),
            plain("boot x: <0>[    5.300500] odd"),
            record(8, 5_300_400, "Kernel Offset: 0x1000 from 0xffffffff81000000"),
        ];
        let verdict = compare(&printed(), &lines(7), Some(&second));
        assert_eq!(verdict.before_stop, Share { arrived: 5, printed: 6 });
        assert_eq!(verdict.after_reboot, Share { arrived: 2, printed: 3 });
    }
}
