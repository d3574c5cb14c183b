//! The agent's hand-over and wake-up protocols under loom: the modules themselves,
//! compiled with loom's atomics, and their models. The agent proper is built without them.

#![allow(clippy::unwrap_used, reason = "only models run here, and loom's locks are never poisoned")]

#[path = "../../../agent/src/pump/flight.rs"]
pub mod flight;
#[path = "../../../agent/src/handover.rs"]
pub mod handover;
#[path = "../../../agent/src/capture/wake.rs"]
pub mod wake;

#[cfg(test)]
mod two_sockets;
