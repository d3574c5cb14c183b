//! Messages of the agent's own to a receiver: what operators send, pings, keepalives and
//! notices, and lines that an earlier boot left. Pure: no clock, no I/O, and [`compose_into`] allocates nothing.
//!
//! Each is one datagram of at most [`DATAGRAM_MAX_BYTES`] without an extended header, so that
//! it has no place in the sequence of the kernel's records:
//! `netconsole-agent, KIND: TEXT\n`, and then the target's extra data as it follows a record.
//!
//! No text can make it a record. `parse_packet` (netconsd's `ncrx/libncrx.c`) takes the
//! bytes before the first `,` for a release if there is a dot in them, and else for the
//! priority, which must be a number as a whole. Every prefix here ends that field itself,
//! before the text begins, with a name that has no dot and is no number; so the packet is
//! refused as a record whatever follows, and shown as a line. For the same reason it is
//! never a syslog priority (`<N>`) or an answer of a receiver (`ncrx…`).

pub mod keepalive;

use std::{
    fmt::Write as _,
    time::{Duration, SystemTime},
};

use crate::{
    frame::mac_text,
    netconsole::{DATAGRAM_MAX_BYTES, escape},
};

/// What a message is; each kind has its own word in front.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An operator's.
    Message,
    /// Sent to be looked for at the receiver.
    Ping,
    /// Sent from time to time.
    Keepalive,
    /// The agent's own: what it left out.
    Notice,
    /// A line of an earlier boot's dump ([`crate::after_crash`]).
    AfterCrash,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 5] =
        [Self::Message, Self::Ping, Self::Keepalive, Self::Notice, Self::AfterCrash];

    /// What such a message begins with.
    #[must_use]
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::Message => "netconsole-agent, message: ",
            Self::Ping => "netconsole-agent, ping: ",
            Self::Keepalive => "netconsole-agent, keepalive: ",
            Self::Notice => "netconsole-agent, notice: ",
            Self::AfterCrash => "netconsole-agent, after-crash: ",
        }
    }
}

/// Why a message cannot be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// It does not fit one datagram.
    #[error(
        "the text has {needed_bytes} bytes as sent (a control character, a backslash or a byte \
         beyond ASCII takes four), and there is room for {limit_bytes} in a datagram with \
         {extra_bytes} bytes of extra data; shorten it, or send it in parts"
    )]
    TooLong {
        /// Bytes of the text with its escapes.
        needed_bytes: usize,
        /// Bytes that it may have.
        limit_bytes: usize,
        /// Bytes of the target's extra data, which goes with it.
        extra_bytes: usize,
    },
}

/// Bytes that a text has on the wire, escaped as in the extended format.
#[must_use]
pub fn escaped_len(text: &[u8]) -> usize {
    text.iter().map(|byte| escape::encoded(*byte).1).sum()
}

/// Most bytes that a text may have on the wire, beside so many bytes of extra data.
#[must_use]
pub const fn text_max_bytes(kind: Kind, extra_bytes: usize) -> usize {
    DATAGRAM_MAX_BYTES.saturating_sub(kind.prefix().len() + 1 + extra_bytes)
}

/// Whether a text fits, beside so many bytes of extra data.
///
/// # Errors
/// If not.
pub fn check(kind: Kind, text: &[u8], extra_bytes: usize) -> Result<(), MessageError> {
    fits(kind, text, extra_bytes, DATAGRAM_MAX_BYTES)
}

fn fits(kind: Kind, text: &[u8], extra_bytes: usize, room: usize) -> Result<(), MessageError> {
    let needed_bytes = escaped_len(text);
    let others = kind.prefix().len() + 1 + extra_bytes;
    if others + needed_bytes > room.min(DATAGRAM_MAX_BYTES) {
        let limit_bytes = room.min(DATAGRAM_MAX_BYTES).saturating_sub(others);
        return Err(MessageError::TooLong { needed_bytes, limit_bytes, extra_bytes });
    }
    Ok(())
}

/// Writes a message to the beginning of `out` and returns its length. `out` of
/// [`DATAGRAM_MAX_BYTES`] suffices for whatever may be sent.
///
/// The text is escaped as in the extended format (`\xNN`), newlines as well: it stays one
/// line, and the lines behind it are the extra data. `extra` are those lines as they are sent
/// behind a record, ` key=value\n` each; they are copied.
///
/// # Errors
/// If it is too long; `out` is untouched then.
pub fn compose_into(
    out: &mut [u8],
    kind: Kind,
    text: &[u8],
    extra: &[u8],
) -> Result<usize, MessageError> {
    fits(kind, text, extra.len(), out.len())?;
    let mut written = 0;
    let mut put = |bytes: &[u8]| {
        out[written..written + bytes.len()].copy_from_slice(bytes);
        written += bytes.len();
    };
    put(kind.prefix().as_bytes());
    for &byte in text {
        let (bytes, len) = escape::encoded(byte);
        put(&bytes[..len]);
    }
    put(b"\n");
    put(extra);
    Ok(written)
}

/// What pings and keepalives tell of the sender, so that the receiver's side can tell which
/// way they came.
#[derive(Clone, Copy, Debug)]
pub struct Sender<'a> {
    /// When.
    pub at: SystemTime,
    /// Name of the host.
    pub host: &'a str,
    /// Device that it leaves by, if known.
    pub device: Option<&'a str>,
    /// Transmit queue of the device, if one is chosen.
    pub queue: Option<u32>,
    /// MAC address it is sent to, if known.
    pub next_hop: Option<[u8; 6]>,
    /// Version of the agent.
    pub version: &'a str,
}

/// The text of a ping: `nonce=… time=… host=… device=… queue=… next_hop=… version=…`, what is
/// not known left out. The nonce is 16 hexadecimal digits, as [`nonce_text`] has it.
#[must_use]
pub fn ping(nonce: u64, sender: &Sender<'_>) -> String {
    with_sender(format!("nonce={}", nonce_text(nonce)), sender)
}

/// The text of a keepalive: as that of a ping, with `uptime_s=` (of the agent) for the nonce.
#[must_use]
pub fn keepalive(uptime: Duration, sender: &Sender<'_>) -> String {
    with_sender(format!("uptime_s={}", uptime.as_secs()), sender)
}

/// A nonce as people and programs look for it.
#[must_use]
pub fn nonce_text(nonce: u64) -> String {
    format!("{nonce:016x}")
}

fn with_sender(mut text: String, sender: &Sender<'_>) -> String {
    let Sender { at, host, device, queue, next_hop, version } = sender;
    // humantime knows no time before 1970, and writing to a String cannot fail.
    let at = humantime::format_rfc3339_millis((*at).max(SystemTime::UNIX_EPOCH));
    let _ = write!(text, " time={at} host={}", word(host));
    if let Some(device) = device {
        let _ = write!(text, " device={}", word(device));
    }
    if let Some(queue) = queue {
        let _ = write!(text, " queue={queue}");
    }
    if let Some(mac) = next_hop {
        let _ = write!(text, " next_hop={}", mac_text(*mac));
    }
    let _ = write!(text, " version={}", word(version));
    text
}

/// One word, so that no name can look like two fields; a host name has 64 bytes at most, a
/// device 15.
fn word(text: &str) -> String {
    let fit = |char: char| if char.is_ascii_graphic() && char != '=' { char } else { '?' };
    text.chars().take(64).map(fit).collect()
}

#[cfg(test)]
#[path = "message/tests.rs"]
mod tests;
