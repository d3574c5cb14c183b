//! From a target's configuration to its next hop.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::error::{NetError, ResolveError};
use super::link::Link;
use super::netlink::{Netlink, OwnAddress};
use super::source;
use super::way::{Depth, Look};
use super::{Confirmation, KnownDevice, NextHop, Wanted, device, neighbour};

/// Ports in ports: a bond in a bridge is all there is in practice.
const MASTERS_MAX: usize = 4;

/// Asks the kernel for next hops. Cheap to clone; all clones share one socket.
#[derive(Clone, Debug)]
pub struct Resolver {
    pub(super) netlink: Netlink,
}

impl Resolver {
    /// Opens a netlink socket in the calling thread's network namespace and
    /// serves it from a task of the current tokio runtime, until the last clone
    /// is dropped.
    ///
    /// # Errors
    /// If the socket is refused.
    ///
    /// # Panics
    /// Outside of a tokio runtime with I/O and time enabled.
    pub fn new() -> Result<Self, NetError> {
        let netlink = Netlink::open().map_err(|cause| NetError {
            operation: "open a netlink socket",
            object: "routes, links and neighbours".to_owned(),
            cause,
        })?;
        Ok(Self { netlink })
    }

    /// The next hop with the MAC to send to. Waits for an unknown neighbour at
    /// most `wanted.patience`.
    ///
    /// # Errors
    /// See [`ResolveError`].
    pub async fn resolve(&self, wanted: &Wanted) -> Result<NextHop, ResolveError> {
        self.best_way(wanted, Depth::Mac).await
    }

    /// The next hop without a MAC (`dst_mac` is `None`), for the UDP way out,
    /// which leaves neighbours to the kernel. Waits for nobody.
    ///
    /// # Errors
    /// See [`ResolveError`].
    pub async fn route(&self, wanted: &Wanted) -> Result<NextHop, ResolveError> {
        self.best_way(wanted, Depth::Route).await
    }

    /// Has the kernel ask the neighbour whether it still has its MAC, although
    /// the kernel may believe so, unless it was heard of within `fresh_for`: a
    /// router may be replaced without notice, and AF_XDP traffic confirms
    /// nothing. Returns at once; events tell what came of it. Not for group
    /// addresses.
    ///
    /// # Errors
    /// If the kernel refuses, as without `CAP_NET_ADMIN`.
    pub async fn confirm(
        &self,
        ifindex: u32,
        address: IpAddr,
        fresh_for: Duration,
    ) -> Result<Confirmation, NetError> {
        let confirmed = neighbour::confirm(&self.netlink, ifindex, address, fresh_for).await;
        confirmed.map_err(|cause| NetError {
            operation: "have the neighbour confirmed",
            object: format!("{address} on device number {ifindex}"),
            cause,
        })
    }

    /// Of the wanted device and what it is a port of, the outermost that leads to
    /// the remote: traffic of a bridge, bond or team belongs to the master, but
    /// nothing may be set up on it.
    async fn best_way(&self, wanted: &Wanted, depth: Depth) -> Result<NextHop, ResolveError> {
        let remote = wanted.remote.ip().to_canonical();
        let addresses = self.own_addresses(wanted, remote).await?;
        let mut look = Look { wanted, remote, addresses, devices: Vec::new(), depth };
        let Some(device) = self.wanted_device(wanted, remote).await? else {
            return self.way(&look, None).await;
        };
        let known = KnownDevice::from(&device);
        let mut chain = vec![device];
        while let Some(master) = chain.last().and_then(|link| link.port_of)
            && chain.len() < MASTERS_MAX
        {
            match device::by_index(&self.netlink, master).await {
                Ok(master) => chain.push(master),
                // Released just now.
                Err(ResolveError::DeviceMissing { .. }) => break,
                Err(error) => return Err(error),
            }
        }
        look.devices = chain.iter().map(|link| link.ifindex).collect();
        let mut failed: Option<ResolveError> = None;
        for link in chain.iter().rev() {
            match self.way(&look, Some(link)).await {
                Ok(mut hop) => {
                    let by_master = link.ifindex != known.ifindex;
                    hop.configured_device = by_master.then(|| known.name.clone());
                    hop.device = wanted.device.is_some().then_some(known);
                    return Ok(hop);
                }
                // The way that got farther is the one to tell of.
                Err(error) if failed.as_ref().is_some_and(|old| old.kind() >= error.kind()) => {}
                Err(error) => failed = Some(error),
            }
        }
        Err(failed.unwrap_or(ResolveError::DeviceMissing { device: known.name }))
    }

    /// The addresses that the source is checked with, where it has to be.
    async fn own_addresses(
        &self,
        wanted: &Wanted,
        remote: IpAddr,
    ) -> Result<Vec<OwnAddress>, NetError> {
        if remote.is_ipv4() && wanted.local.is_none() {
            return Ok(Vec::new());
        }
        self.list_addresses(remote).await
    }

    /// The socket, for other questions of this crate.
    pub(crate) fn netlink(&self) -> &Netlink {
        &self.netlink
    }

    pub(super) async fn list_addresses(&self, like: IpAddr) -> Result<Vec<OwnAddress>, NetError> {
        self.netlink.addresses(like).await.map_err(|cause| NetError {
            operation: "list the addresses",
            object: "this host".to_owned(),
            cause,
        })
    }

    async fn wanted_device(
        &self,
        wanted: &Wanted,
        remote: IpAddr,
    ) -> Result<Option<Link>, ResolveError> {
        match (&wanted.device, wanted.remote) {
            (Some(name), _) => {
                device::find(&self.netlink, name, wanted.known.as_ref()).await.map(Some)
            }
            (None, SocketAddr::V6(address)) if address.scope_id() != 0 => {
                device::by_index(&self.netlink, address.scope_id()).await.map(Some)
            }
            (None, _) if source::is_link_local(remote) => {
                Err(ResolveError::DeviceNeeded { remote })
            }
            (None, _) => Ok(None),
        }
    }
}
