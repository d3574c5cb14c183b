//! Seqs beyond 32 bits, which no kernel gets to in a test.

use super::*;

/// The first of a run of seqs that crosses a power of two in its middle. Descriptor ids have
/// another beginning, and cross it elsewhere.
const FIRSTS: [u64; 4] = [(1 << 32) - 8, (1 << 32) - 8 + BASE, (1 << 40) - 8, (1 << 61) - 8];

fn settled_seqs(sink: &TestSink) -> Vec<u64> {
    let seq = |entry: &Settled| match entry {
        Settled::Record { seq, text, .. } => {
            assert_eq!(*text, text_of(*seq));
            *seq
        }
        Settled::Missing { first_seq, count, .. } => panic!("{count} from {first_seq} are missing"),
    };
    sink.0.iter().map(seq).collect()
}

#[test]
fn halves_are_joined() {
    for first in FIRSTS {
        let (mut producer, mut consumer) = RingBuffer::new(64);
        let (mut ring, mut sink) = (TestRing::default(), TestSink::default());
        let mut sequencer = Sequencer::new(RingContent::Text, Begin::at(first), false);
        for seq in first..first + 16 {
            ring.push(piece(id_of(seq), seq, &text_of(seq)));
            producer.push(kmsg(seq, &text_of(seq))).unwrap();
            sequencer.poll(seq - first + 1, &mut ring, &mut consumer, &mut sink);
        }
        assert_eq!(settled_seqs(&sink), (first..first + 16).collect::<Vec<u64>>());
        let counts = sequencer.counts();
        assert_eq!((counts.approximated, counts.backfilled), (0, 0), "{first}: {counts:?}");
    }
}

#[test]
fn whole_records_are_settled_and_gaps_are_told() {
    for first in FIRSTS {
        let (_producer, mut consumer) = RingBuffer::new(1);
        let (mut ring, mut sink) = (TestRing::default(), TestSink::default());
        let mut sequencer = Sequencer::new(RingContent::Whole, Begin::at(first), false);
        for seq in (first..first + 6).chain(first + 10..first + 16) {
            ring.push(whole(seq, FLAG_FINAL, &text_of(seq)));
        }
        for round in 0..4 {
            sequencer.poll(1 + round * PATIENCE_NS, &mut ring, &mut consumer, &mut sink);
        }
        let gap =
            Settled::Missing { first_seq: first + 6, count: 4, reason: MissingReason::NotCaptured };
        assert_eq!(sink.0.remove(6), gap);
        let wanted: Vec<u64> = (first..first + 6).chain(first + 10..first + 16).collect();
        assert_eq!(settled_seqs(&sink), wanted);
        assert_eq!(sequencer.next_seq(), first + 16);
    }
}
