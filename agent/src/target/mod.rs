//! A target as the data path sees it: what to send, how fast, and which way.
//!
//! [`TargetSettings`] are immutable and shared; [`Route`] is owned by the pump
//! while it is in use. How a route is found is the business of `control` and `net`.

pub mod filter;
pub mod pace;
pub mod state;

use std::sync::Arc;

use self::filter::Filter;
pub use self::pace::Pace;
use crate::{frame::HeaderTemplate, netconsole::Format};

/// The mildest level of which there may be copies: error.
pub const SEVERE: u8 = 3;

/// What one target wants, as checked and prepared by the control thread.
#[derive(Debug)]
pub struct TargetSettings {
    /// Name of the target in the configuration.
    pub name: String,
    /// How records are written.
    pub format: Format,
    /// Which records are sent.
    pub filter: Arc<Filter>,
    /// Whether the filter or the format asks for the names of cgroups.
    pub names_cgroups: bool,
    /// How often each record of level [`SEVERE`] or worse is sent.
    pub copies: u8,
    /// How fast; `None` is as fast as the sockets take it.
    pub pace: Option<Pace>,
}

impl TargetSettings {
    /// Whether nothing would change by using the other ones.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.name == other.name
            && self.format == other.format
            && Arc::ptr_eq(&self.filter, &other.filter)
            && self.names_cgroups == other.names_cgroups
            && self.copies == other.copies
            && self.pace == other.pace
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
    /// Device and queue, as the extra data names them (`eth0/0`); empty if not known.
    pub nic: Box<[u8]>,
}
