//! Gives up what only the start needs.
//!
//! Attaching programs and opening `/dev/kmsg` need much; afterwards the agent
//! opens raw sockets, asks the kernel to resolve neighbours, and locks memory.
//! Capabilities belong to threads, so this runs before any thread is started.

use caps::{CapSet, Capability, CapsHashSet};

/// What stays, and what for (the README's table says the same):
/// `CAP_NET_RAW` opens AF_XDP and AF_PACKET sockets, `CAP_NET_ADMIN` asks the kernel to
/// resolve a neighbour, `CAP_IPC_LOCK` lets a new socket's frames be locked.
pub const KEPT: [Capability; 3] =
    [Capability::CAP_NET_RAW, Capability::CAP_NET_ADMIN, Capability::CAP_IPC_LOCK];

/// Why a capability could not be given up.
#[derive(Debug, thiserror::Error)]
#[error("cannot give up capabilities ({set} set): {cause}")]
pub struct PrivilegeError {
    set: &'static str,
    cause: String,
}

/// Drops everything but [`KEPT`], for this thread and all that it starts.
///
/// # Errors
/// If the kernel refuses.
pub fn drop_start_up_privileges() -> Result<(), PrivilegeError> {
    let failed = |set| {
        move |cause: caps::errors::CapsError| PrivilegeError { set, cause: cause.to_string() }
    };
    let permitted = caps::read(None, CapSet::Permitted).map_err(failed("permitted"))?;
    let kept: CapsHashSet = KEPT.into_iter().filter(|cap| permitted.contains(cap)).collect();
    // The bounding set needs CAP_SETPCAP; a unit without it has bounded the set already.
    if permitted.contains(&Capability::CAP_SETPCAP) {
        for capability in caps::all() {
            let bounded = caps::has_cap(None, CapSet::Bounding, capability).unwrap_or(false);
            if bounded && !KEPT.contains(&capability) {
                caps::drop(None, CapSet::Bounding, capability).map_err(failed("bounding"))?;
            }
        }
    }
    // Kernels before 4.3 have no ambient set, which leaves nothing to clear.
    let _ = caps::clear(None, CapSet::Ambient);
    caps::set(None, CapSet::Effective, &kept).map_err(failed("effective"))?;
    caps::set(None, CapSet::Inheritable, &CapsHashSet::new()).map_err(failed("inheritable"))?;
    caps::set(None, CapSet::Permitted, &kept).map_err(failed("permitted"))?;
    // No program that is started from here on regains anything.
    let _ = rustix::thread::set_no_new_privs(true);
    Ok(())
}
