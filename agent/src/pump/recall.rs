//! The newest records of the store, copied out of the pump: for who wants to know what a
//! filter does with them.

use crate::{
    capture::sequencer::Sink as _,
    record::Record,
    store::{Entry, RECALL_MAX, Store},
};

/// Room for one record with all its parts.
const RECORD_BYTES: usize = 1400;

/// A copy of the newest records.
pub struct Recall {
    wanted: usize,
    records: Store,
}

impl Recall {
    /// Room for so many of the newest records, at most [`RECALL_MAX`].
    #[must_use]
    pub fn new(wanted: usize) -> Box<Self> {
        let wanted = wanted.min(RECALL_MAX);
        Box::new(Self { wanted, records: Store::new((wanted + 1) * RECORD_BYTES, 0) })
    }

    pub(super) fn copy(&mut self, store: &Store) {
        let mut cursor = store.cursor_back(self.wanted);
        while let Some(entry) = store.get(&cursor) {
            if let Entry::Record(record) = entry {
                self.records.record(&record);
            }
            store.advance(&mut cursor);
        }
    }

    /// Calls `with` for each record, oldest first.
    pub fn for_each(&self, mut with: impl FnMut(&Record<'_>)) {
        let mut cursor = self.records.cursor_back(RECALL_MAX);
        while let Some(entry) = self.records.get(&cursor) {
            if let Entry::Record(record) = entry {
                with(&record);
            }
            self.records.advance(&mut cursor);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_come_oldest_first() {
        let mut store = Store::new(1 << 16, 0);
        let recalled = |store: &Store, wanted: usize| {
            let mut recall = Recall::new(wanted);
            recall.copy(store);
            let mut seqs = Vec::new();
            recall.for_each(|record| seqs.push(record.seq));
            seqs
        };
        assert_eq!(recalled(&store, 3), [0u64; 0]);
        for seq in 0..10_000 {
            store.record(&Record {
                seq,
                ts_ns: 0,
                facility: 0,
                level: 6,
                cont: false,
                caller: None,
                text: &[b'x'; 40],
                subsystem: b"",
                device: b"",
                context: None,
                approximated: false,
                backfilled: false,
            });
            if seq == 1 {
                assert_eq!(recalled(&store, 3), [0, 1]);
            }
        }
        assert_eq!(recalled(&store, 3), [9997, 9998, 9999]);
        assert_eq!(recalled(&store, 1000).len(), RECALL_MAX);
    }
}
