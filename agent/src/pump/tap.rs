//! A copy of what one target sends, for `tail`: a bounded queue of bytes towards the
//! control thread. What does not fit is left out and counted; nothing waits for the reader.

use rtrb::{Consumer, Producer, RingBuffer};

/// Room for some 250 of the longest packets.
const TAP_BYTES: usize = 256 << 10;
/// Length of a packet and how many were left out before it.
const HEAD_BYTES: usize = 8;

/// The pump's end.
pub struct Tap {
    bytes: Producer<u8>,
    left_out: u32,
}

/// The control thread's end.
pub struct TapReader {
    bytes: Consumer<u8>,
}

/// A packet that was copied.
#[derive(Debug, PartialEq, Eq)]
pub struct Tapped {
    /// Packets that were left out before it.
    pub left_out: u32,
    /// Its payload.
    pub payload: Vec<u8>,
}

/// A tap and its reader.
#[must_use]
pub fn tap() -> (Box<Tap>, TapReader) {
    let (producer, bytes) = RingBuffer::new(TAP_BYTES);
    (Box::new(Tap { bytes: producer, left_out: 0 }), TapReader { bytes })
}

impl Tap {
    /// Copies a packet, if there is room.
    pub(super) fn copy(&mut self, payload: &[u8]) {
        let mut head = [0; HEAD_BYTES];
        head[..4].copy_from_slice(&(payload.len() as u32).to_ne_bytes());
        head[4..].copy_from_slice(&self.left_out.to_ne_bytes());
        if self.bytes.slots() < HEAD_BYTES + payload.len() {
            self.left_out = self.left_out.saturating_add(1);
            return;
        }
        self.left_out = 0;
        // There is room for both.
        let _ = self.bytes.push_entire_slice(&head);
        let _ = self.bytes.push_entire_slice(payload);
    }
}

impl TapReader {
    /// The next packet.
    pub fn read(&mut self) -> Option<Tapped> {
        let mut head = [0; HEAD_BYTES];
        let chunk = self.bytes.read_chunk(HEAD_BYTES).ok()?;
        let (first, second) = chunk.as_slices();
        head[..first.len()].copy_from_slice(first);
        head[first.len()..].copy_from_slice(second);
        let [len_bytes, left_out] = [0, 4]
            .map(|at| u32::from_ne_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]));
        // The head may be visible before the packet is.
        let mut whole = vec![0; HEAD_BYTES + len_bytes as usize];
        self.bytes.pop_entire_slice(&mut whole).ok()?;
        whole.drain(..HEAD_BYTES);
        Some(Tapped { left_out, payload: whole })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_counted() {
        let (mut tap, mut reader) = tap();
        assert_eq!(reader.read(), None);
        let fits = TAP_BYTES / (1000 + HEAD_BYTES);
        for n in 0..fits + 7 {
            tap.copy(&[n as u8; 1000]);
        }
        for n in 0..fits {
            assert_eq!(reader.read(), Some(Tapped { left_out: 0, payload: vec![n as u8; 1000] }));
        }
        assert_eq!(reader.read(), None);
        // Over the end of the ring, too.
        for n in 0..1000 {
            tap.copy(&[n as u8; 999]);
            let left_out = if n == 0 { 7 } else { 0 };
            assert_eq!(reader.read(), Some(Tapped { left_out, payload: vec![n as u8; 999] }));
        }
    }
}
