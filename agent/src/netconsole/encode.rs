//! Records to datagrams: header, extra data, fragments.
//!
//! Follows `info_print_ext_header` and `msg_print_ext_body`
//! (`kernel/printk/printk.c`) and `send_ext_msg_udp`, `send_msg_udp`
//! (`drivers/net/netconsole.c`). It adds one header field of its own,
//! `approx=1`, which receivers skip as unknown. It makes UDP payloads and
//! knows nothing of frames.

use super::DATAGRAM_MAX_BYTES;
use super::basic;
use super::format::{Format, FormatKind, RECORD_LIMIT_BYTES, RELEASE_MAX_BYTES};
use super::out::{Out, decimal_len};
use super::sysdata::{self, Extras};
use crate::record::{Caller, Record};

const RELEASE_PREFIX_MAX_BYTES: usize = RELEASE_MAX_BYTES + 1;
const FRAGMENT_FIELD: &[u8] = b",ncfrag=";

/// Turns records into datagrams. It owns its scratch memory, so that encoding
/// allocates nothing.
#[derive(Debug)]
pub struct Encoder {
    /// `[release,]record` and behind it the sysdata.
    scratch: Box<[u8]>,
}

impl Default for Encoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Encoder {
    /// An encoder with its scratch memory (about 9.3 KiB, touched).
    #[must_use]
    pub fn new() -> Self {
        let len = RELEASE_PREFIX_MAX_BYTES + *RECORD_LIMIT_BYTES.end() + sysdata::MAX_BYTES;
        // Not zero: calloc would leave the pages to be faulted in by the pump.
        Self { scratch: vec![0x20; len].into() }
    }

    /// Encodes `record` as `format` asks for. `msgid` is the number of the
    /// message (the first one of a target is 1), used if [`Format::sysdata`] has
    /// `msgid`; `extras` is used for the other keys there.
    ///
    /// The result is empty only in the basic format, where the kernel drops a
    /// line that does not fit its buffer.
    #[must_use]
    pub fn encode<'e>(
        &'e mut self,
        record: &Record<'_>,
        format: &'e Format,
        msgid: u32,
        extras: &Extras<'_>,
    ) -> Datagrams<'e> {
        match format.kind {
            FormatKind::Extended => self.extended(record, format, msgid, extras),
            FormatKind::Basic => {
                let buffer_bytes = format.basic.buffer_bytes.min(*RECORD_LIMIT_BYTES.end());
                let len = basic::write(record, format.basic, &mut self.scratch[..buffer_bytes]);
                Datagrams::new(None, [&self.scratch[..len], &[], &[]])
            }
        }
    }

    fn extended<'e>(
        &'e mut self,
        record: &Record<'_>,
        format: &'e Format,
        msgid: u32,
        extras: &Extras<'_>,
    ) -> Datagrams<'e> {
        let (front, lines) =
            self.scratch.split_at_mut(RELEASE_PREFIX_MAX_BYTES + RECORD_LIMIT_BYTES.end());

        let mut prefix = Out::new(&mut front[..RELEASE_PREFIX_MAX_BYTES]);
        if format.release_prefix {
            prefix.raw(format.release_sent());
            prefix.byte(b',');
        }
        let prefix_len = prefix.len();

        // The kernel's limit holds for the record without the release.
        let limit =
            format.record_limit_bytes.clamp(*RECORD_LIMIT_BYTES.start(), *RECORD_LIMIT_BYTES.end());
        let mut out = Out::new(&mut front[prefix_len..prefix_len + limit]);
        write_header(record, &mut out);
        let header_len = prefix_len + out.len();
        out.byte(b';');
        write_body(record, &mut out);
        let record_len = prefix_len + out.len();

        let mut out = Out::new(lines);
        if !format.sysdata.is_empty() {
            sysdata::write(record, format, msgid, extras, &mut out);
        }
        let lines_len = out.len();

        let front = &front[..record_len];
        let lines = &lines[..lines_len];
        if record_len + format.userdata.len() + lines_len <= DATAGRAM_MAX_BYTES {
            Datagrams::new(None, [front, &format.userdata, lines])
        } else {
            let (header, body) = front.split_at(header_len);
            // The separator moves behind the `ncfrag` field.
            Datagrams::new(Some(header), [&body[1..], &format.userdata, lines])
        }
    }
}

fn write_header(record: &Record<'_>, out: &mut Out<'_>) {
    out.number(u64::from(record.prio()));
    out.byte(b',');
    out.number(record.seq);
    out.byte(b',');
    out.number(record.ts_ns / 1000);
    out.raw(if record.cont { b",c" } else { b",-" });
    if let Some(caller) = record.caller {
        let (field, id): (&[u8], u32) = match caller {
            Caller::Task(id) => (b",caller=T", id),
            Caller::Cpu(id) => (b",caller=C", id),
        };
        out.raw(field);
        out.number(u64::from(id));
    }
    if record.approximated {
        out.raw(b",approx=1");
    }
}

fn write_body(record: &Record<'_>, out: &mut Out<'_>) {
    out.escaped(record.text);
    out.byte(b'\n');
    for (key, value) in
        [(b" SUBSYSTEM=".as_slice(), record.subsystem), (b" DEVICE=".as_slice(), record.device)]
    {
        if !value.is_empty() {
            out.raw(key);
            out.escaped(value);
            out.byte(b'\n');
        }
    }
}

/// The datagrams of one record, to be written one after the other.
#[derive(Debug)]
pub struct Datagrams<'e> {
    /// Header without its `;`, repeated in each fragment; `None` if the payload
    /// is sent as it is.
    header: Option<&'e [u8]>,
    /// What is still to be sent, in order.
    parts: [&'e [u8]; 3],
    sent_bytes: usize,
    total_bytes: usize,
}

impl<'e> Datagrams<'e> {
    fn new(header: Option<&'e [u8]>, parts: [&'e [u8]; 3]) -> Self {
        Self {
            header,
            parts,
            sent_bytes: 0,
            total_bytes: parts.iter().map(|part| part.len()).sum(),
        }
    }

    /// Number of datagrams that are still to be written.
    #[must_use]
    pub fn count(&self) -> usize {
        let mut sent = self.sent_bytes;
        let mut count = 0;
        while sent < self.total_bytes {
            sent += self.payload_bytes(sent);
            count += 1;
        }
        count
    }

    /// Length in bytes of the datagram that comes next (at most
    /// [`DATAGRAM_MAX_BYTES`]); `None` if all are written.
    #[must_use]
    pub fn next_len(&self) -> Option<usize> {
        (self.sent_bytes < self.total_bytes)
            .then(|| self.header_bytes(self.sent_bytes) + self.payload_bytes(self.sent_bytes))
    }

    /// Writes the next datagram into the beginning of `out` and returns its
    /// length in bytes. `None` if all are written, or if `out` is shorter than
    /// [`Datagrams::next_len`]; then nothing is consumed.
    pub fn write_next(&mut self, out: &mut [u8]) -> Option<usize> {
        let len = self.next_len()?;
        let mut out = Out::new(out.get_mut(..len)?);
        if let Some(header) = self.header {
            out.raw(header);
            out.raw(FRAGMENT_FIELD);
            out.number(self.sent_bytes as u64);
            out.byte(b'/');
            out.number(self.total_bytes as u64);
            out.byte(b';');
        }
        for part in &mut self.parts {
            let n = part.len().min(len - out.len());
            let (now, later) = part.split_at(n);
            out.raw(now);
            *part = later;
            self.sent_bytes += n;
        }
        Some(len)
    }

    /// Passes over the next `count` datagrams, which were sent before.
    pub fn skip(&mut self, count: usize) {
        for _ in 0..count {
            let mut left = self.payload_bytes(self.sent_bytes);
            self.sent_bytes += left;
            for part in &mut self.parts {
                let n = part.len().min(left);
                *part = &part[n..];
                left -= n;
            }
        }
    }

    /// Bytes before the payload of the fragment at `offset`.
    fn header_bytes(&self, offset: usize) -> usize {
        self.header.map_or(0, |header| {
            let separators = b"/;".len();
            let numbers = decimal_len(offset) + decimal_len(self.total_bytes);
            header.len() + FRAGMENT_FIELD.len() + numbers + separators
        })
    }

    /// Bytes of payload in the fragment at `offset`.
    fn payload_bytes(&self, offset: usize) -> usize {
        // The longest header (release, prio, seq, time, flag, caller, approx)
        // takes some 150 bytes, so a fragment always carries payload.
        (self.total_bytes - offset).min(DATAGRAM_MAX_BYTES - self.header_bytes(offset))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netconsole::SysdataKey;
    use crate::netconsole::format::userdata;
    use crate::record::Context;

    fn record(text: &[u8]) -> Record<'_> {
        Record {
            seq: 430,
            ts_ns: 6_122_216_999,
            facility: 1,
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

    fn encoded(record: &Record<'_>, format: &Format) -> Vec<Vec<u8>> {
        let mut encoder = Encoder::new();
        let mut datagrams = encoder.encode(record, format, 9, &Extras::default());
        let mut all = Vec::new();
        let mut frame = [0; DATAGRAM_MAX_BYTES];
        loop {
            let count = datagrams.count();
            let next = datagrams.next_len();
            let written = datagrams.write_next(&mut frame);
            assert_eq!(next, written);
            let Some(len) = written else {
                assert_eq!(count, 0);
                return all;
            };
            assert_eq!(datagrams.count(), count - 1);
            all.push(frame[..len].to_vec());
        }
    }

    fn one(record: &Record<'_>, format: &Format) -> String {
        let all = encoded(record, format);
        assert_eq!(all.len(), 1);
        String::from_utf8_lossy(&all[0]).into_owned()
    }

    #[test]
    fn the_header_has_every_field_in_the_kernels_order() {
        let full = Record {
            facility: 255,
            level: 7,
            cont: true,
            caller: Some(Caller::Cpu(3)),
            subsystem: b"pci",
            device: b"+pci:0000:00:03.0",
            approximated: true,
            backfilled: false,
            ..record(b"a\\b\n")
        };
        let mut format = Format::extended(b"6.12.1");
        format.release_prefix = true;
        assert_eq!(
            one(&full, &format),
            "6.12.1,2047,430,6122216,c,caller=C3,approx=1;a\\x5cb\\x0a\n \
             SUBSYSTEM=pci\n DEVICE=+pci:0000:00:03.0\n"
        );
    }

    #[test]
    fn sysdata_comes_after_userdata_and_only_as_far_as_known() {
        let mut format = Format::extended(b"7.2.12");
        format.userdata = userdata([("role", "db")]).expect("valid");
        format.sysdata =
            [SysdataKey::Cpu, SysdataKey::Taskname, SysdataKey::Release, SysdataKey::Msgid]
                .into_iter()
                .collect();
        let mut rec = record(b"x");
        assert_eq!(one(&rec, &format), "14,430,6122216,-;x\n role=db\n release=7.2.12\n msgid=9\n");
        rec.context = Some(Context { cpu: 1, pid: 2, task: b"sh", cgroup_id: 0, cgroup: b"" });
        assert_eq!(
            one(&rec, &format),
            "14,430,6122216,-;x\n role=db\n cpu=1\n taskname=sh\n release=7.2.12\n msgid=9\n"
        );
    }

    #[test]
    fn the_thousandth_byte_still_fits() {
        // Header "14,430,6122216,-;" has 17 bytes, the newline one.
        let text = [b'x'; 983];
        let format = Format::extended(b"6.12.1");
        assert_eq!(encoded(&record(&text[..982]), &format).len(), 1);
        let two = encoded(&record(&text), &format);
        assert_eq!(two.len(), 2);
        assert_eq!(two[0].len(), 1000);
        assert!(two[0].starts_with(b"14,430,6122216,-,ncfrag=0/984;"));
        assert_eq!(two[1], b"14,430,6122216,-,ncfrag=970/984;xxxxxxxxxxxxx\n");
    }

    #[test]
    fn a_record_is_cut_at_the_kernels_limit() {
        let text = [1; 1024];
        let mut format = Format::extended(b"6.12.1");
        format.release_prefix = true;
        let all = encoded(&record(&text), &format).concat();
        assert!(all.starts_with(b"6.12.1,14,430,6122216,-,ncfrag=0/2031;"));
        assert!(all.ends_with(b"\\x\n"));
        let old = Format::extended(b"6.1.0");
        let all = encoded(&record(&text), &old);
        assert!(all[0].starts_with(b"14,430,6122216,-,ncfrag=0/4097;"));
    }

    #[test]
    fn odd_settings_neither_panic_nor_exceed_a_datagram() {
        let mut format = Format::extended(&[b'r'; 300]);
        format.release_prefix = true;
        format.userdata = vec![b'u'; 65_536].into();
        for limit in [0, 1, usize::MAX] {
            format.record_limit_bytes = limit;
            let all = encoded(&record(&[7; 5000]), &format);
            assert!(all.iter().all(|datagram| datagram.len() <= 1000));
        }
        let mut format = Format::basic(b"6.12.1");
        for size in [0, 1, usize::MAX] {
            format.basic.buffer_bytes = size;
            let all = encoded(&record(&[7; 5000]), &format);
            assert_eq!(all.is_empty(), size < 2);
            assert!(all.iter().all(|datagram| datagram.len() <= 1000));
        }
    }

    #[test]
    fn basic_text_is_split_without_a_mark() {
        let all = encoded(&record(&[b'C'; 1006]), &Format::basic(b"7.2.12"));
        assert_eq!(all.iter().map(Vec::len).collect::<Vec<_>>(), [1000, 22]);
    }

    #[test]
    fn a_frame_buffer_that_is_too_short_consumes_nothing() {
        let mut encoder = Encoder::new();
        let format = Format::extended(b"6.12.1");
        let mut datagrams = encoder.encode(&record(b"x"), &format, 1, &Extras::default());
        let len = datagrams.next_len().expect("one datagram");
        assert_eq!(datagrams.write_next(&mut vec![0; len - 1]), None);
        assert_eq!(datagrams.write_next(&mut vec![0; len]), Some(len));
    }
}
