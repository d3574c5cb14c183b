//! At most so many records in a period, and how many were suppressed.
//!
//! Periods are fixed windows that begin with their first record, as in `___ratelimit`
//! (`lib/ratelimit.c`), and are counted by the records' own time, so that a backlog
//! passes as it would have passed live. The caller adds the time that the host was suspended,
//! in which printk's clock may stand still. The pump's clock (`CLOCK_BOOTTIME`) says only
//! when a period in which nothing came any more is over.
//!
//! printk's clock differs a little between CPUs: a time before the beginning of a
//! period belongs to it, unless it is earlier by more than a whole period. Then the
//! clock was set back, and a new period begins, lest nothing pass for an age.

use std::{
    fmt,
    io::Write as _,
    sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
};

use super::spec::Rate;

/// Longest text of a [`Notice`] in bytes.
pub const NOTICE_MAX_BYTES: usize = 128;

/// The state of one rate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Window {
    /// The first record's own time.
    begin_ts_ns: u64,
    /// In this period; 0 before there was any.
    admitted: u32,
    /// In this period, and not said yet.
    suppressed: u64,
    /// On the pump's clock: when this period is over even if no record comes. Only with
    /// any suppressed.
    due_ns: u64,
    /// In periods that are over, and not said yet.
    finished: u64,
}

impl Window {
    /// Whether one more record may pass.
    pub(super) fn admit(&mut self, rate: Rate, ts_ns: u64, now_ns: u64) -> bool {
        let period_ns = u64::try_from(rate.period.as_nanos()).unwrap_or(u64::MAX);
        let elapsed_ns = ts_ns.saturating_sub(self.begin_ts_ns);
        let set_back = self.begin_ts_ns.saturating_sub(ts_ns) > period_ns;
        if self.admitted == 0 || elapsed_ns >= period_ns || set_back {
            *self = Self {
                begin_ts_ns: ts_ns,
                finished: self.finished.saturating_add(self.suppressed),
                ..Self::default()
            };
        }
        if self.admitted < rate.count {
            self.admitted += 1;
            return true;
        }
        if self.suppressed == 0 {
            let left_ns = period_ns - ts_ns.saturating_sub(self.begin_ts_ns);
            self.due_ns = now_ns.saturating_add(left_ns);
        }
        self.suppressed = self.suppressed.saturating_add(1);
        false
    }

    fn due_ns(&self) -> Option<u64> {
        match (self.finished, self.suppressed) {
            (0, 0) => None,
            (0, _) => Some(self.due_ns),
            _ => Some(0),
        }
    }

    fn take(&mut self, now_ns: u64) -> Option<u64> {
        if self.due_ns()? > now_ns {
            return None;
        }
        let over = if self.suppressed > 0 && self.due_ns <= now_ns { self.suppressed } else { 0 };
        self.suppressed -= over;
        Some(std::mem::take(&mut self.finished).saturating_add(over))
    }
}

/// A [`Window`] that one thread changes and any may look at.
#[derive(Debug, Default)]
pub(super) struct SharedWindow {
    begin_ts_ns: AtomicU64,
    admitted: AtomicU32,
    suppressed: AtomicU64,
    due_ns: AtomicU64,
    finished: AtomicU64,
}

impl SharedWindow {
    pub(super) fn load(&self) -> Window {
        Window {
            begin_ts_ns: self.begin_ts_ns.load(Relaxed),
            admitted: self.admitted.load(Relaxed),
            suppressed: self.suppressed.load(Relaxed),
            due_ns: self.due_ns.load(Relaxed),
            finished: self.finished.load(Relaxed),
        }
    }

    pub(super) fn store(&self, window: Window) {
        self.begin_ts_ns.store(window.begin_ts_ns, Relaxed);
        self.admitted.store(window.admitted, Relaxed);
        self.suppressed.store(window.suppressed, Relaxed);
        self.due_ns.store(window.due_ns, Relaxed);
        self.finished.store(window.finished, Relaxed);
    }
}

/// A rate and its state.
#[derive(Debug)]
pub(super) struct Limit {
    /// Whose it is; `None` for the target's.
    rule: Option<usize>,
    rate: Rate,
    window: SharedWindow,
}

impl Limit {
    pub(super) fn new(rule: Option<usize>, rate: Rate) -> Self {
        Self { rule, rate, window: SharedWindow::default() }
    }

    /// Whether one more record may pass; without `now_ns` that is not remembered.
    pub(super) fn admit(&self, ts_ns: u64, now_ns: Option<u64>) -> bool {
        let mut window = self.window.load();
        let admitted = window.admit(self.rate, ts_ns, now_ns.unwrap_or_default());
        if now_ns.is_some() {
            self.window.store(window);
        }
        admitted
    }

    pub(super) fn notice_due_ns(&self) -> Option<u64> {
        self.window.load().due_ns()
    }

    pub(super) fn take_notice(&self, now_ns: u64) -> Option<Notice> {
        let mut window = self.window.load();
        let suppressed = window.take(now_ns)?;
        self.window.store(window);
        Some(Notice { rule: self.rule, suppressed, rate: self.rate })
    }
}

/// Records were suppressed in a period that is over (or in several).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Index of the rule, from 0 (the text counts from 1); `None` if it was the target's
    /// rate.
    pub rule: Option<usize>,
    /// How many records.
    pub suppressed: u64,
    /// The rate that suppressed them.
    pub rate: Rate,
}

impl Notice {
    /// Writes the text (`37 records suppressed by rate 10/5s of filter rule 2`) and
    /// returns it. Allocates nothing.
    pub fn write<'a>(&self, buffer: &'a mut [u8; NOTICE_MAX_BYTES]) -> &'a [u8] {
        let mut rest = &mut buffer[..];
        // The longest fits; were it not so, it would be cut.
        let _ = write!(rest, "{self}");
        let left_bytes = rest.len();
        &buffer[..NOTICE_MAX_BYTES - left_bytes]
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.suppressed == 1 { "" } else { "s" };
        write!(f, "{} record{plural} suppressed by rate {} of ", self.suppressed, self.rate)?;
        match self.rule {
            Some(index) => write!(f, "filter rule {}", index + 1),
            None => f.write_str("the target"),
        }
    }
}

/// As the configuration writes it: `10/5s`.
impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u128, &str); 6] = [
            (86_400_000_000_000, "d"),
            (3_600_000_000_000, "h"),
            (60_000_000_000, "m"),
            (1_000_000_000, "s"),
            (1_000_000, "ms"),
            (1_000, "us"),
        ];
        let period_ns = self.period.as_nanos();
        let (unit_ns, unit) = UNITS
            .into_iter()
            .find(|(unit_ns, _)| period_ns.is_multiple_of(*unit_ns))
            .unwrap_or((1, "ns"));
        write!(f, "{}/{}{unit}", self.count, period_ns / unit_ns)
    }
}
