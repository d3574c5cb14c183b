//! The Internet checksum (RFC 1071), summed in wide words.
//!
//! The one's complement sum does not depend on byte order (RFC 1071, section 2,
//! B), so words are added as the machine reads them and only the stored result
//! is in network order by construction: bytes in, bytes out.

/// A running one's complement sum over words in machine order, not yet folded.
///
/// 2^64 words of 64 bits fit, far more than a packet holds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sum(u128);

impl Sum {
    /// Adds `bytes`; a trailing odd byte is padded with zero (RFC 1071, section
    /// 1), so only the last piece of a message may have an odd length.
    #[must_use]
    pub(super) fn bytes(self, bytes: &[u8]) -> Self {
        // Four sums, so that an addition does not wait for the one before.
        let mut sums = [self.0, 0, 0, 0];
        let (words, rest) = bytes.as_chunks::<8>();
        let (groups, single) = words.as_chunks::<4>();
        for group in groups {
            for (sum, word) in sums.iter_mut().zip(group) {
                *sum += u128::from(u64::from_ne_bytes(*word));
            }
        }
        for (sum, word) in sums.iter_mut().zip(single) {
            *sum += u128::from(u64::from_ne_bytes(*word));
        }
        let (half, rest) = rest.as_chunks::<4>();
        for word in half {
            sums[3] += u128::from(u32::from_ne_bytes(*word));
        }
        let (pair, rest) = rest.as_chunks::<2>();
        for word in pair {
            sums[2] += u128::from(u16::from_ne_bytes(*word));
        }
        if let [byte] = rest {
            sums[1] += u128::from(u16::from_ne_bytes([*byte, 0]));
        }
        Self(sums.iter().sum())
    }

    /// The same sum in 16 bits.
    #[must_use]
    pub(super) fn folded(self) -> ShortSum {
        // Halves are added with their carries, without a branch: how often a
        // loop turns would depend on the data.
        let (sum, carry) = (self.0 as u64).overflowing_add((self.0 >> 64) as u64);
        let sum = sum + u64::from(carry);
        let sum = (sum & 0xffff_ffff) + (sum >> 32);
        let sum = (sum & 0xffff) + ((sum >> 16) & 0xffff) + (sum >> 32);
        ShortSum(sum as u32).folded()
    }
}

/// A sum of so few words that 32 bits hold it: enough for a header.
#[derive(Clone, Copy, Debug)]
pub(super) struct ShortSum(u32);

impl ShortSum {
    /// Adds one 16-bit field; up to 2^15 of them fit.
    #[must_use]
    pub(super) fn word(self, value: u16) -> Self {
        Self(self.0 + u32::from(value.to_be()))
    }

    /// Both sums in one.
    #[must_use]
    pub(super) fn plus(self, other: Self) -> Self {
        Self(self.folded().0 + other.folded().0)
    }

    fn folded(self) -> Self {
        let sum = (self.0 & 0xffff) + (self.0 >> 16);
        Self((sum & 0xffff) + (sum >> 16))
    }

    /// The checksum, as the bytes that go into the header.
    #[must_use]
    pub(super) fn finish(self) -> [u8; 2] {
        // 16 bits are left.
        (!(self.folded().0 as u16)).to_ne_bytes()
    }
}

/// The Internet checksum of `bytes` as a number (network order read as such).
#[must_use]
pub fn internet_checksum(bytes: &[u8]) -> u16 {
    u16::from_be_bytes(Sum::default().bytes(bytes).folded().finish())
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

    #[test]
    fn carries_are_added_back() {
        // Every word all ones: each addition carries, on every fold.
        for len in [2usize, 8, 32, 34, 64, 4096, 65_534] {
            let bytes = vec![0xff; len];
            assert_eq!(internet_checksum(&bytes), by_the_book(&bytes), "{len} bytes");
        }
        assert_eq!(Sum(u128::MAX).folded().finish(), [0, 0]);
        assert_eq!(Sum((1 << 64) | u128::from(u64::MAX)).folded().finish(), (!1u16).to_ne_bytes());
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
                Sum::default().bytes(head).bytes(tail).folded().finish(),
                Sum::default().bytes(&bytes).folded().finish()
            );
        }
    }
}
