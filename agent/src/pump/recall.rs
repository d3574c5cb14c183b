//! The newest records of the store, copied out of the pump: for who wants to know what a
//! filter does with them.

use crate::{
    capture::sequencer::Sink as _,
    record::Record,
    store::{Entry, Store},
};

/// Most records that can be recalled.
const RECALL_MAX: usize = 256;
/// Room for one record with all its parts, and for what its segment cannot use.
const RECORD_BYTES: usize = 2048;
/// And for the last segment of each class, which others cannot use.
const MORE_BYTES: usize = 64 << 10;

/// A copy of the newest records.
pub struct Recall {
    wanted: usize,
    records: Store,
}

impl Recall {
    /// Room for so many of the newest records, at most 256.
    #[must_use]
    pub fn new(wanted: usize) -> Box<Self> {
        let wanted = wanted.min(RECALL_MAX);
        Box::new(Self { wanted, records: Store::new(wanted * RECORD_BYTES + MORE_BYTES, 0) })
    }

    pub(super) fn copy(&mut self, store: &Store) {
        let mut cursor = store.cursor_at(store.next_seq().saturating_sub(self.wanted as u64));
        while let Some(entry) = store.get(&mut cursor) {
            if let Entry::Record(record, _) = entry {
                self.records.record(&record);
            }
            store.advance(&mut cursor);
        }
    }

    /// Calls `with` for each record, oldest first.
    pub fn for_each(&self, mut with: impl FnMut(&Record<'_>)) {
        let mut cursor = self.records.cursor_at(0);
        while let Some(entry) = self.records.get(&mut cursor) {
            if let Entry::Record(record, _) = entry {
                with(&record);
            }
            self.records.advance(&mut cursor);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{CGROUP_MAX_BYTES, Context, DEVICE_MAX_BYTES, TEXT_MAX_BYTES};

    fn record(seq: u64, text: &[u8]) -> Record<'_> {
        Record {
            seq,
            ts_ns: 0,
            facility: 0,
            level: (seq % 8) as u8,
            cont: false,
            caller: None,
            text,
            subsystem: b"0123456789abcde",
            device: &[b'd'; DEVICE_MAX_BYTES],
            context: Some(Context {
                cpu: 0,
                pid: 0,
                task: b"0123456789abcde",
                cgroup_id: 1,
                cgroup: &[b'g'; CGROUP_MAX_BYTES],
            }),
            approximated: false,
            backfilled: false,
        }
    }

    #[test]
    fn the_newest_come_oldest_first() {
        let mut store = Store::new(1 << 20, 0);
        let recalled = |store: &Store, wanted: usize| {
            let mut recall = Recall::new(wanted);
            recall.copy(store);
            let mut seqs = Vec::new();
            recall.for_each(|record| seqs.push(record.seq));
            seqs
        };
        assert_eq!(recalled(&store, 3), [0u64; 0]);
        for seq in 0..10_000 {
            store.record(&record(seq, &[b'x'; TEXT_MAX_BYTES]));
            store.round_over(seq + 1);
            if seq == 1 {
                assert_eq!(recalled(&store, 3), [0, 1]);
            }
        }
        assert_eq!(recalled(&store, 3), [9997, 9998, 9999]);
        // Of all levels, and each as long as can be.
        assert_eq!(
            recalled(&store, 1000),
            (10_000 - RECALL_MAX as u64..10_000).collect::<Vec<_>>()
        );
    }
}
