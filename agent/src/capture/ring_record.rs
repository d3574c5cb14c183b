//! Reads one record of the programs out of the bytes of a ring item.
//!
//! The bytes come from the kernel, so every length is checked; what does not fit
//! is no record. Layout: [`agent_common::RecordHead`].

use std::mem::offset_of;

use agent_common::{
    DeviceInfo, FLAG_CONT, FLAG_FINAL, FLAG_LOST, FLAG_PREVIOUS, FLAG_PREVIOUS_OPEN,
    FLAG_TEXT_UNREAD, KIND_HEADER, KIND_TEXT, KIND_WHOLE, LAYOUT_VERSION, RecordHead, TEXT_AT_TEXT,
    TEXT_AT_WHOLE,
};

use crate::record::{Caller, Context, Record};

/// Where a whole record has its [`DeviceInfo`].
const DEVICE_INFO_AT: usize = size_of::<RecordHead>();

/// A checked view of one ring record.
#[derive(Clone, Copy, Debug)]
pub struct RingRecord<'a> {
    bytes: &'a [u8],
}

impl<'a> RingRecord<'a> {
    /// Checks the bytes of a ring item.
    #[must_use]
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let record = Self { bytes };
        if bytes.len() < TEXT_AT_TEXT || record.u16_at(0) != LAYOUT_VERSION {
            return None;
        }
        let text_at = match bytes[2] {
            KIND_TEXT => TEXT_AT_TEXT,
            KIND_WHOLE | KIND_HEADER => TEXT_AT_WHOLE,
            _ => return None,
        };
        let fits =
            record.text_at() == text_at && text_at + usize::from(record.u16_at(6)) <= bytes.len();
        fits.then_some(record)
    }

    /// Whether the programs saw the whole record.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.bytes[2] == KIND_WHOLE
    }

    /// Whether it is the header of a record whose text came before.
    #[must_use]
    pub fn is_header(&self) -> bool {
        self.bytes[2] == KIND_HEADER
    }

    /// What a descriptor id lacks to be a seq (modulo 2^64), if it is a header that tells.
    #[must_use]
    pub fn id_base(&self) -> Option<u64> {
        let id = self.is_header().then(|| self.text().try_into().ok())??;
        Some(self.seq_or_id().wrapping_sub(u64::from_ne_bytes(id)))
    }

    /// Whether a text brings the header of the record before.
    #[must_use]
    pub fn brings_previous(&self) -> bool {
        self.bytes[2] == KIND_TEXT && self.bytes[3] & FLAG_PREVIOUS != 0
    }

    /// Whether one more item is to bring all of the record before.
    #[must_use]
    pub fn is_previous_open(&self) -> bool {
        self.is_whole() && self.bytes[3] & FLAG_PREVIOUS_OPEN != 0
    }

    /// Whether nothing can be appended any more.
    #[must_use]
    pub fn is_final(&self) -> bool {
        self.bytes[3] & FLAG_FINAL != 0
    }

    /// Whether the text could not be read.
    #[must_use]
    pub fn text_unread(&self) -> bool {
        self.bytes[3] & FLAG_TEXT_UNREAD != 0
    }

    /// Whether the kernel had no room for the text, and shows the record to nobody.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.bytes[3] & FLAG_LOST != 0
    }

    /// Sequence number of a whole record or a header; else the word before the text.
    #[must_use]
    pub fn seq_or_id(&self) -> u64 {
        self.u64_at(offset_of!(RecordHead, seq))
    }

    /// When the program ran, `CLOCK_MONOTONIC`.
    #[must_use]
    pub fn ktime_ns(&self) -> u64 {
        self.u64_at(offset_of!(RecordHead, ktime_ns))
    }

    /// The raw text.
    #[must_use]
    pub fn text(&self) -> &'a [u8] {
        let at = self.text_at();
        &self.bytes[at..at + usize::from(self.u16_at(6))]
    }

    fn text_at(&self) -> usize {
        usize::from(self.u16_at(4))
    }

    /// The printing context.
    #[must_use]
    pub fn context(&self) -> Context<'a> {
        Context {
            cpu: self.u32_at(offset_of!(RecordHead, cpu)),
            pid: self.u32_at(offset_of!(RecordHead, pid)),
            task: until_nul(self.array(offset_of!(RecordHead, comm), 16)),
            cgroup_id: self.u64_at(offset_of!(RecordHead, cgroup_id)),
            cgroup: until_nul(self.array(offset_of!(RecordHead, cgroup), 64)),
        }
    }

    /// The record, if it is whole.
    #[must_use]
    pub fn whole(&self) -> Option<Record<'a>> {
        if !self.is_whole() {
            return None;
        }
        Some(self.with_header_of(self.u64_at(offset_of!(RecordHead, seq)), self, self.text()))
    }

    /// Length of the text of the record whose header this item brings.
    #[must_use]
    pub fn header_text_len_bytes(&self) -> usize {
        usize::from(self.u16_at(offset_of!(RecordHead, header_text_len_bytes)))
    }

    /// The record with this context and this text, and with the header that `item` brings.
    #[must_use]
    pub fn with_header_of<'r>(&self, seq: u64, item: &RingRecord<'r>, text: &'r [u8]) -> Record<'r>
    where
        'a: 'r,
    {
        let names = |at: usize, len_bytes| match item.text_at() {
            TEXT_AT_WHOLE => until_nul(item.array(DEVICE_INFO_AT + at, len_bytes)),
            _ => &[],
        };
        Record {
            seq,
            ts_ns: item.u64_at(offset_of!(RecordHead, ts_ns)),
            facility: item.bytes[offset_of!(RecordHead, facility)],
            level: item.bytes[offset_of!(RecordHead, level)] & 7,
            cont: item.bytes[3] & FLAG_CONT != 0,
            // Only shown where /dev/kmsg shows it: the sequencer is told so.
            caller: Some(caller(item.u32_at(offset_of!(RecordHead, caller_id)))),
            text,
            subsystem: names(offset_of!(DeviceInfo, subsystem), 16),
            device: names(offset_of!(DeviceInfo, device), 48),
            context: Some(self.context()),
            approximated: false,
            backfilled: false,
        }
    }

    /// The record as far as a text alone tells: its time and level are estimated.
    #[must_use]
    pub fn approximated(&self, seq: u64, ts_ns: u64, level: u8) -> Record<'a> {
        Record {
            seq,
            ts_ns,
            facility: 0,
            level,
            cont: false,
            caller: None,
            text: self.text(),
            subsystem: &[],
            device: &[],
            context: Some(self.context()),
            approximated: true,
            backfilled: false,
        }
    }

    /// Appends to the text of a record that ends at `len_bytes` of `bytes`, as far as there is room;
    /// returns where it ends now. `None` if it is no record.
    pub fn append_text(bytes: &mut [u8], len_bytes: usize, text: &[u8]) -> Option<usize> {
        let record = RingRecord::parse(bytes.get(..len_bytes)?)?;
        let end = record.text_at() + record.text().len();
        let room = bytes.get_mut(end..)?;
        let take = text.len().min(room.len()).min(usize::from(u16::MAX) - end);
        room[..take].copy_from_slice(&text[..take]);
        let text_len_bytes = u16::from_ne_bytes([bytes[6], bytes[7]]) + take as u16;
        bytes[6..8].copy_from_slice(&text_len_bytes.to_ne_bytes());
        Some(end + take)
    }

    fn array(&self, at: usize, len_bytes: usize) -> &'a [u8] {
        &self.bytes[at..at + len_bytes]
    }

    fn u16_at(&self, at: usize) -> u16 {
        u16::from_ne_bytes([self.bytes[at], self.bytes[at + 1]])
    }

    fn u32_at(&self, at: usize) -> u32 {
        let mut word = [0; 4];
        word.copy_from_slice(&self.bytes[at..at + 4]);
        u32::from_ne_bytes(word)
    }

    fn u64_at(&self, at: usize) -> u64 {
        let mut word = [0; 8];
        word.copy_from_slice(&self.bytes[at..at + 8]);
        u64::from_ne_bytes(word)
    }
}

/// `caller_id` as `print_caller` reads it (`kernel/printk/printk.c`): the top bit
/// says that it is a CPU.
fn caller(caller_id: u32) -> Caller {
    if caller_id & 0x8000_0000 != 0 {
        Caller::Cpu(caller_id & 0x7fff_ffff)
    } else {
        Caller::Task(caller_id)
    }
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_goes_with_the_text_and_the_context_of_another_item() {
        let item = |kind: u8, text_at: usize, text: &[u8]| {
            let mut bytes = vec![0; text_at];
            bytes[..2].copy_from_slice(&LAYOUT_VERSION.to_ne_bytes());
            bytes[2] = kind;
            bytes[4..6].copy_from_slice(&(text_at as u16).to_ne_bytes());
            bytes[6..8].copy_from_slice(&(text.len() as u16).to_ne_bytes());
            bytes.extend_from_slice(text);
            bytes
        };
        let mut text = item(KIND_TEXT, TEXT_AT_TEXT, b"link is down");
        text[offset_of!(RecordHead, cpu)] = 3;
        let mut header = item(KIND_HEADER, TEXT_AT_WHOLE, &40_u64.to_ne_bytes());
        header[offset_of!(RecordHead, seq)] = 50;
        header[offset_of!(RecordHead, level)] = 5;
        header[offset_of!(RecordHead, facility)] = 1;
        header[3] = FLAG_CONT;
        let names = DEVICE_INFO_AT + offset_of!(DeviceInfo, device);
        header[DEVICE_INFO_AT..DEVICE_INFO_AT + 3].copy_from_slice(b"pci");
        header[names..names + 5].copy_from_slice(b"+pci:");
        let (text, header) =
            (RingRecord::parse(&text).unwrap(), RingRecord::parse(&header).unwrap());
        assert_eq!((text.id_base(), header.id_base()), (None, Some(10)));
        let record = text.with_header_of(50, &header, text.text());
        assert_eq!((record.seq, record.level, record.facility, record.cont), (50, 5, 1, true));
        assert_eq!((record.subsystem, record.device), (&b"pci"[..], &b"+pci:"[..]));
        assert_eq!((record.text, record.context.unwrap().cpu), (&b"link is down"[..], 3));
        // With the next text there is no device.
        assert_eq!(header.with_header_of(51, &text, b"").device, b"");
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(mut bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..400), kind in 1u8..4) {
            if bytes.len() > 6 {
                bytes[..2].copy_from_slice(&LAYOUT_VERSION.to_ne_bytes());
                bytes[2] = kind;
                bytes[4..6].copy_from_slice(&(if kind == 1 { TEXT_AT_TEXT } else { TEXT_AT_WHOLE } as u16).to_ne_bytes());
            }
            if let Some(record) = RingRecord::parse(&bytes) {
                let _ = (record.text().len(), record.context(), record.whole());
                let _ = record.with_header_of(1, &record, record.text());
            }
        }
    }
}
