//! The control thread's side: everything that may sleep.

pub mod socket;
pub mod status;
