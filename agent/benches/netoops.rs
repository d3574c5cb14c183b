//! What the text ring costs the pump per record, and what a dump of 64 KiB costs.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use netconsole_agent::{
    netoops::{Dump, Kind, TextRing, wire::PACKET_BYTES},
    record::Record,
};

/// As long as a dump.
const RING_BYTES: usize = 64 << 10;

fn record(text: &[u8]) -> Record<'_> {
    Record {
        seq: 1,
        ts_ns: 123_456_789_012_345,
        facility: 0,
        level: 6,
        cont: false,
        caller: None,
        text,
        subsystem: b"",
        device: b"",
        context: None,
        approximated: false,
        backfilled: false,
    }
}

fn netoops(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("netoops");
    let mut ring = TextRing::new(RING_BYTES);
    let text = [b'x'; 100];
    group.throughput(Throughput::Elements(1));
    group.bench_function("append 100 bytes", |bencher| {
        bencher.iter(|| ring.append(black_box(&record(&text))));
    });
    group.throughput(Throughput::Bytes(RING_BYTES as u64));
    let reader = ring.reader();
    let mut buffer = vec![0; RING_BYTES];
    group.bench_function("tail of 64 KiB", |bencher| {
        bencher.iter(|| reader.tail(black_box(&mut buffer)).len());
    });
    let text = reader.tail(&mut buffer);
    let mut packet = [0; PACKET_BYTES];
    group.bench_function("packets of 64 KiB, one pass", |bencher| {
        bencher.iter(|| {
            let dump = Dump::new(1, Kind::Hard, b"6.12.0", text.len()).expect("short enough");
            for packet_no in 0..dump.packet_count() {
                black_box(dump.packet(text, packet_no, &mut packet));
            }
        });
    });
    group.finish();
}

criterion_group!(benches, netoops);
criterion_main!(benches);
