//! The control thread: everything that may sleep.
//!
//! It owns the configuration, finds next hops, opens and closes sockets, serves the
//! control socket, and never waits for the pump.

pub mod agent;
pub mod host_format;
pub mod manager;
mod netdev;
pub mod socket;
pub mod status;
