//! A pcap file in place of a network: for dry runs and for tests.
//!
//! Classic format, little endian, link type Ethernet, nanosecond or microsecond
//! stamps (pcap-savefile(5); draft-ietf-opsawg-pcap). Stamps are the time of the
//! push. Sent means that the file system took the frame, not that it is on disk.
//! This is not a capture: received packets are none of its business.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use super::slots::SLOT_BYTES;
use super::{Egress, EgressKind, OpenError, Outcome, PushError, Tag};

/// Resolution of the stamps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PcapStamps {
    /// Nanoseconds; every current tool reads them.
    #[default]
    Nanoseconds,
    /// Microseconds, for old tools.
    Microseconds,
}

impl PcapStamps {
    fn magic(self) -> u32 {
        match self {
            Self::Nanoseconds => 0xa1b2_3c4d,
            Self::Microseconds => 0xa1b2_c3d4,
        }
    }
}

/// Which file to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PcapOptions {
    /// The file; one that exists is emptied.
    pub path: PathBuf,
    /// Resolution of the stamps.
    pub stamps: PcapStamps,
}

const RECORD_HEADER_BYTES: usize = 16;
const LINKTYPE_ETHERNET: u32 = 1;
/// Room for frames between two flushes, in bytes and in frames.
const BUFFER_BYTES: usize = 1 << 20;
const FRAMES_MAX: usize = 4096;

/// Creates the file and writes its header.
///
/// # Errors
/// [`OpenError`] says which step failed and what to do.
pub fn open(options: &PcapOptions) -> Result<Box<dyn Egress>, OpenError> {
    let step = |operation| {
        move |cause| OpenError {
            operation,
            object: format!("the pcap file {}", options.path.display()),
            cause,
            remedy: "name a file in a directory that the agent may write to, with space left",
        }
    };
    let file = File::create(&options.path).map_err(step("create the file"))?;
    to_writer(file, options.stamps).map_err(step("write the file's header"))
}

/// The same for any writer, for instance standard output.
///
/// # Errors
/// That of writing the file's header.
pub fn to_writer(
    mut writer: impl Write + Send + 'static,
    stamps: PcapStamps,
) -> io::Result<Box<dyn Egress>> {
    writer.write_all(&file_header(stamps))?;
    writer.flush()?;
    Ok(Box::new(PcapEgress {
        writer,
        stamps,
        buffer: Vec::with_capacity(BUFFER_BYTES),
        written: 0,
        frames: VecDeque::with_capacity(FRAMES_MAX),
        abandoned: false,
    }))
}

fn file_header(stamps: PcapStamps) -> [u8; 24] {
    let mut header = [0; 24];
    header[0..4].copy_from_slice(&stamps.magic().to_le_bytes());
    // Version 2.4; two reserved words.
    header[4..6].copy_from_slice(&2u16.to_le_bytes());
    header[6..8].copy_from_slice(&4u16.to_le_bytes());
    header[16..20].copy_from_slice(&(SLOT_BYTES as u32).to_le_bytes());
    header[20..24].copy_from_slice(&LINKTYPE_ETHERNET.to_le_bytes());
    header
}

struct PcapEgress<W> {
    writer: W,
    stamps: PcapStamps,
    /// Records since the buffer was last empty.
    buffer: Vec<u8>,
    /// How much of it the file took.
    written: usize,
    /// Frames not told of, and where their records end in the buffer.
    frames: VecDeque<(Tag, usize)>,
    abandoned: bool,
}

impl<W> PcapEgress<W> {
    fn record_header(&self, len_bytes: usize) -> [u8; RECORD_HEADER_BYTES] {
        // A clock before 1970 is not worth more than a stamp of zero.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let fraction = match self.stamps {
            PcapStamps::Nanoseconds => now.subsec_nanos(),
            PcapStamps::Microseconds => now.subsec_micros(),
        };
        let mut header = [0; RECORD_HEADER_BYTES];
        // The format's seconds are 32 bits wide, and so is a slot's length.
        let words = [now.as_secs() as u32, fraction, len_bytes as u32, len_bytes as u32];
        for (place, word) in header.chunks_exact_mut(4).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        header
    }

    /// Forgets what the file took and was told.
    fn start_over_if_empty(&mut self) {
        if self.frames.is_empty() && self.written == self.buffer.len() {
            self.buffer.clear();
            self.written = 0;
        }
    }
}

impl<W: Write + Send> Egress for PcapEgress<W> {
    fn kind(&self) -> EgressKind {
        EgressKind::Pcap
    }

    fn slot_bytes(&self) -> usize {
        SLOT_BYTES
    }

    fn push(
        &mut self,
        tag: Tag,
        _mtu_bytes: u32,
        fill: &mut dyn FnMut(&mut [u8]) -> usize,
    ) -> Result<(), PushError> {
        let start = self.buffer.len();
        let slot_at = start + RECORD_HEADER_BYTES;
        if self.abandoned || self.frames.len() == FRAMES_MAX || slot_at + SLOT_BYTES > BUFFER_BYTES
        {
            return Err(PushError::Full);
        }
        // Within the capacity: nothing is allocated.
        self.buffer.resize(slot_at + SLOT_BYTES, 0);
        let len_bytes = fill(&mut self.buffer[slot_at..]);
        if len_bytes > SLOT_BYTES {
            self.buffer.truncate(start);
            return Err(PushError::TooLong { len_bytes, limit_bytes: SLOT_BYTES });
        }
        let header = self.record_header(len_bytes);
        self.buffer[start..slot_at].copy_from_slice(&header);
        self.buffer.truncate(slot_at + len_bytes);
        self.frames.push_back((tag, self.buffer.len()));
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        while self.written < self.buffer.len() {
            match self.writer.write(&self.buffer[self.written..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(len_bytes) => self.written += len_bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // A pipe that is full.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        self.writer.flush()
    }

    fn reap(&mut self, done: &mut dyn FnMut(Tag, Outcome)) {
        while let Some((tag, _)) = self.frames.pop_front_if(|(_, end)| *end <= self.written) {
            done(tag, Outcome::Sent);
        }
        self.start_over_if_empty();
    }

    fn queued(&self) -> usize {
        self.frames.len()
    }

    fn abandon(&mut self, fate: &mut dyn FnMut(Tag, Option<Outcome>)) {
        self.abandoned = true;
        for (tag, end) in self.frames.drain(..) {
            fate(tag, (end <= self.written).then_some(Outcome::Sent));
        }
        self.buffer.clear();
        self.written = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(egress: &mut dyn Egress, tag: u64, frame: &[u8]) -> Result<(), PushError> {
        egress.push(Tag(tag), 1500, &mut |slot| {
            slot[..frame.len()].copy_from_slice(frame);
            frame.len()
        })
    }

    fn word(bytes: &[u8], at: usize) -> u32 {
        u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
    }

    #[test]
    fn the_file_is_pcap() {
        let directory = tempfile::tempdir().unwrap();
        for (stamps, magic, resolution) in [
            (PcapStamps::Nanoseconds, 0xa1b2_3c4d, 1_000_000_000),
            (PcapStamps::Microseconds, 0xa1b2_c3d4, 1_000_000),
        ] {
            let options = PcapOptions { path: directory.path().join("out.pcap"), stamps };
            let before = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
            let mut egress = open(&options).unwrap();
            for round in 0..3 {
                push(&mut *egress, round, &[round as u8; 60]).unwrap();
                push(&mut *egress, round, b"odd length frame.").unwrap();
                assert_eq!(egress.queued(), 2);
                egress.flush().unwrap();
                let mut told = 0;
                egress.reap(&mut |tag, outcome| {
                    told += 1;
                    assert_eq!((tag, outcome), (Tag(round), Outcome::Sent));
                });
                assert_eq!((told, egress.queued()), (2, 0));
            }
            let file = std::fs::read(&options.path).unwrap();
            assert_eq!((word(&file, 0), word(&file, 16), word(&file, 20)), (magic, 2048, 1));
            assert_eq!(file[4..8], [2, 0, 4, 0]);
            let mut at = 24;
            for round in 0..3u8 {
                for frame in [&[round; 60][..], b"odd length frame."] {
                    assert!(u64::from(word(&file, at)).abs_diff(before) < 60);
                    assert!(word(&file, at + 4) < resolution);
                    assert_eq!(word(&file, at + 8) as usize, frame.len());
                    assert_eq!(word(&file, at + 12) as usize, frame.len());
                    assert_eq!(&file[at + 16..][..frame.len()], frame);
                    at += 16 + frame.len();
                }
            }
            assert_eq!(at, file.len());
        }
    }

    /// Takes `room` bytes, then fails, until it is given room again.
    #[derive(Clone)]
    struct Tight(std::sync::Arc<std::sync::Mutex<(usize, Vec<u8>)>>);

    impl Write for Tight {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut state = self.0.lock().unwrap();
            let len = bytes.len().min(state.0);
            if len == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            state.0 -= len;
            state.1.extend_from_slice(&bytes[..len]);
            Ok(len)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_disk_cuts_no_record_for_good() {
        let disk = Tight(Default::default());
        disk.0.lock().unwrap().0 = 24 + 16 + 20 + 5;
        let mut egress = to_writer(disk.clone(), PcapStamps::Nanoseconds).unwrap();
        for tag in 0..3 {
            push(&mut *egress, tag, &[tag as u8; 20]).unwrap();
        }
        assert_eq!(egress.flush().unwrap_err().kind(), io::ErrorKind::StorageFull);
        let mut told = Vec::new();
        egress.reap(&mut |tag, _| told.push(tag.0));
        assert_eq!((told.as_slice(), egress.queued()), (&[0][..], 2));
        disk.0.lock().unwrap().0 = 16 + 20 + 5;
        egress.flush().unwrap_err();
        egress.reap(&mut |tag, _| told.push(tag.0));
        let mut unsent = Vec::new();
        egress.abandon(&mut |tag, outcome| unsent.push((tag.0, outcome)));
        assert_eq!((told, unsent, egress.queued()), (vec![0, 1], vec![(2, None)], 0));
        assert!(matches!(push(&mut *egress, 9, &[0; 20]), Err(PushError::Full)));
        let written = disk.0.lock().unwrap().1.clone();
        assert_eq!(written[24 + 16 + 20 + 16..][..20], [1; 20]);
    }

    #[test]
    fn the_buffer_does_not_grow() {
        let mut egress = to_writer(io::sink(), PcapStamps::Microseconds).unwrap();
        let mut taken = 0;
        while push(&mut *egress, taken, &[0; 1000]).is_ok() {
            taken += 1;
        }
        assert_eq!(taken, ((BUFFER_BYTES - SLOT_BYTES - 16) / 1016 + 1) as u64);
        egress.flush().unwrap();
        egress.reap(&mut |_, _| {});
        push(&mut *egress, 0, &[0; 1000]).unwrap();
        let long = egress.push(Tag(0), 1500, &mut |_| SLOT_BYTES + 1);
        assert!(matches!(long, Err(PushError::TooLong { .. })));
        assert_eq!(egress.queued(), 1);
    }

    #[test]
    fn a_directory_that_is_not_there_is_named() {
        let path = PathBuf::from("/does/not/exist.pcap");
        let error = open(&PcapOptions { path, stamps: PcapStamps::default() }).err().unwrap();
        assert!(error.to_string().starts_with(
            "cannot create the file for the pcap file /does/not/exist.pcap: No such file"
        ));
    }
}
