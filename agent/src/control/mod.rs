//! The control thread: everything that may sleep.
//!
//! It owns the configuration, finds next hops, opens and closes sockets, serves the
//! control socket, and never waits for the pump.

pub mod agent;
mod desk;
mod last_words;
mod life;
mod link;
pub mod manager;
pub mod metrics;
mod netdev;
pub mod progress;
pub mod protocol;
pub mod settings;
pub mod socket;
mod sockets;
pub mod status;
mod suspicion;
mod view;
mod way;
