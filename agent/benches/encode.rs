//! How long the pump needs to turn one record into datagrams in a frame buffer.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use netconsole_agent::netconsole::format::userdata;
use netconsole_agent::netconsole::{Encoder, Extras, Format, HostLines, SysdataKey};
use netconsole_agent::record::{Context, Record};

fn record(text: &[u8]) -> Record<'_> {
    Record {
        seq: 1_234_567,
        ts_ns: 123_456_789_012_345,
        facility: 0,
        level: 6,
        cont: false,
        caller: None,
        text,
        subsystem: b"pci",
        device: b"+pci:0000:00:03.0",
        context: Some(Context {
            cpu: 3,
            pid: 4711,
            task: b"kworker/3:1",
            cgroup_id: 1,
            cgroup: b"",
        }),
        approximated: false,
        backfilled: false,
    }
}

/// Ordinary log text of that length.
fn text(len: usize) -> Vec<u8> {
    b"e1000e 0000:00:03.0 eth1: (PCI Express:2.5GT/s:Width x1) 52:54:00:12:34:56 "
        .iter()
        .copied()
        .cycle()
        .take(len)
        .collect()
}

const EXTRAS: Extras<'_> = Extras {
    cgroup: Some(b"/system.slice/nginx.service"),
    unit: Some(b"nginx.service"),
    nic: b"eth0/3",
};

fn write_all(encoder: &mut Encoder, record: &Record<'_>, format: &Format, frame: &mut [u8]) {
    let mut datagrams = encoder.encode(black_box(record), black_box(format), 7, black_box(&EXTRAS));
    while let Some(len) = datagrams.write_next(frame) {
        black_box(&frame[..len]);
    }
}

/// With 300 bytes of extra data, a third of it userdata, the rest from all sources that
/// sysdata has.
fn with_extra_data(plain: &Format) -> Format {
    let mut format = plain.clone();
    let location = "fra1 row=7 rack=r12 position=31";
    format.userdata =
        userdata([("site", location), ("role", "db"), ("owner", "storage-team@fra1.de-fra")])
            .unwrap_or_default();
    format.sysdata = [
        SysdataKey::Cpu,
        SysdataKey::Taskname,
        SysdataKey::Msgid,
        SysdataKey::Pid,
        SysdataKey::Cgroup,
        SysdataKey::Unit,
        SysdataKey::Hostname,
        SysdataKey::BootId,
        SysdataKey::Uptime,
        SysdataKey::Taint,
        SysdataKey::Nic,
    ]
    .into_iter()
    .collect();
    format.host = HostLines::new(format.sysdata, 0, |key| match key {
        SysdataKey::Hostname => Some(b"db0123.fra1.example.net"),
        SysdataKey::BootId => Some(b"0d9ea9a3-4b3c-4f0e-9f53-3f2f6a6b6f5b"),
        SysdataKey::Taint => Some(b"OE"),
        _ => None,
    });
    format
}

/// Bytes of all datagrams of a record.
fn encoded_bytes(encoder: &mut Encoder, record: &Record<'_>, format: &Format) -> usize {
    let mut datagrams = encoder.encode(record, format, 7, &EXTRAS);
    let mut frame = [0; 2048];
    std::iter::from_fn(|| datagrams.write_next(&mut frame)).sum()
}

fn encode(c: &mut Criterion) {
    let mut encoder = Encoder::new();
    let mut frame = [0; 2048];
    let plain = Format::extended(b"7.2.12+deb13-amd64");
    let mut full = plain.clone();
    full.release_prefix = true;
    full.userdata = userdata([("site", "fra1 rack=7"), ("role", "db")]).unwrap_or_default();
    full.sysdata = SysdataKey::ALL[..4].iter().copied().collect();
    let rich = with_extra_data(&plain);
    let basic = Format::basic(b"7.2.12+deb13-amd64");
    let (short, long) = (text(100), text(1000));
    let escapes = vec![b'\n'; 1000];

    let [without, with] =
        [&plain, &rich].map(|format| encoded_bytes(&mut encoder, &record(&short), format));
    assert_eq!(with - without, 300, "what the name of the bench says");

    for (name, text, format) in [
        ("extended 100 bytes", &short, &plain),
        ("extended 100 bytes, userdata and sysdata", &short, &full),
        ("extended 100 bytes, 300 bytes of extra data", &short, &rich),
        ("extended 1000 bytes, fragments and userdata", &long, &full),
        ("extended 1000 bytes of escapes", &escapes, &plain),
        ("basic 100 bytes", &short, &basic),
    ] {
        let record = record(text);
        c.bench_function(name, |b| {
            b.iter(|| write_all(&mut encoder, &record, format, &mut frame));
        });
    }
}

criterion_group!(benches, encode);
criterion_main!(benches);
