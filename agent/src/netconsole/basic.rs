//! The basic format: console text with a prefix on each line.
//!
//! Follows `record_print_text` and `info_print_prefix` of
//! `kernel/printk/printk.c`, whose buffer size decides what is dropped: when
//! the text with its prefixes does not fit, it is shortened, and a line that is
//! no longer whole is left out. No escapes, no dictionary, no extra data.

use super::format::BasicStyle;
use super::out::Out;
use crate::record::{Caller, Record};

/// Longest prefix in bytes (`PRINTK_PREFIX_MAX`).
pub(crate) const PREFIX_MAX_BYTES: usize = 48;

/// Writes `record` as console text into `buf` (the kernel's buffer of
/// `style.buffer_bytes` or less) and returns the length; zero if not even the
/// first line fits.
pub(super) fn write(record: &Record<'_>, style: BasicStyle, buf: &mut [u8]) -> usize {
    let mut prefix_buf = [0; PREFIX_MAX_BYTES];
    let mut prefix_out = Out::new(&mut prefix_buf);
    write_prefix(record, style, &mut prefix_out);
    let prefix_len = prefix_out.len();
    let prefix = &prefix_buf[..prefix_len];

    let buf_len = buf.len();
    let mut out = Out::new(buf);
    let mut text = &record.text[..record.text.len().min(buf_len)];
    let mut shortened = false;
    loop {
        let line_end = text.iter().position(|&byte| byte == b'\n');
        if line_end.is_none() && shortened {
            break;
        }
        let line_len = line_end.unwrap_or(text.len());
        // What a text of this length needs with its newline and the NUL.
        let needed = |text_len: usize| out.len() + prefix_len + text_len + 2;
        if needed(text.len()) > buf_len {
            if needed(line_len) > buf_len {
                break;
            }
            text = &text[..buf_len - needed(0)];
            shortened = true;
        }
        out.raw(prefix);
        out.raw(&text[..line_len]);
        out.byte(b'\n');
        match text.get(line_len + 1..) {
            Some(rest) => text = rest,
            None => break,
        }
    }
    out.len()
}

/// The prefix of a line as `syslog(2)` and `kmsg_dump_get_buffer` show it, with level and time,
/// and the caller if it is known; returns its length.
pub(crate) fn syslog_prefix(record: &Record<'_>, buf: &mut [u8; PREFIX_MAX_BYTES]) -> usize {
    // The size of a buffer matters to texts only.
    let style =
        BasicStyle { syslog_prefix: true, time: true, caller: true, buffer_bytes: buf.len() };
    let mut out = Out::new(buf);
    write_prefix(record, style, &mut out);
    out.len()
}

fn write_prefix(record: &Record<'_>, style: BasicStyle, out: &mut Out<'_>) {
    if style.syslog_prefix {
        out.byte(b'<');
        out.number(u64::from(record.prio()));
        out.byte(b'>');
    }
    if style.time {
        out.byte(b'[');
        padded(out, record.ts_ns / 1_000_000_000, b' ', 5);
        out.byte(b'.');
        padded(out, record.ts_ns % 1_000_000_000 / 1000, b'0', 6);
        out.byte(b']');
    }
    if style.caller
        && let Some(caller) = record.caller
    {
        let (kind, id) = match caller {
            Caller::Task(id) => (b'T', id),
            Caller::Cpu(id) => (b'C', id),
        };
        out.byte(b'[');
        for _ in super::out::decimal_len(id as usize)..5 {
            out.byte(b' ');
        }
        out.byte(kind);
        out.number(u64::from(id));
        out.byte(b']');
    }
    if style.time || style.caller {
        out.byte(b' ');
    }
}

/// `value` in decimal, at least `width` characters wide.
fn padded(out: &mut Out<'_>, value: u64, fill: u8, width: usize) {
    let mut digits = [0; super::out::DIGITS_MAX];
    let digits = super::out::decimal(value, &mut digits);
    for _ in digits.len()..width {
        out.byte(fill);
    }
    out.raw(digits);
}

#[cfg(test)]
mod tests {
    use super::*;

    const STYLE: BasicStyle =
        BasicStyle { syslog_prefix: false, time: true, caller: false, buffer_bytes: 2048 };

    fn record(text: &[u8]) -> Record<'_> {
        Record {
            seq: 1,
            ts_ns: 6_060_197_999,
            facility: 1,
            level: 4,
            cont: false,
            caller: Some(Caller::Task(17)),
            text,
            subsystem: b"pci",
            device: b"",
            context: None,
            approximated: false,
            backfilled: false,
        }
    }

    fn written(text: &[u8], style: BasicStyle, size: usize) -> String {
        let mut buf = vec![0; size];
        let len = write(&record(text), style, &mut buf);
        String::from_utf8_lossy(&buf[..len]).into_owned()
    }

    #[test]
    fn each_line_has_the_prefix() {
        assert_eq!(
            written(b"two\nlines", STYLE, 2048),
            "[    6.060197] two\n[    6.060197] lines\n"
        );
        assert_eq!(written(b"", STYLE, 2048), "[    6.060197] \n");
        assert_eq!(written(b"a\n", STYLE, 2048), "[    6.060197] a\n[    6.060197] \n");
    }

    #[test]
    fn the_prefix_has_the_parts_that_the_style_asks_for() {
        let all = BasicStyle { syslog_prefix: true, caller: true, ..STYLE };
        assert_eq!(written(b"x", all, 2048), "<12>[    6.060197][   T17] x\n");
        let none = BasicStyle { time: false, ..STYLE };
        assert_eq!(written(b"x", none, 2048), "x\n");
        let syslog = BasicStyle { syslog_prefix: true, ..none };
        assert_eq!(written(b"x", syslog, 2048), "<12>x\n");
    }

    #[test]
    fn lines_that_do_not_fit_are_dropped() {
        // Prefix 15, so "abc" needs 15 + 3 + newline + NUL = 20 bytes.
        assert_eq!(written(b"abc", STYLE, 20), "[    6.060197] abc\n");
        assert_eq!(written(b"abc", STYLE, 19), "");
        // The second line would need 15 + 3 + 2 more.
        assert_eq!(written(b"abc\ndef", STYLE, 39).lines().count(), 2);
        assert_eq!(
            written(b"abc\ndef", STYLE, 38),
            "[    6.060197] abc\n",
            "a shortened last line is dropped"
        );
        assert_eq!(written(b"abc", STYLE, 0), "");
    }
}
