//! What the network tables say beyond the way itself: the device, its qdiscs and addresses, a
//! neighbour's entry. Read through rtnetlink, which answers for the network namespace of this process;
//! `/sys/class/net` may show another one's.

use std::{net::IpAddr, time::Duration};

use futures_util::{Stream, StreamExt as _, TryStreamExt as _};
use netlink_packet_route::{
    AddressFamily,
    address::AddressAttribute,
    link::{LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage},
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
    tc::TcAttribute,
};
use rtnetlink::Handle;

use crate::frame::MacAddr;

/// The kernel answers at once; only an answer that cannot be decoded never comes.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// A device as rtnetlink shows it.
#[derive(Clone, Debug, Default)]
pub(super) struct Link {
    pub(super) ifindex: u32,
    pub(super) name: String,
    pub(super) mac: Option<MacAddr>,
    pub(super) ethernet: bool,
    pub(super) loopback: bool,
    pub(super) up: bool,
    pub(super) carrier: bool,
    pub(super) mtu_bytes: u32,
    /// Queues that were allocated; fewer may be in use.
    pub(super) tx_queues: u32,
    pub(super) kind: Option<String>,
    pub(super) master: Option<u32>,
}

/// An entry of the neighbour table.
#[derive(Clone, Debug)]
pub(super) struct Neighbour {
    pub(super) state: NeighbourState,
    pub(super) mac: Option<MacAddr>,
    /// Time since the neighbour was last heard of.
    pub(super) confirmed_ago: Option<Duration>,
}

/// The tables of this network namespace.
#[derive(Clone)]
pub(super) struct Tables {
    handle: Handle,
}

impl Tables {
    pub(super) fn open() -> std::io::Result<Self> {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    /// `None` also where it cannot be told: the resolver names errors.
    pub(super) async fn link_named(&self, name: &str) -> Option<Link> {
        first(self.handle.link().get().match_name(name).execute()).await.map(Link::from)
    }

    pub(super) async fn link_indexed(&self, ifindex: u32) -> Option<Link> {
        first(self.handle.link().get().match_index(ifindex).execute()).await.map(Link::from)
    }

    /// The qdiscs that somebody configured: those that the kernel attaches by itself have no handle.
    pub(super) async fn configured_qdiscs(&self, ifindex: u32) -> Vec<String> {
        let index = i32::try_from(ifindex).unwrap_or(0);
        let qdiscs = all(self.handle.qdisc().get().index(index).execute()).await;
        let configured = qdiscs
            .into_iter()
            .filter(|qdisc| qdisc.header.index == index && qdisc.header.handle.major != 0);
        configured
            .filter_map(|qdisc| {
                qdisc.attributes.into_iter().find_map(|attribute| match attribute {
                    TcAttribute::Kind(kind) => Some(kind),
                    _ => None,
                })
            })
            .collect()
    }

    pub(super) async fn addresses(&self, ifindex: u32) -> Vec<IpAddr> {
        let messages =
            all(self.handle.address().get().set_link_index_filter(ifindex).execute()).await;
        let of_device = messages.into_iter().filter(|message| message.header.index == ifindex);
        of_device
            .filter_map(|message| {
                let (mut local, mut address) = (None, None);
                for attribute in message.attributes {
                    match attribute {
                        AddressAttribute::Local(ip) => local = Some(ip),
                        AddressAttribute::Address(ip) => address = Some(ip),
                        _ => {}
                    }
                }
                local.or(address)
            })
            .collect()
    }

    pub(super) async fn neighbour(&self, ifindex: u32, address: IpAddr) -> Option<Neighbour> {
        let family = match address {
            IpAddr::V4(_) => AddressFamily::Inet,
            IpAddr::V6(_) => AddressFamily::Inet6,
        };
        let entries =
            all(self.handle.neighbours().get().set_address_family(family).execute()).await;
        let wanted = NeighbourAttribute::Destination(NeighbourAddress::from(address));
        entries
            .into_iter()
            .find(|entry| entry.header.ifindex == ifindex && entry.attributes.contains(&wanted))
            .map(Neighbour::from)
    }
}

async fn first<T, E>(answers: impl Stream<Item = Result<T, E>>) -> Option<T> {
    let mut answers = std::pin::pin!(answers);
    tokio::time::timeout(ANSWER_LIMIT, answers.try_next()).await.ok()?.ok()?
}

async fn all<T, E>(answers: impl Stream<Item = Result<T, E>>) -> Vec<T> {
    let collected = answers.filter_map(async |answer| answer.ok()).collect();
    tokio::time::timeout(ANSWER_LIMIT, collected).await.unwrap_or_default()
}

impl From<LinkMessage> for Link {
    fn from(message: LinkMessage) -> Self {
        let layer = message.header.link_layer_type;
        let flags = message.header.flags;
        let mut link = Self {
            ifindex: message.header.index,
            ethernet: layer == LinkLayerType::Ether,
            loopback: layer == LinkLayerType::Loopback,
            up: flags.contains(LinkFlags::Up),
            carrier: flags.contains(LinkFlags::LowerUp),
            ..Self::default()
        };
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name = name,
                LinkAttribute::Address(bytes) => link.mac = bytes.try_into().ok(),
                LinkAttribute::Mtu(bytes) => link.mtu_bytes = bytes,
                LinkAttribute::NumTxQueues(count) => link.tx_queues = count,
                LinkAttribute::Controller(index) => link.master = Some(index),
                LinkAttribute::LinkInfo(infos) => {
                    link.kind = infos.iter().find_map(|info| match info {
                        LinkInfo::Kind(kind) => Some(kind.to_string()),
                        _ => None,
                    });
                }
                _ => {}
            }
        }
        link
    }
}

impl From<NeighbourMessage> for Neighbour {
    fn from(message: NeighbourMessage) -> Self {
        let mut entry = Self { state: message.header.state, mac: None, confirmed_ago: None };
        for attribute in message.attributes {
            match attribute {
                NeighbourAttribute::LinkLayerAddress(bytes) => entry.mac = bytes.try_into().ok(),
                NeighbourAttribute::CacheInfo(info) => {
                    // In ticks as user space counts them (`jiffies_to_clock_t`).
                    let per_second = rustix::param::clock_ticks_per_second().max(1);
                    let ms = u64::from(info.confirmed) * 1000 / per_second;
                    entry.confirmed_ago = Some(Duration::from_millis(ms));
                }
                _ => {}
            }
        }
        entry
    }
}
