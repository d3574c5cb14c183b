//! The netoops packet: a header and a kilobyte of the kernel log.
//!
//! The layout is that of the patch of 2010 (`struct netoops_msg`, packed, little-endian):
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 2 | version: 2 |
//! | 2 | 2 | size of the header: 217 |
//! | 4 | 2 | architecture, see [`ARCH`] |
//! | 6 | 2 | id of the dump |
//! | 8 | 2 | type, see [`Kind`] |
//! | 10 | 4 | packets of the dump |
//! | 14 | 4 | number of this packet; 0 is the newest |
//! | 18 | 7 | reserved |
//! | 25 | 64 | kernel release, filled up with NUL, not terminated if it is as long |
//! | 89 | 128 | reserved |
//! | 217 | 1024 | text, filled up with NUL |
//!
//! What is reserved is written as zero and not looked at. Version 3, which Google's kernels
//! had later, has another header and is refused by its version.

use thiserror::Error;

/// UDP port of both sides (`NETOOPS_PORT`).
pub const PORT: u16 = 2004;
/// Bytes of text in a packet (`NETOOPS_DATA_BYTES`).
pub const DATA_BYTES: usize = 1024;
/// Bytes before the text.
pub const HEADER_BYTES: usize = 217;
/// Bytes of a packet; there are no shorter ones.
pub const PACKET_BYTES: usize = HEADER_BYTES + DATA_BYTES;
/// Times that a dump is sent whole (`NETOOPS_RETRANSMIT_COUNT`).
pub const PASSES: u8 = 3;
/// Most bytes of the kernel release; a longer one is cut.
pub const RELEASE_MAX_BYTES: usize = 64;
/// Longest text that a dump may have, on both sides.
pub const TEXT_MAX_BYTES: usize = 16 << 20;
/// Packets of the longest dump.
pub const PACKETS_MAX: u32 = (TEXT_MAX_BYTES / DATA_BYTES) as u32;

const VERSION: u16 = 2;
const RELEASE_AT: usize = 25;
/// Where a packet's number is, for who changes nothing else.
pub(super) const PACKET_NO_AT: usize = 14;

/// The architecture of this host, as it stands in a header.
///
/// The patch defines 2 for x86, 32 and 64 bits alike, and nothing else. The others are told by
/// the number that their ELF files have (`e_machine`, `include/uapi/linux/elf-em.h`): 183
/// for arm64, 243 for RISC-V, 21 for 64-bit POWER, 22 for s390, 258 for LoongArch. 0 stands for any that is
/// not in this list.
pub const ARCH: u16 = arch_number(std::env::consts::ARCH);

const ARCHS: [(&str, u16); 7] = [
    ("x86_64", 2),
    ("x86", 2),
    ("aarch64", 183),
    ("riscv64", 243),
    ("powerpc64", 21),
    ("s390x", 22),
    ("loongarch64", 258),
];

const fn arch_number(name: &str) -> u16 {
    let mut index = 0;
    while index < ARCHS.len() {
        let (known, number) = ARCHS[index];
        if equal(known.as_bytes(), name.as_bytes()) {
            return number;
        }
        index += 1;
    }
    0
}

/// `==` in a constant.
const fn equal(left: &[u8], right: &[u8]) -> bool {
    let mut index = 0;
    while index < left.len() && index < right.len() {
        if left[index] != right[index] {
            return false;
        }
        index += 1;
    }
    left.len() == right.len()
}

/// The name of an architecture as the kernel's sources have it, if the number is known.
#[must_use]
pub fn arch_name(arch: u16) -> Option<&'static str> {
    match arch {
        2 => Some("x86"),
        183 => Some("arm64"),
        243 => Some("riscv"),
        21 => Some("powerpc"),
        22 => Some("s390"),
        258 => Some("loongarch"),
        _ => None,
    }
}

/// Why there is a dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum Kind {
    /// A panic or an oops (`NETOOPS_TYPE_PRINTK_BUFFER`).
    Hard = 1,
    /// Somebody asked for it (`NETOOPS_TYPE_PRINTK_BUFFER_SOFT`).
    Soft = 3,
}

impl Kind {
    /// The name used in output and file names.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Hard => "hard",
            Self::Soft => "soft",
        }
    }
}

/// Why a datagram is no packet of a dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum WireError {
    /// The version is another one.
    #[error("netoops version {0}, not {VERSION}: the sender has to send version {VERSION}")]
    Version(u16),
    /// The header has another size.
    #[error("netoops header of {0} bytes, not {HEADER_BYTES}")]
    HeaderSize(u16),
    /// The datagram has another length.
    #[error("{0} bytes, not the {PACKET_BYTES} of a netoops packet")]
    Length(usize),
    /// The type is none of [`Kind`].
    #[error("netoops type {0}, neither 1 nor 3")]
    Kind(u16),
    /// The dump has no packets, or more than [`PACKETS_MAX`].
    #[error("netoops dump of {0} packets, not of 1 to {PACKETS_MAX}")]
    PacketCount(u32),
    /// The packet's number is not below the count.
    #[error("netoops packet number {packet_no} in a dump of {packet_count}")]
    PacketNo {
        /// The number.
        packet_no: u32,
        /// The count.
        packet_count: u32,
    },
}

/// The header of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    /// Architecture of the sender, see [`ARCH`].
    pub arch: u16,
    /// Tells the dumps of a host apart.
    pub dump_id: u16,
    /// Why there is a dump.
    pub kind: Kind,
    /// Packets of the dump, 1 to [`PACKETS_MAX`].
    pub packet_count: u32,
    /// Number of this packet; 0 is the newest.
    pub packet_no: u32,
    /// Kernel release, up to its first NUL; anything at all when it was received.
    pub kernel_release: &'a [u8],
}

impl Header<'_> {
    /// The header's bytes. A release that is too long is cut.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &VERSION.to_le_bytes());
        put(2, &(HEADER_BYTES as u16).to_le_bytes());
        put(4, &self.arch.to_le_bytes());
        put(6, &self.dump_id.to_le_bytes());
        put(8, &(self.kind as u16).to_le_bytes());
        put(10, &self.packet_count.to_le_bytes());
        put(PACKET_NO_AT, &self.packet_no.to_le_bytes());
        put(RELEASE_AT, &self.kernel_release[..self.kernel_release.len().min(RELEASE_MAX_BYTES)]);
        out
    }
}

/// Reads a packet: its header, and its text with what fills it up.
///
/// # Errors
/// If any field has a value that no sender of this version writes, or if the length is another.
pub fn decode(datagram: &[u8]) -> Result<(Header<'_>, &[u8; DATA_BYTES]), WireError> {
    // The version first: it says what another length or header means.
    let length = WireError::Length(datagram.len());
    let version = u16_at(datagram, 0).ok_or(length)?;
    if version != VERSION {
        return Err(WireError::Version(version));
    }
    let header_size = u16_at(datagram, 2).ok_or(length)?;
    if usize::from(header_size) != HEADER_BYTES {
        return Err(WireError::HeaderSize(header_size));
    }
    let (header, data) = datagram.split_first_chunk::<HEADER_BYTES>().ok_or(length)?;
    let data: &[u8; DATA_BYTES] = data.try_into().map_err(|_| length)?;
    let arch = u16_at(header, 4).ok_or(length)?;
    let dump_id = u16_at(header, 6).ok_or(length)?;
    let kind = match u16_at(header, 8).ok_or(length)? {
        1 => Kind::Hard,
        3 => Kind::Soft,
        other => return Err(WireError::Kind(other)),
    };
    let packet_count = u32_at(header, 10).ok_or(length)?;
    if packet_count == 0 || packet_count > PACKETS_MAX {
        return Err(WireError::PacketCount(packet_count));
    }
    let packet_no = u32_at(header, PACKET_NO_AT).ok_or(length)?;
    if packet_no >= packet_count {
        return Err(WireError::PacketNo { packet_no, packet_count });
    }
    let release = &header[RELEASE_AT..RELEASE_AT + RELEASE_MAX_BYTES];
    let release_len = release.iter().position(|&byte| byte == 0).unwrap_or(release.len());
    let kernel_release = &release[..release_len];
    Ok((Header { arch, dump_id, kind, packet_count, packet_no, kernel_release }, data))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().copied().map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A packet as the layout above has it, byte by byte: the third of 258.
    fn golden() -> Vec<u8> {
        let mut packet = vec![
            2, 0, // version
            217, 0, // header size
            2, 0, // x86
            0x39, 0x30, // dump 12345
            1, 0, // hard
            2, 1, 0, 0, // packets
            3, 0, 0, 0, // packet number
            0, 0, 0, 0, 0, 0, 0, // reserved
        ];
        packet.extend(b"6.12.48+deb13-amd64");
        packet.resize(89 + 128, 0);
        packet.extend(b"<0>[    6.060197] Kernel panic - not syncing: sysrq triggered crash\n");
        packet.resize(1241, 0);
        packet
    }

    #[test]
    fn the_golden_packet_is_written_and_read() {
        let golden = golden();
        let (header, data) = decode(&golden).expect("a packet");
        let expected = Header {
            arch: 2,
            dump_id: 12_345,
            kind: Kind::Hard,
            packet_count: 258,
            packet_no: 3,
            kernel_release: b"6.12.48+deb13-amd64",
        };
        assert_eq!(header, expected);
        assert!(data.starts_with(b"<0>[    6.060197] Kernel panic"));
        assert_eq!(expected.encode()[..], golden[..217]);
    }

    #[test]
    fn every_wrong_field_is_refused_by_its_name() {
        let with = |at: usize, bytes: &[u8]| {
            let mut packet = golden();
            packet[at..at + bytes.len()].copy_from_slice(bytes);
            decode(&packet).map(|(header, _)| header.packet_no)
        };
        assert_eq!(with(0, &[3, 0]), Err(WireError::Version(3)));
        assert_eq!(with(0, &[0, 2]), Err(WireError::Version(512)));
        assert_eq!(with(2, &[216, 0]), Err(WireError::HeaderSize(216)));
        assert_eq!(with(2, &[0xff, 0xff]), Err(WireError::HeaderSize(0xffff)));
        assert_eq!(with(8, &[2, 0]), Err(WireError::Kind(2)));
        assert_eq!(with(8, &[1, 1]), Err(WireError::Kind(257)));
        assert_eq!(with(10, &[0; 4]), Err(WireError::PacketCount(0)));
        assert_eq!(with(10, &[1, 0x40, 0, 0]), Err(WireError::PacketCount(16_385)));
        assert_eq!(with(10, &[0xff; 4]), Err(WireError::PacketCount(u32::MAX)));
        assert_eq!(
            with(10, &[3, 0, 0, 0]),
            Err(WireError::PacketNo { packet_no: 3, packet_count: 3 })
        );
        assert_eq!(with(10, &[4, 0, 0, 0]), Ok(3));
        assert_eq!(with(10, &[0, 0x40, 0, 0]), Ok(3));
        // Any host may have any id, and what is reserved is not looked at.
        assert_eq!(with(4, &[0xff; 4]), Ok(3));
        assert_eq!(with(18, &[0xff; 7]), Ok(3));
        assert_eq!(with(89, &[0xff; 128]), Ok(3));
    }

    #[test]
    fn only_one_length_is_right() {
        let mut long = golden();
        long.resize(2000, 0);
        for length in (0..=PACKET_BYTES + 1).chain([1284, 2000]) {
            let read = decode(&long[..length]).map(|_| ());
            let right = if length == 1241 { Ok(()) } else { Err(WireError::Length(length)) };
            assert_eq!(read, right, "{length} bytes");
        }
    }

    #[test]
    fn a_release_is_cut_at_64_bytes_and_at_a_nul() {
        let long = [b'x'; 100];
        let header = Header { kernel_release: &long, ..decode(&golden()).expect("a packet").0 };
        let mut packet = header.encode().to_vec();
        packet.resize(PACKET_BYTES, 0);
        assert_eq!(packet[89], 0);
        assert_eq!(decode(&packet).expect("a packet").0.kernel_release, &long[..64]);
        packet[30] = 0;
        assert_eq!(decode(&packet).expect("a packet").0.kernel_release, b"xxxxx");
    }

    #[test]
    fn architectures_have_numbers() {
        assert_eq!(arch_number("x86_64"), 2);
        assert_eq!(arch_number("x86"), 2);
        assert_eq!(arch_number("aarch64"), 183);
        assert_eq!(arch_number("x86_6"), 0);
        assert_eq!(arch_number("pdp11"), 0);
        for (name, number) in ARCHS {
            assert!(arch_name(number).is_some(), "{name}");
        }
        assert_eq!(arch_name(0), None);
        assert!(arch_name(ARCH).is_some());
    }
}
