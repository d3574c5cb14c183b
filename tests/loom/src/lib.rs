//! The agent's hand-over and wake-up protocols under loom: the modules themselves,
//! compiled with loom's atomics, and their models. The agent proper is built without them.

#[path = "../../../agent/src/handover.rs"]
pub mod handover;
#[path = "../../../agent/src/capture/wake.rs"]
pub mod wake;
