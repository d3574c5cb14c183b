//! Why a way out could not be opened. For the control thread and operators;
//! the pump never sees these.

use std::io;

use rustix::io::Errno;

/// A step of opening failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} for {object}: {cause}; {remedy}")]
pub struct OpenError {
    /// What was tried, as a verb and its object.
    pub operation: &'static str,
    /// For what: kind, device, queue or address.
    pub object: String,
    /// What the kernel said.
    pub cause: io::Error,
    /// What an operator can do.
    pub remedy: &'static str,
}

impl OpenError {
    /// The kernel's answer, for decisions: `ENODEV` device gone, `EBUSY` queue
    /// in use, `EPERM` capability missing, …
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        Errno::from_io_error(&self.cause)
    }
}
