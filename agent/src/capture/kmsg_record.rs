//! One record as `/dev/kmsg` told it, in memory of fixed size, so that the queue
//! between the `/dev/kmsg` thread and the pump never allocates.

use crate::record::{
    Caller, Context, DEVICE_MAX_BYTES, Record, SUBSYSTEM_MAX_BYTES, TEXT_MAX_BYTES,
};

/// An owned record without context.
#[derive(Clone, Debug)]
pub struct KmsgRecord {
    /// Sequence number.
    pub seq: u64,
    /// printk's time in microseconds.
    pub ts_us: u64,
    /// syslog facility.
    pub facility: u8,
    /// syslog level.
    pub level: u8,
    /// Flag `c`.
    pub cont: bool,
    /// `caller=`, where the kernel shows it.
    pub caller: Option<Caller>,
    text_len: u16,
    subsystem_len: u8,
    device_len: u8,
    text: [u8; TEXT_MAX_BYTES],
    subsystem: [u8; SUBSYSTEM_MAX_BYTES],
    device: [u8; DEVICE_MAX_BYTES],
}

impl Default for KmsgRecord {
    fn default() -> Self {
        Self {
            seq: 0,
            ts_us: 0,
            facility: 0,
            level: 0,
            cont: false,
            caller: None,
            text_len: 0,
            subsystem_len: 0,
            device_len: 0,
            text: [0; TEXT_MAX_BYTES],
            subsystem: [0; SUBSYSTEM_MAX_BYTES],
            device: [0; DEVICE_MAX_BYTES],
        }
    }
}

impl KmsgRecord {
    /// The raw text.
    #[must_use]
    pub fn text(&self) -> &[u8] {
        &self.text[..usize::from(self.text_len)]
    }

    /// Sets the text, cut at [`TEXT_MAX_BYTES`].
    pub fn set_text(&mut self, text: &[u8]) {
        self.text_len = copy_cut(&mut self.text, text) as u16;
    }

    /// Takes everything but the context from a record.
    pub fn set(&mut self, record: &Record<'_>) {
        self.seq = record.seq;
        self.ts_us = record.ts_ns / 1000;
        self.facility = record.facility;
        self.level = record.level;
        self.cont = record.cont;
        self.caller = record.caller;
        self.set_text(record.text);
        self.subsystem_len = copy_cut(&mut self.subsystem, record.subsystem) as u8;
        self.device_len = copy_cut(&mut self.device, record.device) as u8;
    }

    /// The record, with the context that a program saw, if one did.
    #[must_use]
    pub fn as_record<'a>(&'a self, context: Option<Context<'a>>) -> Record<'a> {
        Record {
            seq: self.seq,
            ts_ns: self.ts_us.saturating_mul(1000),
            facility: self.facility,
            level: self.level,
            cont: self.cont,
            caller: self.caller,
            text: self.text(),
            subsystem: &self.subsystem[..usize::from(self.subsystem_len)],
            device: &self.device[..usize::from(self.device_len)],
            context,
            approximated: false,
            backfilled: false,
        }
    }
}

fn copy_cut(to: &mut [u8], from: &[u8]) -> usize {
    let len_bytes = from.len().min(to.len());
    to[..len_bytes].copy_from_slice(&from[..len_bytes]);
    len_bytes
}
