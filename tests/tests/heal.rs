//! Targets that heal: each change of the network as a test, with a running agent in one
//! namespace and a capture at the other end of its cable.
//!
//! Records said before, during and after a change arrive in the order of their seqs, or are
//! counted lost with the right reason. The time to heal is counted from the moment at
//! which sending is possible again (the kernel's notice of the carrier, of the usable
//! address, of the reachable neighbour) to the arrival of the first waiting record. Each
//! event is repeated and the median judged: the machine may be busy with other things. The
//! figures are printed in lines that begin with `HEAL`.
//!
//! Needs root; namespaces and devices are made and removed here. What needs VLANs, bonds or
//! teams is in the VM tests.

#[path = "heal/address.rs"]
mod address;
#[path = "heal/backlog.rs"]
mod backlog;
#[path = "heal/bridge.rs"]
mod bridge;
#[path = "heal/device.rs"]
mod device;
#[path = "heal/egress.rs"]
mod egress;
#[path = "heal/gateway.rs"]
mod gateway;
#[path = "heal/link.rs"]
mod link;
#[path = "heal/neighbour.rs"]
mod neighbour;
#[path = "heal/scene.rs"]
mod scene;
