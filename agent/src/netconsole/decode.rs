//! Datagrams and `/dev/kmsg` lines to header, text and dictionary.
//!
//! Pure and without allocation. The rules are those of `parse_packet` in
//! netconsd's `ncrx/libncrx.c`, with these differences: a priority goes up to
//! 2047 and a message up to [`MESSAGE_MAX_BYTES`], because the kernel sends
//! that; priority, seq and time must all be there with at least one digit each,
//! so that fewer texts without a header are taken for records. It does not join
//! fragments (`reassemble`) and keeps no state.

use super::escape::{unescape_cut_into, unescape_into};
use crate::record::{Caller, Record};

/// Longest header in bytes, the `;` not counted (netconsd's buffer).
pub const HEADER_MAX_BYTES: usize = 1023;
/// Longest message that is put together from fragments, in bytes: the largest
/// record body plus 64 KiB of userdata plus sysdata, rounded up.
pub const MESSAGE_MAX_BYTES: usize = 80 * 1024;
/// Within so many bytes a release must show its dot (`NCRX_KVERSION_MAX_LEN`).
const RELEASE_WINDOW_BYTES: usize = 64;
/// Highest priority that the kernel can send: facility 255, level 7.
const PRIO_MAX: u64 = 2047;

/// Why a datagram or line has no usable extended header. A receiver shows such
/// a datagram as plain text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// No `;` within [`HEADER_MAX_BYTES`].
    #[error("the text has no extended header: no `;` in its first {HEADER_MAX_BYTES} bytes")]
    NoHeader,
    /// A field is missing or no number.
    #[error("the text has no extended header: {field} is not a number")]
    NotANumber {
        /// Name of the field.
        field: &'static str,
    },
    /// The priority is above 2047.
    #[error("the text has no extended header: priority {prio} exceeds {PRIO_MAX}")]
    Priority {
        /// The number found.
        prio: u64,
    },
    /// The fragment field is malformed, repeated or contradicts the payload.
    #[error("the fragment field (ncfrag) is malformed or does not fit its payload")]
    Fragment,
    /// The buffer for the unescaped bytes is too short.
    #[error("a record of {body_bytes} bytes does not fit a buffer of {buffer_bytes} bytes")]
    BufferTooShort {
        /// Bytes needed.
        body_bytes: usize,
        /// Bytes given.
        buffer_bytes: usize,
    },
}

/// Fourth field of the header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Flag {
    /// `-`, or anything unknown, or missing.
    #[default]
    Whole,
    /// `c`: a piece of a continued line that stands alone.
    Cont,
    /// `+`: a further piece (kernels of the 4.x era).
    ContNext,
}

impl Flag {
    /// The character of the header.
    #[must_use]
    pub fn as_char(self) -> char {
        match self {
            Self::Whole => '-',
            Self::Cont => 'c',
            Self::ContNext => '+',
        }
    }
}

/// Place of a fragment in its message (`ncfrag=offset/total`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// First byte of the payload, counted from the beginning of the message.
    pub offset_bytes: usize,
    /// Length of the whole message (text, dictionary, extra data).
    pub total_bytes: usize,
}

/// An extended header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    /// Kernel release, if one was put before the header.
    pub release: Option<&'a [u8]>,
    /// `facility << 3 | level`, at most 2047.
    pub prio: u16,
    /// Sequence number.
    pub seq: u64,
    /// Microseconds since boot.
    pub ts_us: u64,
    /// Continuation flag.
    pub flag: Flag,
    /// Who printed it, if told.
    pub caller: Option<Caller>,
    /// The sender estimated level, facility, time and dictionary (`approx=1`).
    pub approximated: bool,
    /// Sent again in an emergency (`ncemg`, netconsd's `nctx`).
    pub emergency: bool,
    /// Set if the payload is a part of a message.
    pub fragment: Option<Fragment>,
    /// The fields after the flag as they are, without the comma before them.
    pub fields: &'a [u8],
    /// The whole header as it is, without the `;` behind it.
    pub raw: &'a [u8],
}

impl Header<'_> {
    /// syslog facility.
    #[must_use]
    pub fn facility(&self) -> u8 {
        // The priority is at most 2047.
        (self.prio >> 3) as u8
    }

    /// syslog level, 0 to 7.
    #[must_use]
    pub fn level(&self) -> u8 {
        (self.prio & 7) as u8
    }
}

/// Reads the extended header of a datagram or of a `/dev/kmsg` line, and returns
/// it with the body behind the `;`.
///
/// # Errors
/// [`DecodeError`] if there is none; the bytes are plain text then.
pub fn parse_header(bytes: &[u8]) -> Result<(Header<'_>, &[u8]), DecodeError> {
    let window = &bytes[..bytes.len().min(HEADER_MAX_BYTES + 1)];
    let end = position(window, b';').ok_or(DecodeError::NoHeader)?;
    let (line, body) = (&bytes[..end], &bytes[end + 1..]);

    let mut rest = Some(line);
    let release = if has_release(line) { next_field(&mut rest) } else { None };
    let prio = number(&mut rest, "the priority")?;
    if prio > PRIO_MAX {
        return Err(DecodeError::Priority { prio });
    }
    let seq = number(&mut rest, "the sequence number")?;
    let ts_us = number(&mut rest, "the time stamp")?;
    let flag = match next_field(&mut rest).and_then(<[u8]>::first) {
        Some(b'c') => Flag::Cont,
        Some(b'+') => Flag::ContNext,
        _ => Flag::Whole,
    };
    let mut header = Header {
        release,
        prio: prio as u16,
        seq,
        ts_us,
        flag,
        caller: None,
        approximated: false,
        emergency: false,
        fragment: None,
        fields: rest.unwrap_or_default(),
        raw: line,
    };
    while let Some(field) = next_field(&mut rest) {
        let Some(equals) = position(field, b'=') else {
            continue;
        };
        let value = &field[equals + 1..];
        match &field[..equals] {
            b"caller" => header.caller = caller(value),
            b"approx" => header.approximated = value == b"1",
            b"ncemg" => header.emergency = unsigned(value).is_some_and(|n| n != 0),
            b"ncfrag" if header.fragment.is_some() => return Err(DecodeError::Fragment),
            b"ncfrag" => header.fragment = Some(fragment(value, body.len())?),
            _ => {}
        }
    }
    Ok((header, body))
}

/// netconsd's rule: a dot before the first comma, both within the first bytes.
fn has_release(line: &[u8]) -> bool {
    let window = &line[..line.len().min(RELEASE_WINDOW_BYTES)];
    matches!((position(window, b'.'), position(window, b',')), (Some(dot), Some(comma)) if dot < comma)
}

fn next_field<'a>(rest: &mut Option<&'a [u8]>) -> Option<&'a [u8]> {
    let line = (*rest)?;
    match position(line, b',') {
        Some(comma) => {
            *rest = Some(&line[comma + 1..]);
            Some(&line[..comma])
        }
        None => {
            *rest = None;
            Some(line)
        }
    }
}

fn number(rest: &mut Option<&[u8]>, field: &'static str) -> Result<u64, DecodeError> {
    next_field(rest).and_then(unsigned).ok_or(DecodeError::NotANumber { field })
}

/// A number as C's `strtoull` reads it with base 0, but without sign or space.
fn unsigned(text: &[u8]) -> Option<u64> {
    let (digits, base) = match text {
        [b'0', b'x' | b'X', digits @ ..] => (digits, 16),
        [b'0', digits @ ..] if !digits.is_empty() => (digits, 8),
        digits => (digits, 10),
    };
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |value, &byte| {
        let digit = char::from(byte).to_digit(base)?;
        value.checked_mul(u64::from(base))?.checked_add(u64::from(digit))
    })
}

fn caller(value: &[u8]) -> Option<Caller> {
    let (&kind, id) = value.split_first()?;
    let id = u32::try_from(unsigned(id)?).ok()?;
    match kind {
        b'T' => Some(Caller::Task(id)),
        b'C' => Some(Caller::Cpu(id)),
        _ => None,
    }
}

fn fragment(value: &[u8], payload_bytes: usize) -> Result<Fragment, DecodeError> {
    let slash = position(value, b'/').ok_or(DecodeError::Fragment)?;
    let number = |text| unsigned(text).and_then(|n| usize::try_from(n).ok());
    match (number(&value[..slash]), number(&value[slash + 1..])) {
        (Some(offset_bytes), Some(total_bytes))
            if payload_bytes > 0
                && total_bytes <= MESSAGE_MAX_BYTES
                && offset_bytes < total_bytes
                && payload_bytes <= total_bytes - offset_bytes =>
        {
            Ok(Fragment { offset_bytes, total_bytes })
        }
        _ => Err(DecodeError::Fragment),
    }
}

/// Splits the body of a whole message at its first newline into the text (still
/// escaped, without the newline) and the lines that follow.
#[must_use]
pub fn split_body(body: &[u8]) -> (&[u8], Dict<'_>) {
    match position(body, b'\n') {
        Some(end) => (&body[..end], Dict(&body[end + 1..])),
        None => (body, Dict(&[])),
    }
}

/// The lines behind the text: the device of the record, userdata, sysdata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dict<'a>(&'a [u8]);

/// One line ` KEY=value`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DictLine<'a> {
    /// What is before the first `=`, without the space that begins the line.
    pub key: &'a [u8],
    /// What is behind it, as sent: the kernel escapes the values of `SUBSYSTEM`
    /// and `DEVICE`, not those of userdata and sysdata. `None` without a `=`.
    pub value: Option<&'a [u8]>,
    /// The line had its newline; else the message was cut here.
    pub ended: bool,
}

impl<'a> Iterator for Dict<'a> {
    type Item = DictLine<'a>;

    fn next(&mut self) -> Option<DictLine<'a>> {
        if self.0.is_empty() {
            return None;
        }
        let end = position(self.0, b'\n');
        let line = &self.0[..end.unwrap_or(self.0.len())];
        self.0 = end.map_or(&[], |end| &self.0[end + 1..]);
        let line = line.strip_prefix(b" ").unwrap_or(line);
        let (key, value) = match position(line, b'=') {
            Some(equals) => (&line[..equals], Some(&line[equals + 1..])),
            None => (line, None),
        };
        Some(DictLine { key, value, ended: end.is_some() })
    }
}

/// Reads one `/dev/kmsg` line as a record. `record_limit_bytes` is where that
/// kernel cuts records (`format::record_limit_bytes`); the text and the device
/// are unescaped into `buf`, for which the length of the line suffices.
///
/// Encoding the result under the same limit gives the same line again, also if
/// the kernel had cut it. Where the cut took the beginning of a value, a
/// placeholder of one byte stands for the value.
///
/// # Errors
/// [`DecodeError`] if the line has no extended header or `buf` is too short.
pub fn parse_record<'a>(
    line: &[u8],
    record_limit_bytes: usize,
    buf: &'a mut [u8],
) -> Result<Record<'a>, DecodeError> {
    let (header, body) = parse_header(line)?;
    if buf.len() < body.len() {
        return Err(DecodeError::BufferTooShort {
            body_bytes: body.len(),
            buffer_bytes: buf.len(),
        });
    }
    // Only a line of exactly this length can have been cut.
    let full = line.len() == record_limit_bytes;
    let (text, dict) = split_body(body);
    let text_cut = full && text.len() == body.len();
    let (text, mut buf) = unescaped(text, text_cut, buf);
    let mut device: [&[u8]; 2] = [&[]; 2];
    for line in dict {
        let cut = full && !line.ended;
        let Some(slot) = device_key(line, cut, !device[0].is_empty()) else {
            continue;
        };
        if !device[slot].is_empty() {
            continue;
        }
        (device[slot], buf) = match line.value {
            // The value, or all of it but escapes, was cut off.
            None | Some([]) if cut => (b"?".as_slice(), buf),
            Some([]) if full => (b"\x7f".as_slice(), buf),
            value => unescaped(value.unwrap_or_default(), cut, buf),
        };
    }
    Ok(Record {
        seq: header.seq,
        ts_ns: header.ts_us.saturating_mul(1000),
        facility: header.facility(),
        level: header.level(),
        cont: header.flag != Flag::Whole,
        caller: header.caller,
        text,
        subsystem: device[0],
        device: device[1],
        context: None,
        approximated: header.approximated,
        backfilled: false,
    })
}

/// 0 if the line tells the subsystem, 1 if it tells the device. A line that was
/// cut counts for the key that it may have begun.
fn device_key(line: DictLine<'_>, cut: bool, has_subsystem: bool) -> Option<usize> {
    let keys: [&[u8]; 2] = [b"SUBSYSTEM", b"DEVICE"];
    if cut && line.value.is_none() {
        let skip = usize::from(has_subsystem);
        let at = keys[skip..].iter().position(|key| key.starts_with(line.key));
        return at.map(|at| at + skip);
    }
    keys.iter().position(|&key| key == line.key && line.value.is_some())
}

/// Unescapes into the beginning of `buf`; the rest of it is for the next.
fn unescaped<'b>(escaped: &[u8], cut: bool, buf: &'b mut [u8]) -> (&'b [u8], &'b mut [u8]) {
    let len = if cut { unescape_cut_into(escaped, buf) } else { unescape_into(escaped, buf) };
    let (done, rest) = buf.split_at_mut(len);
    (done, rest)
}

/// `text` without one line end.
#[must_use]
pub fn trim_line_end(text: &[u8]) -> &[u8] {
    text.strip_suffix(b"\n").unwrap_or(text)
}

fn position(bytes: &[u8], wanted: u8) -> Option<usize> {
    bytes.iter().position(|&byte| byte == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(line: &str) -> Header<'_> {
        parse_header(line.as_bytes()).expect(line).0
    }

    #[test]
    fn a_full_header_is_read() {
        let line = b"6.12.1-x,2047,18446744073709551615,7,c,caller=T17,foo=1,x,approx=1,ncemg=1,ncfrag=3/9;abc";
        let (header, body) = parse_header(line).expect("header");
        assert_eq!(body, b"abc");
        assert_eq!(header.release, Some(b"6.12.1-x".as_slice()));
        assert_eq!((header.facility(), header.level()), (255, 7));
        assert_eq!((header.seq, header.ts_us), (u64::MAX, 7));
        assert_eq!(header.flag, Flag::Cont);
        assert_eq!(header.caller, Some(Caller::Task(17)));
        assert!(header.approximated && header.emergency);
        assert_eq!(header.fragment, Some(Fragment { offset_bytes: 3, total_bytes: 9 }));
        assert_eq!(header.fields, b"caller=T17,foo=1,x,approx=1,ncemg=1,ncfrag=3/9");
    }

    #[test]
    fn short_and_foreign_headers_are_read_as_netconsd_does() {
        assert_eq!(header("6,10,1;x").flag, Flag::Whole);
        assert_eq!(header("0x1e,010,0;x").prio, 30);
        assert_eq!(header("0x1e,010,0;x").seq, 8);
        assert_eq!(header("6,10,1,+,caller=C2;x").flag, Flag::ContNext);
        assert_eq!(header("6,10,1,-,caller=Z2;x").caller, None);
        assert_eq!(header("6,10,1,-,a.b=1;x").release, None);
    }

    #[test]
    fn plain_text_is_no_record() {
        for (line, error) in [
            ("ping from agent", DecodeError::NoHeader),
            ("", DecodeError::NoHeader),
            ("5;x", DecodeError::NotANumber { field: "the sequence number" }),
            (",,;x", DecodeError::NotANumber { field: "the priority" }),
            ("6,1,-1,-;x", DecodeError::NotANumber { field: "the time stamp" }),
            ("linux,6,1,1,-;x", DecodeError::NotANumber { field: "the priority" }),
            ("2048,1,1,-;x", DecodeError::Priority { prio: 2048 }),
            (
                "6,18446744073709551616,1,-;x",
                DecodeError::NotANumber { field: "the sequence number" },
            ),
            ("6,1,1,-,ncfrag=0/2;xyz", DecodeError::Fragment),
            ("6,1,1,-,ncfrag=2/2;x", DecodeError::Fragment),
            ("6,1,1,-,ncfrag=0/2;", DecodeError::Fragment),
            ("6,1,1,-,ncfrag=0/99999;x", DecodeError::Fragment),
            ("6,1,1,-,ncfrag=x;x", DecodeError::Fragment),
            ("6,1,1,-,ncfrag=0/2,ncfrag=0/2;x", DecodeError::Fragment),
        ] {
            assert_eq!(parse_header(line.as_bytes()).map(|_| ()), Err(error), "{line}");
        }
        let far = [&[b'1'; 1024][..], b";x"].concat();
        assert_eq!(parse_header(&far).map(|_| ()), Err(DecodeError::NoHeader));
    }

    #[test]
    fn the_body_is_split_into_text_and_lines() {
        let (text, dict) = split_body(b"a\\x0ab\n SUBSYSTEM=pci\n x=y=z\nodd\n cut=1");
        assert_eq!(text, b"a\\x0ab");
        let lines: Vec<_> = dict.map(|l| (l.key, l.value, l.ended)).collect();
        assert_eq!(
            lines,
            [
                (b"SUBSYSTEM".as_slice(), Some(b"pci".as_slice()), true),
                (b"x", Some(b"y=z"), true),
                (b"odd", None, true),
                (b"cut", Some(b"1"), false),
            ]
        );
        assert_eq!(split_body(b"").1.count(), 0);
    }

    #[test]
    fn a_kmsg_line_becomes_a_record() {
        let line =
            b"6,437,6377716,-,caller=T1;e1000e \\x5c\n SUBSYSTEM=pci\n DEVICE=+pci:0000:00:03.0\n";
        let mut buf = [0; 128];
        let record = parse_record(line, 2048, &mut buf).expect("record");
        assert_eq!(record.text, b"e1000e \\");
        assert_eq!(record.subsystem, b"pci");
        assert_eq!(record.device, b"+pci:0000:00:03.0");
        assert_eq!(record.ts_ns, 6_377_716_000);
        assert_eq!(record.caller, Some(Caller::Task(1)));
        assert_eq!(
            parse_record(line, 2048, &mut [0; 8]),
            Err(DecodeError::BufferTooShort { body_bytes: line.len() - 26, buffer_bytes: 8 })
        );
    }
}
