//! The Internet checksum (RFC 1071), summed in wide words.
//!
//! The one's complement sum does not depend on byte order (RFC 1071, section 2,
//! B), so words are added as the machine reads them and only the stored result
//! is in network order by construction: bytes in, bytes out.

/// A running one's complement sum over words in machine order, not yet folded.
///
/// 2^32 words of 32 bits fit, far more than a packet holds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sum(u64);

impl Sum {
    /// Adds `bytes`; a trailing odd byte is padded with zero (RFC 1071, section
    /// 1), so only the last piece of a message may have an odd length.
    #[must_use]
    pub(super) fn bytes(self, bytes: &[u8]) -> Self {
        let (words, rest) = bytes.as_chunks::<4>();
        let mut sum = self.0;
        for word in words {
            sum += u64::from(u32::from_ne_bytes(*word));
        }
        let mut last = [0; 4];
        last[..rest.len()].copy_from_slice(rest);
        Self(sum + u64::from(u32::from_ne_bytes(last)))
    }

    /// Adds one 16-bit field of a header.
    #[must_use]
    pub(super) fn word(self, value: u16) -> Self {
        Self(self.0 + u64::from(value.to_be()))
    }

    /// The checksum, as the bytes that go into the header.
    #[must_use]
    pub(super) fn finish(self) -> [u8; 2] {
        let mut sum = self.0;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        // The loop leaves 16 bits.
        (!(sum as u16)).to_ne_bytes()
    }
}

/// The Internet checksum of `bytes` as a number (network order read as such).
#[must_use]
pub fn internet_checksum(bytes: &[u8]) -> u16 {
    u16::from_be_bytes(Sum::default().bytes(bytes).finish())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// RFC 1071 as it is written: 16-bit words, carries added at the end.
    fn by_the_book(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    #[test]
    fn the_example_of_rfc_1071() {
        // Section 3: 00 01 f2 03 f4 f5 f6 f7 sums to ddf2.
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(internet_checksum(&bytes), !0xddf2);
    }

    proptest! {
        #[test]
        fn equals_the_rfc(bytes in proptest::collection::vec(any::<u8>(), 0..4096)) {
            prop_assert_eq!(internet_checksum(&bytes), by_the_book(&bytes));
        }

        #[test]
        fn pieces_sum_to_the_whole(
            bytes in proptest::collection::vec(any::<u8>(), 0..512),
            cut in 0usize..256,
        ) {
            let cut = (cut * 2).min(bytes.len() & !1);
            let (head, tail) = bytes.split_at(cut);
            prop_assert_eq!(
                Sum::default().bytes(head).bytes(tail).finish(),
                Sum::default().bytes(&bytes).finish()
            );
        }
    }
}
