//! A bounded output buffer that cuts like printk's formatters do.
//!
//! What does not fit is dropped silently, byte by byte, because that is how
//! `append_char` and `scnprintf` of `kernel/printk/printk.c` end a record that
//! is too long. It never fails; the caller owns the limit.

use super::escape;

/// Bytes of text that are looked at together when nothing needs an escape.
const CHUNK_BYTES: usize = 32;

/// Writes into a slice whose length is the limit.
pub(super) struct Out<'a> {
    buf: &'a mut [u8],
    len: usize,
}

impl<'a> Out<'a> {
    pub(super) fn new(buf: &'a mut [u8]) -> Self {
        Self { buf, len: 0 }
    }

    /// Bytes written so far.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Bytes that still fit.
    fn room(&self) -> usize {
        self.buf.len() - self.len
    }

    /// One byte as it is (`append_char`).
    pub(super) fn byte(&mut self, byte: u8) {
        if let Some(slot) = self.buf.get_mut(self.len) {
            *slot = byte;
            self.len += 1;
        }
    }

    /// Bytes as they are.
    pub(super) fn raw(&mut self, bytes: &[u8]) {
        let n = bytes.len().min(self.room());
        self.buf[self.len..self.len + n].copy_from_slice(&bytes[..n]);
        self.len += n;
    }

    /// Bytes that stay on their line: `?` stands for a line end or NUL.
    pub(super) fn one_line(&mut self, bytes: &[u8]) {
        let from = self.len;
        self.raw(bytes);
        for byte in &mut self.buf[from..self.len] {
            // Without a branch, so that many bytes are looked at together.
            *byte = if matches!(*byte, b'\n' | 0) { b'?' } else { *byte };
        }
    }

    /// A number in decimal.
    pub(super) fn number(&mut self, value: u64) {
        let mut digits = [0; DIGITS_MAX];
        self.raw(decimal(value, &mut digits));
    }

    /// Text with the escapes of the extended format (`msg_add_ext_text`).
    pub(super) fn escaped(&mut self, text: &[u8]) {
        let mut rest = text;
        while !rest.is_empty() {
            if let Some((chunk, tail)) = rest.split_first_chunk::<CHUNK_BYTES>()
                && self.room() >= CHUNK_BYTES
                && escape::is_plain(chunk)
            {
                self.raw(chunk);
                rest = tail;
                continue;
            }
            let (chunk, tail) = rest.split_at(rest.len().min(CHUNK_BYTES));
            for &byte in chunk {
                self.escaped_byte(byte);
            }
            rest = tail;
        }
    }

    #[inline]
    fn escaped_byte(&mut self, byte: u8) {
        let (bytes, len) = escape::encoded(byte);
        // Room for four bytes and one more: the kernel's scnprintf keeps a
        // place for its NUL, so an escape needs five bytes to be whole.
        if let Some(slot) = self.buf.get_mut(self.len..)
            && let Some((four, [_, ..])) = slot.split_first_chunk_mut::<4>()
        {
            *four = bytes;
            self.len += len;
        } else if len == 1 {
            self.byte(byte);
        } else {
            let n = self.room().saturating_sub(1).min(len);
            self.raw(&bytes[..n]);
        }
    }
}

/// Most decimal digits of a `u64`.
pub(super) const DIGITS_MAX: usize = 20;

/// `value` in decimal, written into the end of `digits`.
pub(super) fn decimal(mut value: u64, digits: &mut [u8; DIGITS_MAX]) -> &[u8] {
    let mut at = DIGITS_MAX;
    loop {
        at -= 1;
        // The remainder is below ten.
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 || at == 0 {
            return &digits[at..];
        }
    }
}

/// Number of decimal digits of `value`.
pub(super) fn decimal_len(value: usize) -> usize {
    value.checked_ilog10().map_or(1, |log| log as usize + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn escaped(limit: usize, text: &[u8]) -> Vec<u8> {
        let mut buf = vec![0; limit];
        let mut out = Out::new(&mut buf);
        out.escaped(text);
        out.byte(b'\n');
        let len = out.len();
        buf.truncate(len);
        buf
    }

    // What Linux 6.18 gave back from /dev/kmsg for such records.
    #[test]
    fn a_record_is_cut_where_the_kernel_cuts_it() {
        assert_eq!(escaped(8, b"ab\x01\x01"), b"ab\\x01\\\n");
        assert_eq!(escaped(6, b"ab\x01\x01"), b"ab\\x0\n");
        assert_eq!(escaped(6, b"ab\x01A"), b"ab\\x0A");
        assert_eq!(escaped(5, b"ab\x01A"), b"ab\\xA");
        assert_eq!(escaped(4, b"ab\xffAB"), b"ab\\A");
        assert_eq!(escaped(3, b"ab\xffAB"), b"abA");
        assert_eq!(escaped(2, b"ab\xffAB"), b"ab");
    }

    #[test]
    fn long_text_is_copied_whole() {
        let text: Vec<u8> = (0..1000u32).map(|i| (i % 251) as u8).collect();
        let slow: Vec<u8> = text
            .iter()
            .flat_map(|&b| {
                if (0x20..0x7f).contains(&b) && b != b'\\' {
                    vec![b]
                } else {
                    format!("\\x{b:02x}").into_bytes()
                }
            })
            .chain([b'\n'])
            .collect();
        assert_eq!(escaped(5000, &text), slow);
    }

    #[test]
    fn numbers_have_their_digits() {
        for value in [0u64, 9, 10, 99, 100, 12_345, u64::MAX] {
            let mut digits = [0; DIGITS_MAX];
            assert_eq!(decimal(value, &mut digits), value.to_string().as_bytes());
        }
        for value in [0usize, 9, 10, 99, 100, 65_536] {
            assert_eq!(decimal_len(value), value.to_string().len());
        }
    }
}
