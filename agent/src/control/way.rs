//! A target's way out of the host: found by asking the kernel, used by opening a socket.
//!
//! Finding ([`find`]) waits for netlink and must not hold up the control thread;
//! opening ([`WayOut::opener`]) may sleep and runs on a thread of its own.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::{
    config,
    egress::{Egress, EgressKind, OpenError, packet, pcap, udp, xdp},
    frame::{FrameAddresses, HeaderError, HeaderTemplate},
    net::{
        BlockKind, KnownDevice, NextHop, ResolveError, Resolver, Wanted, choose_egress,
        egress_kinds,
    },
    target::state::{Reason, WaitKind, Way},
};

/// How long a look waits for a neighbour. One that answers later is an event.
const NEIGHBOUR_PATIENCE: Duration = Duration::from_millis(50);
/// The MTU of a way that does not tell one.
const MTU_UNKNOWN: u32 = u32::MAX;

/// What makes two targets share a socket.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum SocketKey {
    Xdp {
        ifindex: u32,
        queue: u32,
    },
    Packet {
        ifindex: u32,
    },
    /// A connected socket is a target's own, and keeps its addresses.
    Udp {
        target: usize,
        remote: SocketAddr,
        local: Option<IpAddr>,
        local_port: u16,
        ifindex: Option<u32>,
    },
    Pcap {
        target: usize,
        path: PathBuf,
    },
}

impl SocketKey {
    /// The device whose end is the socket's end.
    pub(super) fn ifindex(&self) -> Option<u32> {
        match self {
            Self::Xdp { ifindex, .. } | Self::Packet { ifindex } => Some(*ifindex),
            Self::Udp { ifindex, .. } => *ifindex,
            Self::Pcap { .. } => None,
        }
    }
}

/// A way that was found.
#[derive(Clone, Debug)]
pub(super) struct WayOut {
    /// Which of the targets it is for.
    target: usize,
    /// The kinds that may be tried, best first; never empty.
    kinds: Vec<EgressKind>,
    /// Why the first kind was chosen.
    pub(super) reason: String,
    pub(super) remote: SocketAddr,
    pub(super) hop: Option<NextHop>,
    config: Arc<config::Target>,
}

/// Equal ways need nothing to be done. How old the neighbour entry is makes no difference.
impl PartialEq for WayOut {
    fn eq(&self, other: &Self) -> bool {
        let frames = |way: &Self| {
            let hop = way.hop.as_ref();
            let hop = hop.map(|hop| (hop.src_mac, hop.dst_mac, hop.local, hop.mtu_bytes));
            (hop, way.remote, way.config.local_port)
        };
        self.key() == other.key() && frames(self) == frames(other) && self.nic() == other.nic()
    }
}

impl Eq for WayOut {}

impl Way for WayOut {
    type Key = SocketKey;

    fn key(&self) -> SocketKey {
        let ifindex = self.hop.as_ref().map(|hop| hop.ifindex);
        match (self.kind(), ifindex) {
            (EgressKind::Xdp, Some(ifindex)) => {
                SocketKey::Xdp { ifindex, queue: self.config.queue }
            }
            (EgressKind::Packet, Some(ifindex)) => SocketKey::Packet { ifindex },
            (EgressKind::Pcap, _) => SocketKey::Pcap {
                target: self.target,
                path: self.config.pcap.clone().unwrap_or_default(),
            },
            // Frames have a next hop, or their way was not found.
            (EgressKind::Udp | EgressKind::Memory, _)
            | (EgressKind::Xdp | EgressKind::Packet, None) => SocketKey::Udp {
                target: self.target,
                remote: self.remote,
                local: self.hop.as_ref().map(|hop| hop.local),
                local_port: self.config.local_port,
                ifindex,
            },
        }
    }

    fn fallback(&self) -> Option<Self> {
        let (_, rest) = self.kinds.split_first()?;
        (!rest.is_empty()).then(|| Self { kinds: rest.to_vec(), ..self.clone() })
    }
}

impl WayOut {
    pub(super) fn kind(&self) -> EgressKind {
        self.kinds.first().copied().unwrap_or(EgressKind::Udp)
    }

    pub(super) fn mtu_bytes(&self) -> u32 {
        self.hop.as_ref().map_or(MTU_UNKNOWN, |hop| hop.mtu_bytes)
    }

    /// Device and queue as the extra data names them: `eth0/0`; without a queue where the
    /// kernel chooses.
    pub(super) fn nic(&self) -> String {
        let device = self.hop.as_ref().map(|hop| hop.ifname.as_str()).unwrap_or_default();
        match self.kind() {
            EgressKind::Xdp => format!("{device}/{}", self.config.queue),
            EgressKind::Packet | EgressKind::Udp | EgressKind::Pcap | EgressKind::Memory => {
                device.to_owned()
            }
        }
    }

    /// The headers of this way's frames; `None` where the socket makes them.
    pub(super) fn header(&self) -> Result<Option<HeaderTemplate>, HeaderError> {
        self.header_with(None)
    }

    /// The same with `port` on both sides, if there is one.
    pub(super) fn header_with(
        &self,
        port: Option<u16>,
    ) -> Result<Option<HeaderTemplate>, HeaderError> {
        if !self.kind().takes_frames() {
            return Ok(None);
        }
        let hop = self.hop.as_ref();
        // A pcap file gets frames as they would look without a network.
        let local_ip =
            hop.map(|hop| hop.local).or(self.config.local_ip).unwrap_or(unspecified(self.remote));
        HeaderTemplate::new(FrameAddresses {
            src_mac: hop.map_or([0; 6], |hop| hop.src_mac),
            dst_mac: hop.and_then(|hop| hop.dst_mac).or(self.config.remote_mac).unwrap_or([0; 6]),
            vlan: None,
            local: SocketAddr::new(local_ip, port.unwrap_or(self.config.local_port)),
            remote: SocketAddr::new(self.remote.ip(), port.unwrap_or(self.remote.port())),
        })
        .map(Some)
    }

    /// A UDP socket of its own; with `port` on both sides, if there is one.
    ///
    /// # Errors
    /// [`OpenError`] says which step failed and what to do.
    pub(super) fn connected(&self, port: Option<u16>) -> Result<OwnedFd, OpenError> {
        let mut options = self.udp_options();
        if let Some(port) = port {
            options.remote.set_port(port);
            options.local.iter_mut().for_each(|local| local.set_port(port));
        }
        udp::connected(&options)
    }

    fn udp_options(&self) -> udp::UdpOptions {
        udp::UdpOptions {
            local: Some(SocketAddr::new(
                // Without `local` the kernel chooses anew for each way; the socket
                // is a new one whenever its choice changes.
                self.config.local_ip.unwrap_or(unspecified(self.remote)),
                self.config.local_port,
            )),
            device: self
                .hop
                .as_ref()
                .filter(|_| self.config.device.is_some())
                .map(|hop| hop.ifname.clone()),
            ..udp::UdpOptions::new(self.remote)
        }
    }

    /// What opens the socket; to be called where sleeping hurts nobody.
    pub(super) fn opener(
        &self,
    ) -> impl FnOnce() -> Result<Box<dyn Egress>, OpenError> + Send + 'static {
        let (way, kind) = (self.clone(), self.kind());
        move || match (kind, &way.hop) {
            (EgressKind::Xdp, Some(hop)) => xdp::open(&xdp::XdpOptions {
                queue: way.config.queue,
                ..xdp::XdpOptions::new(hop.ifindex, &hop.ifname)
            }),
            (EgressKind::Packet, Some(hop)) => {
                packet::open(&packet::PacketOptions::new(hop.ifindex, &hop.ifname))
            }
            (EgressKind::Pcap, _) => pcap::open(&pcap::PcapOptions {
                path: way.config.pcap.clone().unwrap_or_default(),
                stamps: pcap::PcapStamps::Nanoseconds,
            }),
            (EgressKind::Udp | EgressKind::Memory, _)
            | (EgressKind::Xdp | EgressKind::Packet, None) => udp::open(&way.udp_options()),
        }
    }
}

fn unspecified(like: SocketAddr) -> IpAddr {
    if like.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
}

/// Finds the way of a target to one of its receiver's addresses.
///
/// # Errors
/// With what it has to wait for.
pub(super) async fn find(
    resolver: Resolver,
    config: Arc<config::Target>,
    target: usize,
    remotes: Vec<SocketAddr>,
    known: Option<KnownDevice>,
) -> Result<WayOut, Reason> {
    let mut first_reason = None;
    for remote in remotes {
        match find_one(&resolver, &config, target, remote, known.clone()).await {
            Ok(way) => return Ok(way),
            Err(reason) => first_reason = first_reason.or(Some(reason)),
        }
    }
    Err(first_reason.unwrap_or_else(|| Reason {
        kind: WaitKind::NameUnresolved,
        text: "the receiver's name has no address yet".to_owned(),
    }))
}

/// A way to use in a panic while the neighbour is not known: to everybody on the wire, as the
/// kernel's netconsole does without a `remote_mac`. `None` if the device is not known either.
pub(super) async fn last_resort(
    resolver: Resolver,
    config: Arc<config::Target>,
    target: usize,
    remotes: Vec<SocketAddr>,
) -> Option<WayOut> {
    for remote in remotes {
        let wanted = Wanted {
            remote,
            device: config.device.clone(),
            known: None,
            local: config.local_ip,
            remote_mac: config.remote_mac,
            patience: Duration::ZERO,
        };
        let Ok(mut hop) = resolver.route(&wanted).await else { continue };
        if hop.ethernet {
            hop.dst_mac = Some([0xff; 6]);
        }
        let Ok((kind, reason)) = choose_egress(config.egress, &hop) else { continue };
        let config = Arc::clone(&config);
        return Some(WayOut { target, kinds: vec![kind], reason, remote, hop: Some(hop), config });
    }
    None
}

async fn find_one(
    resolver: &Resolver,
    config: &Arc<config::Target>,
    target: usize,
    remote: SocketAddr,
    known: Option<KnownDevice>,
) -> Result<WayOut, Reason> {
    let wanted = Wanted {
        remote,
        device: config.device.clone(),
        known,
        local: config.local_ip,
        remote_mac: config.remote_mac,
        patience: NEIGHBOUR_PATIENCE,
    };
    let way = |kinds, reason: &str, hop| WayOut {
        target,
        kinds,
        reason: reason.to_owned(),
        remote,
        hop,
        config: Arc::clone(config),
    };
    let way = match config.egress {
        Some(EgressKind::Pcap) => way(vec![EgressKind::Pcap], "configured", None),
        Some(kind @ EgressKind::Udp) => {
            // The kernel finds the neighbour, but whether there is a way is ours to know.
            let hop = resolver.route(&wanted).await.map_err(|error| blocked(&error))?;
            way(vec![kind], "configured", Some(hop))
        }
        wish @ (None | Some(EgressKind::Xdp | EgressKind::Packet | EgressKind::Memory)) => {
            let hop = resolver.resolve(&wanted).await.map_err(|error| blocked(&error))?;
            let (kind, reason) = choose_egress(wish, &hop).map_err(|impossible| Reason {
                kind: WaitKind::EgressImpossible,
                text: impossible.to_string(),
            })?;
            way(egress_kinds(wish, kind), &reason, Some(hop))
        }
    };
    // Frames that cannot be made are found out here, not when the pump is to send them.
    match way.header() {
        Ok(_) => Ok(way),
        Err(cause) => Err(Reason {
            kind: WaitKind::EgressImpossible,
            text: format!("cannot build frames to {remote}: {cause}"),
        }),
    }
}

fn blocked(error: &ResolveError) -> Reason {
    let kind = match error.kind() {
        BlockKind::NoDevice => WaitKind::NoDevice,
        BlockKind::DeviceDown => WaitKind::DeviceDown,
        BlockKind::NoCarrier => WaitKind::NoCarrier,
        BlockKind::AddressTentative => WaitKind::AddressTentative,
        BlockKind::NoAddress => WaitKind::NoAddress,
        BlockKind::NoRoute => WaitKind::NoRoute,
        BlockKind::NeighbourUnresolved => WaitKind::NeighbourUnresolved,
        BlockKind::Netlink => WaitKind::Unknown,
    };
    Reason { kind, text: error.to_string() }
}
