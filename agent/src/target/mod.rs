//! A target as the data path sees it: what to send, how fast, and which way.
//!
//! [`TargetSettings`] are immutable and shared; [`Route`] is owned by the pump
//! while it is in use. How a route is found is the business of `control` and `net`.

pub mod filter;
pub mod pace;
pub mod state;

pub use self::pace::Pace;
use crate::{frame::HeaderTemplate, netconsole::Format, record::Record};

/// What one target wants, as checked and prepared by the control thread.
#[derive(Debug)]
pub struct TargetSettings {
    /// Name of the target in the configuration.
    pub name: String,
    /// How records are written.
    pub format: Format,
    /// Least severe level that is sent, 0 to 7.
    pub max_level: u8,
    /// How fast; `None` is as fast as the sockets take it.
    pub pace: Option<Pace>,
}

impl TargetSettings {
    /// Whether the record is for this target. A record whose level is not known
    /// always is: better one too many than a lost warning.
    #[must_use]
    pub fn wants(&self, record: &Record<'_>) -> bool {
        record.approximated || record.level <= self.max_level
    }
}

/// The way of one target's packets out of the host.
#[derive(Debug)]
pub struct Route {
    /// Which of the pump's sockets.
    pub egress: usize,
    /// Headers, for a socket that takes whole frames.
    pub header: Option<HeaderTemplate>,
    /// Longest IP packet on this way, in bytes; for a socket that takes whole frames.
    pub mtu_bytes: u32,
}
