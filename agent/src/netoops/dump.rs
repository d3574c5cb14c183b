//! One dump: text to packets, the newest kilobyte first.
//!
//! The text is cut into kilobytes from its beginning, as `netoops_send_segment` of the patch
//! does it: all packets are full but the one with the text's end, which is filled up with
//! NUL. That one is number 0 and leaves first; the highest number is the oldest kilobyte.
//! Unlike in the patch a text of whole kilobytes has a full packet 0 (the patch sends an empty one
//! and loses that text), and lengths are unsigned and checked.
//!
//! It sends nothing and keeps no text: that is lent for each packet.

use thiserror::Error;

use super::wire::{
    ARCH, DATA_BYTES, HEADER_BYTES, Header, Kind, PACKET_BYTES, PACKET_NO_AT, PASSES,
    TEXT_MAX_BYTES,
};

/// A text that is longer than a dump may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "a netoops dump of {text_len_bytes} bytes is longer than the {TEXT_MAX_BYTES} that a receiver \
     takes; dump less of the text's tail"
)]
pub struct DumpTooLong {
    /// Its length.
    pub text_len_bytes: usize,
}

/// The packets of one text.
#[derive(Clone, Debug)]
pub struct Dump {
    /// Of any packet, but for its number.
    header: [u8; HEADER_BYTES],
    text_len: usize,
    packet_count: u32,
}

impl Dump {
    /// A dump of a text of `text_len` bytes.
    ///
    /// The patch takes the seconds since boot for `id`. Whatever it is, it must
    /// differ from that of the host's dump before: a receiver takes packets with
    /// the same id, kind and count within some seconds for repetitions. A release beyond 64
    /// bytes is cut. Nothing is allocated.
    ///
    /// # Errors
    /// If the text is longer than [`TEXT_MAX_BYTES`].
    pub fn new(
        id: u16,
        kind: Kind,
        kernel_release: &[u8],
        text_len: usize,
    ) -> Result<Self, DumpTooLong> {
        if text_len > TEXT_MAX_BYTES {
            return Err(DumpTooLong { text_len_bytes: text_len });
        }
        // At most PACKETS_MAX.
        let packet_count = text_len.div_ceil(DATA_BYTES) as u32;
        let header =
            Header { arch: ARCH, dump_id: id, kind, packet_count, packet_no: 0, kernel_release };
        Ok(Self { header: header.encode(), text_len, packet_count })
    }

    /// Packets of one pass; none for an empty text.
    #[must_use]
    pub fn packet_count(&self) -> u32 {
        self.packet_count
    }

    /// What is to be sent, in this order: (pass, packet number).
    pub fn order(&self) -> impl Iterator<Item = (u8, u32)> + use<> {
        let count = self.packet_count;
        (0..PASSES).flat_map(move |pass| (0..count).map(move |packet_no| (pass, packet_no)))
    }

    /// Writes packet `packet_no` of `text` into `out` and returns its length,
    /// [`PACKET_BYTES`]; zero, and nothing written, if there is no such packet, if the text has
    /// not the length that was told, or if `out` is shorter than a packet. Nothing is
    /// allocated.
    #[must_use]
    pub fn packet(&self, text: &[u8], packet_no: u32, out: &mut [u8]) -> usize {
        let Some((out, _)) = out.split_first_chunk_mut::<PACKET_BYTES>() else { return 0 };
        if packet_no >= self.packet_count || text.len() != self.text_len {
            return 0;
        }
        let begin = (self.packet_count - 1 - packet_no) as usize * DATA_BYTES;
        let text = &text[begin..self.text_len.min(begin + DATA_BYTES)];
        let (header, data) = out.split_at_mut(HEADER_BYTES);
        header.copy_from_slice(&self.header);
        header[PACKET_NO_AT..PACKET_NO_AT + 4].copy_from_slice(&packet_no.to_le_bytes());
        let (data, padding) = data.split_at_mut(text.len());
        data.copy_from_slice(text);
        padding.fill(0);
        PACKET_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::super::wire::{PACKETS_MAX, decode};
    use super::*;

    fn text(len: usize) -> Vec<u8> {
        (0..len).map(|index| b'a' + (index % 23) as u8).collect()
    }

    fn packets(text: &[u8]) -> Vec<Vec<u8>> {
        let dump = Dump::new(7, Kind::Soft, b"6.1.0", text.len()).expect("short enough");
        let packet = |packet_no| {
            let mut out = [0xff; PACKET_BYTES + 9];
            assert_eq!(dump.packet(text, packet_no, &mut out), PACKET_BYTES);
            assert_eq!(out[PACKET_BYTES..], [0xff; 9]);
            out[..PACKET_BYTES].to_vec()
        };
        (0..dump.packet_count()).map(packet).collect()
    }

    #[test]
    fn the_newest_kilobyte_is_number_0_and_alone_is_partial() {
        let text = text(2 * 1024 + 100);
        let packets = packets(&text);
        assert_eq!(packets.len(), 3);
        let data: Vec<_> = packets.iter().map(|packet| &packet[HEADER_BYTES..]).collect();
        assert_eq!(data[0][..100], text[2048..]);
        assert_eq!(data[0][100..], [0; 924]);
        assert_eq!(data[1], &text[1024..2048]);
        assert_eq!(data[2], &text[..1024]);
        for (packet_no, packet) in packets.iter().enumerate() {
            let (header, _) = decode(packet).expect("a packet");
            assert_eq!(header.packet_no as usize, packet_no);
            assert_eq!((header.packet_count, header.dump_id, header.arch), (3, 7, ARCH));
            assert_eq!((header.kind, header.kernel_release), (Kind::Soft, &b"6.1.0"[..]));
        }
    }

    #[test]
    fn a_full_tail_is_full_and_adds_no_packet() {
        for (len, count) in [(0, 0), (1, 1), (1023, 1), (1024, 1), (1025, 2), (65_536, 64)] {
            let text = text(len);
            let packets = packets(&text);
            assert_eq!(packets.len(), count, "{len} bytes");
            let Some(newest) = packets.first() else { continue };
            let tail = if len % 1024 == 0 { 1024 } else { len % 1024 };
            assert_eq!(newest[HEADER_BYTES..][..tail], text[len - tail..]);
            assert!(newest[HEADER_BYTES + tail..].iter().all(|&byte| byte == 0));
        }
    }

    #[test]
    fn the_order_is_three_times_from_the_newest_on() {
        let dump = Dump::new(7, Kind::Hard, b"", 1025).expect("short enough");
        let order: Vec<_> = dump.order().collect();
        assert_eq!(order, [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)]);
        assert_eq!(Dump::new(7, Kind::Hard, b"", 0).expect("short enough").order().count(), 0);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let longest = Dump::new(0, Kind::Hard, b"", TEXT_MAX_BYTES).expect("just short enough");
        assert_eq!(longest.packet_count(), PACKETS_MAX);
        for text_len_bytes in [TEXT_MAX_BYTES + 1, usize::MAX] {
            let error = Dump::new(0, Kind::Hard, b"", text_len_bytes).expect_err("too long");
            assert_eq!(error, DumpTooLong { text_len_bytes });
        }
        let text = text(1025);
        let dump = Dump::new(0, Kind::Hard, b"", text.len()).expect("short enough");
        let mut out = [0xff; PACKET_BYTES];
        assert_eq!(dump.packet(&text, 2, &mut out), 0);
        assert_eq!(dump.packet(&text, u32::MAX, &mut out), 0);
        assert_eq!(dump.packet(&text[1..], 0, &mut out), 0);
        assert_eq!(dump.packet(&text, 0, &mut out[1..]), 0);
        assert_eq!(out, [0xff; PACKET_BYTES]);
    }
}
