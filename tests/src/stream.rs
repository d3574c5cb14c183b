//! What one target's receiver got, judged as a whole: which seqs came, how often, and which ones
//! the agent said to be missing.

use std::collections::BTreeMap;

use crate::{kmsg::seq_of, peer::join_fragments};

/// What a message of the agent's own about missing records begins with.
const NOTICE: &[u8] = b"netconsole-agent, notice: ";

/// Whether a datagram is the agent's own word about missing or suppressed records.
#[must_use]
pub fn is_notice(payload: &[u8]) -> bool {
    payload.starts_with(NOTICE)
}

/// Records that the agent said to be missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The first one.
    pub first_seq: u64,
    /// The last one; what lies in between may have come nevertheless.
    pub last_seq: u64,
    /// How many, by reason.
    pub lost: BTreeMap<String, u64>,
}

/// See the module's description.
#[derive(Clone, Debug, Default)]
pub struct Stream {
    /// Whole records as they came: a payload, and its seq.
    pub records: Vec<(u64, Vec<u8>)>,
    /// What was told about missing ones.
    pub gaps: Vec<Gap>,
}

impl Stream {
    /// Reads the datagrams of a target, in the order of their arrival.
    ///
    /// # Panics
    /// If one is neither a record nor a message of the agent's.
    #[must_use]
    pub fn of(datagrams: &[Vec<u8>]) -> Self {
        let (notices, records): (Vec<_>, Vec<_>) =
            datagrams.iter().cloned().partition(|payload| is_notice(payload));
        let records = join_fragments(&records);
        Self {
            records: records.into_iter().map(|record| (seq_of(&record), record)).collect(),
            gaps: notices.iter().filter_map(|notice| gap(&notice[NOTICE.len()..])).collect(),
        }
    }

    /// Each record once, by seq.
    ///
    /// # Panics
    /// If one came twice with other bytes.
    #[must_use]
    pub fn by_seq(&self) -> BTreeMap<u64, &[u8]> {
        let mut all: BTreeMap<u64, &[u8]> = BTreeMap::new();
        for (seq, record) in &self.records {
            let first = all.entry(*seq).or_insert(record);
            assert_eq!(
                String::from_utf8_lossy(first),
                String::from_utf8_lossy(record),
                "twice, and not the same"
            );
        }
        all
    }

    /// How many came more often than once.
    #[must_use]
    pub fn doubled(&self) -> usize {
        self.records.len() - self.by_seq().len()
    }

    /// Places where the order of seq goes back.
    #[must_use]
    pub fn steps_back(&self) -> Vec<(u64, u64)> {
        let pairs = self.records.windows(2).map(|pair| (pair[0].0, pair[1].0));
        pairs.filter(|(before, after)| after <= before).collect()
    }

    /// The seqs between the first one, come or told missing, and the last one that did not come.
    #[must_use]
    pub fn missing(&self) -> Vec<u64> {
        let all = self.by_seq();
        let (Some(first), Some(last)) = (all.keys().next(), all.keys().next_back()) else {
            return Vec::new();
        };
        let told = self.gaps.iter().map(|gap| gap.first_seq).min();
        let first = told.map_or(*first, |told| told.min(*first));
        (first..*last).filter(|seq| !all.contains_key(seq)).collect()
    }

    /// How many records were said to be missing.
    #[must_use]
    pub fn told_lost(&self) -> u64 {
        self.gaps.iter().flat_map(|gap| gap.lost.values()).sum()
    }

    /// That nothing is missing but what was said to be, and no more was said.
    ///
    /// # Panics
    /// If it is not so.
    pub fn assert_told(&self) {
        self.assert_told_after(0);
    }

    /// The same of agents that were killed and started again: so many records may have left and
    /// been told missing by the next one, which found them overwritten.
    ///
    /// # Panics
    /// If it is not so.
    pub fn assert_told_after(&self, told_and_come_max: u64) {
        let missing = self.missing();
        let untold: Vec<_> = missing
            .iter()
            .filter(|seq| !self.gaps.iter().any(|gap| (gap.first_seq..=gap.last_seq).contains(seq)))
            .take(20)
            .collect();
        assert!(untold.is_empty(), "missing, and not told: {untold:?} of {}", missing.len());
        let missing = missing.len() as u64;
        let told = self.told_lost();
        assert!(
            (missing..=missing + told_and_come_max).contains(&told),
            "{missing} missing, {told} told: {:?}",
            self.gaps
        );
    }
}

/// `N records lost, seq A to B: REASON N, REASON N`.
fn gap(text: &[u8]) -> Option<Gap> {
    let text = String::from_utf8_lossy(text);
    let (head, reasons) = text.lines().next()?.split_once(": ")?;
    let (count, range) = head.split_once(" lost, seq ")?;
    let count: u64 = count.split(' ').next()?.parse().ok()?;
    let (first, last) = range.split_once(" to ")?;
    let lost: BTreeMap<_, _> = reasons
        .split(", ")
        .filter_map(|one| one.split_once(' '))
        .map(|(reason, count)| (reason.to_owned(), count.parse().expect("a count")))
        .collect();
    assert_eq!(lost.values().sum::<u64>(), count, "{text}");
    let (first_seq, last_seq) = (first.parse().ok()?, last.parse().ok()?);
    assert!(last_seq >= first_seq && last_seq - first_seq + 1 >= count, "{text}");
    Some(Gap { first_seq, last_seq, lost })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_read() {
        let told = "netconsole-agent, notice: 3 records lost, seq 5 to 9: kernel_overwrote 2, \
                    backlog 1\n rack=r1\n";
        let rate = "netconsole-agent, notice: 37 records suppressed by rate 10/5s of the target\n";
        let records = [4, 6, 8, 8, 10].map(|seq| format!("6,{seq},1,-;text\n").into_bytes());
        let mut datagrams = records.to_vec();
        datagrams.insert(1, told.into());
        datagrams.insert(1, rate.into());
        let stream = Stream::of(&datagrams);
        let lost = [("kernel_overwrote".to_owned(), 2), ("backlog".to_owned(), 1)];
        let gap = Gap { first_seq: 5, last_seq: 9, lost: lost.into() };
        assert_eq!(stream.gaps, [gap]);
        assert_eq!((stream.missing(), stream.doubled()), (vec![5, 7, 9], 1));
        assert_eq!(stream.steps_back(), [(8, 8)]);
        stream.assert_told();
    }
}
