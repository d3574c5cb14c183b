//! Why there is no way to a remote. For the control thread and operators.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use rustix::io::Errno;

/// A netlink operation failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} for {object}: {cause}; {}", self.remedy())]
pub struct NetError {
    /// What was tried, as a verb and its object.
    pub operation: &'static str,
    /// For what: device, address or notification.
    pub object: String,
    /// What the kernel said.
    #[source]
    pub cause: io::Error,
}

impl NetError {
    /// The kernel's answer, where it gave one.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        Errno::from_io_error(&self.cause)
    }

    fn remedy(&self) -> &'static str {
        match self.errno() {
            Some(Errno::PERM | Errno::ACCESS) => "give the agent CAP_NET_ADMIN",
            Some(Errno::NOBUFS) => {
                "raise net.ipv4.neigh.default.gc_thresh3 (or its ipv6 twin), the neighbour table is full"
            }
            Some(Errno::MFILE | Errno::NFILE) => "raise the limit of open files (LimitNOFILE=)",
            Some(Errno::AFNOSUPPORT | Errno::PROTONOSUPPORT) => {
                "let the agent open netlink sockets (RestrictAddressFamilies= needs AF_NETLINK)"
            }
            _ => "the agent tries again; if it lasts, restart it",
        }
    }
}

/// What stands in the way, for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BlockKind {
    /// The kernel could not be asked.
    Netlink,
    /// The device does not exist, or none was named where one is needed.
    NoDevice,
    /// The device is administratively down.
    DeviceDown,
    /// The device is up, but its link is not.
    NoCarrier,
    /// No routing table leads to the remote.
    NoRoute,
    /// There is no address to send from.
    NoAddress,
    /// The address to send from is still being checked for duplicates.
    AddressTentative,
    /// The next hop does not answer.
    NeighbourUnresolved,
}

/// There is no usable way to the remote now.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// The routing tables lead nowhere.
    #[error("cannot find a route to {remote}{}: {cause}; add a route, or correct `remote` or `device`", via(.device))]
    NoRoute {
        /// The remote.
        remote: IpAddr,
        /// The configured device.
        device: Option<String>,
        /// What the kernel said, in words.
        cause: &'static str,
    },
    /// The device does not exist in this network namespace.
    #[error(
        "cannot find device {device}: it does not exist in this network namespace; create it or correct `device`"
    )]
    DeviceMissing {
        /// Its name, MAC or index, as it was asked for.
        device: String,
    },
    /// The address means something only together with a device.
    #[error(
        "cannot find a route to {remote}: a link-local address is reached through one device; set `device`"
    )]
    DeviceNeeded {
        /// The remote.
        remote: IpAddr,
    },
    /// The device is administratively down.
    #[error("cannot send to {remote} by {device}: the device is down; `ip link set {device} up`")]
    DeviceDown {
        /// The remote.
        remote: IpAddr,
        /// The device's name.
        device: String,
    },
    /// The device is up, but its link is not.
    #[error(
        "cannot send to {remote} by {device}: the device has no carrier; check the cable and the other end"
    )]
    NoCarrier {
        /// The remote.
        remote: IpAddr,
        /// The device's name.
        device: String,
    },
    /// Nobody answered for the next hop's address.
    #[error(
        "cannot resolve the MAC of {neighbour} on {device}: no answer within {waited:?} (neighbour state {state}); check that host and its VLAN, or set `remote_mac`{}", wrong_port(.route_device)
    )]
    NeighbourUnresolved {
        /// The remote or the router in front of it.
        neighbour: IpAddr,
        /// The device's name.
        device: String,
        /// Last state seen, as `ip neighbour` prints it; `missing` without an entry.
        state: String,
        /// How long was waited.
        waited: Duration,
        /// As [`NextHop::route_device`](super::NextHop::route_device).
        route_device: Option<String>,
    },
    /// The device's only suitable address is being checked for duplicates
    /// (RFC 4862, 5.4) and may not be used yet.
    #[error(
        "cannot send to {remote} by {device} yet: its address is being checked for duplicates; wait a second or two"
    )]
    AddressTentative {
        /// The remote.
        remote: IpAddr,
        /// The device's name.
        device: String,
    },
    /// There is no address to send from.
    #[error(
        "cannot choose a source address towards {remote}: {cause}; give {device} an address of this family, or correct `local`"
    )]
    NoSource {
        /// The remote.
        remote: IpAddr,
        /// The device's name, or words for "the right device".
        device: String,
        /// What is wrong.
        cause: String,
    },
    /// netlink itself failed.
    #[error(transparent)]
    Netlink(#[from] NetError),
}

impl ResolveError {
    /// What stands in the way.
    #[must_use]
    pub fn kind(&self) -> BlockKind {
        match self {
            Self::Netlink(_) => BlockKind::Netlink,
            Self::DeviceMissing { .. } | Self::DeviceNeeded { .. } => BlockKind::NoDevice,
            Self::DeviceDown { .. } => BlockKind::DeviceDown,
            Self::NoCarrier { .. } => BlockKind::NoCarrier,
            Self::NoRoute { .. } => BlockKind::NoRoute,
            Self::NoSource { .. } => BlockKind::NoAddress,
            Self::AddressTentative { .. } => BlockKind::AddressTentative,
            Self::NeighbourUnresolved { .. } => BlockKind::NeighbourUnresolved,
        }
    }
}

fn wrong_port(route_device: &Option<String>) -> String {
    route_device
        .as_ref()
        .map(|name| {
            format!("; without `device` the route leaves by {name}, which may be the right port")
        })
        .unwrap_or_default()
}

fn via(device: &Option<String>) -> String {
    device.as_ref().map(|name| format!(" by {name}")).unwrap_or_default()
}
