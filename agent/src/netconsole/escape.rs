//! The `\xNN` escapes of the extended format, both ways.
//!
//! Rule of `msg_add_ext_text` (`kernel/printk/printk.c`): a byte below 0x20,
//! from 0x7f up, or a backslash is written as `\x` and two lower-case hex
//! digits. It does not interpret text: UTF-8 is bytes here.

/// Byte value to the bytes that stand for it.
static ENCODED: [([u8; 4], u8); 256] = encoded_table();

const fn encoded_table() -> [([u8; 4], u8); 256] {
    const HEX: [u8; 16] = *b"0123456789abcdef";
    let mut table = [([0; 4], 1); 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = if needs_escape(byte as u8) {
            ([b'\\', b'x', HEX[byte >> 4], HEX[byte & 15]], 4)
        } else {
            ([byte as u8, 0, 0, 0], 1)
        };
        byte += 1;
    }
    table
}

const fn needs_escape(byte: u8) -> bool {
    // One comparison for both ends of 0x20..0x7f; it vectorizes.
    (byte.wrapping_sub(0x20) >= 0x5f) | (byte == b'\\')
}

/// Whether no byte of `text` needs an escape.
#[inline]
pub(super) fn is_plain(text: &[u8; 32]) -> bool {
    !text.iter().fold(false, |any, &byte| any | needs_escape(byte))
}

/// The bytes that stand for `byte`, and how many of the four count.
#[inline]
pub(crate) fn encoded(byte: u8) -> ([u8; 4], usize) {
    let (bytes, len) = ENCODED[usize::from(byte)];
    (bytes, usize::from(len))
}

/// Undoes the escapes of `escaped` into `out` and returns the number of bytes
/// written; `out` of the same length always suffices, and what does not fit is
/// dropped.
///
/// A partial escape at the very end (the kernel cut the record there) becomes a
/// byte whose escape begins with those characters, so that encoding it again
/// under the same limit gives the same bytes. A backslash that starts no escape
/// of the kernel stands for itself.
pub fn unescape_into(escaped: &[u8], out: &mut [u8]) -> usize {
    let mut read = 0;
    let mut written = 0;
    while written < out.len() && read < escaped.len() {
        let rest = &escaped[read..];
        // Plain bytes up to the next backslash are moved at once.
        let plain = rest
            .iter()
            .position(|&byte| byte == b'\\')
            .unwrap_or(rest.len())
            .min(out.len() - written);
        if plain > 0 {
            out[written..written + plain].copy_from_slice(&rest[..plain]);
            read += plain;
            written += plain;
            continue;
        }
        let (byte, used) = unescape_first(rest);
        out[written] = byte;
        read += used;
        written += 1;
    }
    written
}

/// Like [`unescape_into`], for text that ends exactly where the record was cut:
/// the kernel fills the last byte of a cut record with a character that needed
/// no escape, so that byte is never part of one.
pub fn unescape_cut_into(escaped: &[u8], out: &mut [u8]) -> usize {
    let Some((&last, front)) = escaped.split_last() else {
        return 0;
    };
    let len = unescape_into(front, out);
    match out.get_mut(len) {
        Some(slot) => {
            *slot = last;
            len + 1
        }
        None => len,
    }
}

/// The byte that `rest`, which begins with a backslash, stands for, and the
/// number of bytes it took.
fn unescape_first(rest: &[u8]) -> (u8, usize) {
    match *rest {
        [_, b'x', high, low, ..] => match (hex(high), hex(low)) {
            (Some(high), Some(low)) => (high << 4 | low, 4),
            _ => (b'\\', 1),
        },
        [_, b'x', high] => match hex(high) {
            Some(high @ (0 | 1 | 8..=15)) => (high << 4, 3),
            Some(5) => (b'\\', 3),
            Some(7) => (0x7f, 3),
            _ => (b'\\', 1),
        },
        // `\x5c` is the backslash itself.
        [_, b'x'] => (b'\\', 2),
        _ => (b'\\', 1),
    }
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unescape(escaped: &[u8]) -> Vec<u8> {
        let mut out = vec![0; escaped.len()];
        let len = unescape_into(escaped, &mut out);
        out.truncate(len);
        out
    }

    #[test]
    fn every_byte_survives_the_round_trip() {
        for byte in 0..=255 {
            let (bytes, len) = encoded(byte);
            assert_eq!(unescape(&bytes[..len]), [byte], "{byte:#x}");
        }
    }

    #[test]
    fn a_partial_escape_becomes_a_byte_whose_escape_begins_like_it() {
        for byte in (0..=255u8).filter(|&byte| needs_escape(byte)) {
            let (bytes, _) = encoded(byte);
            for cut in 1..4 {
                let back = unescape(&bytes[..cut]);
                assert_eq!(back.len(), 1, "{byte:#x} cut at {cut}");
                assert_eq!(encoded(back[0]).0[..cut], bytes[..cut]);
                assert_eq!(encoded(back[0]).1, 4);
            }
        }
    }

    #[test]
    fn foreign_backslashes_stand_for_themselves() {
        assert_eq!(unescape(b"a\\nb"), b"a\\nb");
        assert_eq!(unescape(b"\\xg1z"), b"\\xg1z");
        assert_eq!(unescape(b"\\x2"), b"\\x2");
        assert_eq!(unescape(b"\\x0Ab"), b"\nb");
    }

    #[test]
    fn the_last_byte_of_a_cut_record_is_no_part_of_an_escape() {
        let mut out = [0; 8];
        let len = unescape_cut_into(b"a\\xfb", &mut out);
        assert_eq!(&out[..len], b"a\xf0b");
        assert_eq!(unescape_cut_into(b"", &mut out), 0);
    }

    #[test]
    fn a_short_buffer_is_filled_and_not_overrun() {
        let mut out = [0; 2];
        assert_eq!(unescape_into(b"\\x01\\x02\\x03", &mut out), 2);
        assert_eq!(out, [1, 2]);
        assert_eq!(unescape_cut_into(b"abc", &mut out), 2);
    }
}
