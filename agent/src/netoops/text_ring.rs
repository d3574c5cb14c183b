//! The tail of the kernel log as text, for a dump.
//!
//! A ring of bytes of fixed size. One thread appends records; any others copy the newest text
//! out of it at any time, without a lock, and see when they were overtaken. Nothing is allocated
//! after its creation. It is text only: records are not found again in it.
//!
//! A record looks as `record_print_text` of `kernel/printk/printk.c` shows it with level and
//! time (`kmsg_dump_get_buffer` with `syslog`): `<prio>[sssss.uuuuuu] text`, with the caller in
//! between on kernels that tell it, and the same prefix before each line of a text. Nothing in the
//! text is changed.
//!
//! The protocol is a sequence lock over positions, which only grow. The writer tells how far it
//! is about to write (`begun`), writes, and tells how far it has written (`head`). A reader
//! copies what is before `head` and then looks at `begun`: what lies more than the ring's size
//! before it may have been written over meanwhile. A ring word is stored whole, so that the one
//! in which the newest text ends can be read while its rest is filled.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use super::wire::TEXT_MAX_BYTES;
use crate::netconsole::{PREFIX_MAX_BYTES, syslog_prefix};
use crate::record::Record;

/// Smallest size in bytes.
pub const SIZE_MIN_BYTES: usize = 4096;
/// Bytes that are stored at once.
const WORD_BYTES: usize = size_of::<u64>();
/// A reader that was overtaken by as much as it asked for tries again so often.
const TRIES: u32 = 8;

#[derive(Debug)]
struct Shared {
    words: Box<[AtomicU64]>,
    /// Bytes ever written, the line that is being written included.
    begun: AtomicU64,
    /// Bytes ever written; all before it are there.
    head: AtomicU64,
}

impl Shared {
    fn word(&self, index: u64) -> &AtomicU64 {
        // The number of words is a power of two.
        &self.words[index as usize & (self.words.len() - 1)]
    }

    fn size_bytes(&self) -> usize {
        self.words.len() * WORD_BYTES
    }
}

/// The writer's end; there is one.
#[derive(Debug)]
pub struct TextRing {
    shared: Arc<Shared>,
    head: u64,
    /// The word that holds `head`, as far as it is written.
    open_word: u64,
}

impl TextRing {
    /// An empty ring. `size_bytes` is rounded up to a power of two from [`SIZE_MIN_BYTES`] to
    /// [`TEXT_MAX_BYTES`]. The memory is touched.
    #[must_use]
    pub fn new(size_bytes: usize) -> Self {
        let size_bytes = size_bytes.clamp(SIZE_MIN_BYTES, TEXT_MAX_BYTES).next_power_of_two();
        // Not zero, which would be mapped lazily.
        let words = (0..size_bytes / WORD_BYTES).map(|_| AtomicU64::new(u64::MAX)).collect();
        let shared = Shared { words, begun: AtomicU64::new(0), head: AtomicU64::new(0) };
        Self { shared: Arc::new(shared), head: 0, open_word: 0 }
    }

    /// Bytes of text that it holds.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.shared.size_bytes()
    }

    /// A reader's end, for another thread.
    #[must_use]
    pub fn reader(&self) -> TextReader {
        TextReader { shared: Arc::clone(&self.shared) }
    }

    /// Appends a record. It neither allocates nor waits.
    pub fn append(&mut self, record: &Record<'_>) {
        let mut prefix = [0; PREFIX_MAX_BYTES];
        let prefix_len = syslog_prefix(record, &mut prefix);
        let mut text = record.text;
        // A text that ends with a newline has an empty line behind it, as in the kernel.
        while let Some(line_end) = memchr::memchr(b'\n', text) {
            self.line(&prefix[..prefix_len], &text[..line_end]);
            text = &text[line_end + 1..];
        }
        self.line(&prefix[..prefix_len], text);
    }

    fn line(&mut self, prefix: &[u8], text: &[u8]) {
        let len = (prefix.len() + text.len() + 1) as u64;
        self.shared.begun.store(self.head + len, Ordering::Relaxed);
        // Who sees a word of this line sees that it was begun.
        fence(Ordering::Release);
        self.push(prefix);
        self.push(text);
        self.push(b"\n");
        if !self.head.is_multiple_of(WORD_BYTES as u64) {
            let word = self.shared.word(self.head / WORD_BYTES as u64);
            word.store(self.open_word, Ordering::Relaxed);
        }
        // Who sees the head sees all before it.
        self.shared.head.store(self.head, Ordering::Release);
    }

    /// Writes bytes behind the head, but not the word that they leave unfinished.
    fn push(&mut self, bytes: &[u8]) {
        // How far the open word is filled; the same after each whole word.
        let filled_bits = (self.head % WORD_BYTES as u64) as u32 * 8;
        let mut index = self.head / WORD_BYTES as u64;
        let (words, rest) = bytes.as_chunks::<WORD_BYTES>();
        for word in words {
            let word = u64::from_le_bytes(*word);
            let whole = self.open_word | word << filled_bits;
            self.shared.word(index).store(whole, Ordering::Relaxed);
            self.open_word = word.unbounded_shr(u64::BITS - filled_bits);
            index += 1;
        }
        let mut word = [0; WORD_BYTES];
        word[..rest.len()].copy_from_slice(rest);
        let word = u64::from_le_bytes(word);
        self.open_word |= word << filled_bits;
        if filled_bits as usize / 8 + rest.len() >= WORD_BYTES {
            self.shared.word(index).store(self.open_word, Ordering::Relaxed);
            self.open_word = word.unbounded_shr(u64::BITS - filled_bits);
        }
        self.head += bytes.len() as u64;
    }
}

/// A reader's end.
#[derive(Clone, Debug)]
pub struct TextReader {
    shared: Arc<Shared>,
}

impl TextReader {
    /// Bytes of text that the ring holds at most; a buffer for all of it has that size.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.shared.size_bytes()
    }

    /// Copies the newest text into `buffer` and returns it, from its first whole line on, to the
    /// end of the newest line. It is empty if nothing was written yet. It neither allocates nor waits;
    /// if the writer overtakes it again and again (it writes the whole ring during each of
    /// some copies) the text is empty, too.
    pub fn tail<'a>(&self, buffer: &'a mut [u8]) -> &'a [u8] {
        for _ in 0..TRIES {
            let head = self.shared.head.load(Ordering::Acquire);
            if head == 0 {
                break;
            }
            let wanted = buffer.len().min(self.shared.size_bytes());
            let begin = head.saturating_sub(wanted as u64);
            // Text from the first byte on, or a buffer that begins where a line does.
            let mut begins_line = begin == 0 || self.byte(begin - 1) == b'\n';
            self.copy(begin, head, buffer);
            // The words first, then what was begun: the counterpart of the writer's fence.
            fence(Ordering::Acquire);
            let begun = self.shared.begun.load(Ordering::Relaxed);
            let kept = begun.next_multiple_of(WORD_BYTES as u64);
            let kept = kept.saturating_sub(self.shared.size_bytes() as u64);
            if kept >= head {
                continue;
            }
            let length = (head - begin) as usize;
            let mut from = 0;
            if kept > 0 && kept >= begin {
                // The byte before the text may be a newer one.
                begins_line = false;
                from = (kept - begin) as usize;
            }
            if !begins_line
                && let Some(line_end) = memchr::memchr(b'\n', &buffer[from..length])
                // A single line that is cut says more than nothing.
                && from + line_end + 1 < length
            {
                from += line_end + 1;
            }
            return &buffer[from..length];
        }
        &[]
    }

    fn byte(&self, position: u64) -> u8 {
        let word = self.shared.word(position / WORD_BYTES as u64).load(Ordering::Relaxed);
        word.to_le_bytes()[position as usize % WORD_BYTES]
    }

    /// Copies the bytes from `begin` to `end`, which fit into `buffer`.
    fn copy(&self, begin: u64, end: u64, buffer: &mut [u8]) {
        let mut at = begin;
        let mut rest = buffer;
        while at < end {
            let word = self.shared.word(at / WORD_BYTES as u64).load(Ordering::Relaxed);
            let word = word.to_le_bytes();
            let word = &word[at as usize % WORD_BYTES..];
            let length = word.len().min((end - at) as usize);
            let (out, behind) = rest.split_at_mut(length);
            out.copy_from_slice(&word[..length]);
            rest = behind;
            at += length as u64;
        }
    }
}

#[cfg(test)]
#[path = "text_ring_tests.rs"]
mod tests;
