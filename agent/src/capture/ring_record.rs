//! Reads one record of the programs out of the bytes of a ring item.
//!
//! The bytes come from the kernel, so every length is checked; what does not fit
//! is no record. Layout: [`agent_common::RecordHead`].

use std::mem::offset_of;

use agent_common::{
    DeviceInfo, FLAG_CONT, FLAG_FINAL, FLAG_LOST, FLAG_TEXT_UNREAD, KIND_TEXT, KIND_WHOLE,
    LAYOUT_VERSION, RecordHead, TEXT_AT_TEXT, TEXT_AT_WHOLE,
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
            KIND_WHOLE => TEXT_AT_WHOLE,
            _ => return None,
        };
        let fits = usize::from(record.u16_at(4)) == text_at
            && text_at + usize::from(record.u16_at(6)) <= bytes.len();
        fits.then_some(record)
    }

    /// Whether the programs saw the whole record.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.bytes[2] == KIND_WHOLE
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

    /// Sequence number of a whole record; else the word before the text.
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
        let at = usize::from(self.u16_at(4));
        &self.bytes[at..at + usize::from(self.u16_at(6))]
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
        Some(Record {
            seq: self.u64_at(offset_of!(RecordHead, seq)),
            ts_ns: self.u64_at(offset_of!(RecordHead, ts_ns)),
            facility: self.bytes[offset_of!(RecordHead, facility)],
            level: self.bytes[offset_of!(RecordHead, level)] & 7,
            cont: self.bytes[3] & FLAG_CONT != 0,
            // Only shown where /dev/kmsg shows it: the sequencer is told so.
            caller: Some(caller(self.u32_at(offset_of!(RecordHead, caller_id)))),
            text: self.text(),
            subsystem: until_nul(
                self.array(DEVICE_INFO_AT + offset_of!(DeviceInfo, subsystem), 16),
            ),
            device: until_nul(self.array(DEVICE_INFO_AT + offset_of!(DeviceInfo, device), 48)),
            context: Some(self.context()),
            approximated: false,
            backfilled: false,
        })
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
        let end = usize::from(record.u16_at(4)) + record.text().len();
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

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(mut bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..400), kind in 1u8..3) {
            if bytes.len() > 6 {
                bytes[..2].copy_from_slice(&LAYOUT_VERSION.to_ne_bytes());
                bytes[2] = kind;
                bytes[4..6].copy_from_slice(&(if kind == 1 { TEXT_AT_TEXT } else { TEXT_AT_WHOLE } as u16).to_ne_bytes());
            }
            if let Some(record) = RingRecord::parse(&bytes) {
                let _ = (record.text().len(), record.context(), record.whole());
            }
        }
    }
}
