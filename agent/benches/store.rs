//! What the record store costs per record: putting one in, and reading it by one target that
//! keeps up and by one that is far behind.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use netconsole_agent::{
    capture::sequencer::{ROUND_ENTRIES, Sink as _},
    record::{Context, Record},
    store::{Cursor, Entry, Store},
};

/// As the agent has it.
const STORE_BYTES: usize = 16 << 20;

fn record(seq: u64, level: u8, text: &[u8]) -> Record<'_> {
    Record {
        seq,
        ts_ns: 123_456_789_012_345,
        facility: 0,
        level,
        cont: false,
        caller: None,
        text,
        subsystem: b"",
        device: b"",
        context: Some(Context {
            cpu: 3,
            pid: 4711,
            task: b"kworker/3:1",
            cgroup_id: 1,
            cgroup: b"nginx.service",
        }),
        approximated: false,
        backfilled: false,
    }
}

/// Levels of a calm log, and of one in which each line has another.
const LEVELS: [(&str, [u8; 8]); 2] =
    [("one level", [6; 8]), ("mixed levels", [6, 4, 7, 3, 6, 5, 7, 2])];

fn put_in(store: &mut Store, levels: &[u8; 8], text: &[u8]) {
    let seq = store.next_seq();
    store.record(&record(seq, levels[(seq % 8) as usize], text));
}

fn read(store: &Store, cursor: &mut Cursor) -> bool {
    match store.get(cursor) {
        Some(Entry::Record(record, _)) => {
            black_box(&record);
        }
        Some(entry) => {
            black_box(&entry);
        }
        None => return false,
    }
    store.advance(cursor);
    true
}

fn store(c: &mut Criterion) {
    let text = [b'x'; 80];
    for (name, levels) in &LEVELS {
        let mut group = c.benchmark_group(format!("store, {name}"));
        group.throughput(Throughput::Elements(ROUND_ENTRIES as u64));
        group.bench_function("a round: put in and read", |b| {
            let mut store = Store::new(STORE_BYTES, 0);
            let mut cursor = store.cursor_at_end();
            b.iter(|| {
                for _ in 0..ROUND_ENTRIES {
                    put_in(&mut store, levels, black_box(&text));
                }
                while read(&store, &mut cursor) {}
                store.round_over(cursor.seq());
            });
        });
        group.bench_function("a round: put in, nobody reads", |b| {
            let mut store = Store::new(STORE_BYTES, 0);
            b.iter(|| {
                for _ in 0..ROUND_ENTRIES {
                    put_in(&mut store, levels, black_box(&text));
                }
                store.round_over(0);
            });
        });
        let mut full = Store::new(STORE_BYTES, 0);
        for _ in 0..100_000 {
            put_in(&mut full, levels, &text);
        }
        group.throughput(Throughput::Elements(10_000));
        group.bench_function("10,000 of a backlog: read", |b| {
            b.iter_batched_ref(
                || full.cursor_at(50_000),
                |cursor| (0..10_000).for_each(|_| assert!(read(&full, cursor))),
                BatchSize::SmallInput,
            );
        });
        group.finish();
    }
}

criterion_group!(benches, store);
criterion_main!(benches);
