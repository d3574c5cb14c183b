//! What the network tables say beyond the way itself: the device, its qdiscs and addresses, a
//! neighbour's entry. Asked through the resolver's socket, which answers for the network namespace of
//! this process; `/sys/class/net` may show another one's. What cannot be told is not there: the
//! resolver names errors.

use std::{net::IpAddr, time::Duration};

use futures_util::{Stream, StreamExt as _};
use netlink_packet_route::tc::{TcAttribute, TcMessage};

use crate::net::{Link, LinkKey, Neighbour, Netlink, Resolver};

/// The kernel answers at once; only an answer that cannot be decoded never comes.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// The tables of this network namespace.
#[derive(Clone)]
pub(super) struct Tables {
    netlink: Netlink,
}

impl Tables {
    pub(super) fn of(resolver: &Resolver) -> Self {
        Self { netlink: resolver.netlink().clone() }
    }

    pub(super) async fn link_named(&self, name: &str) -> Option<Link> {
        self.netlink.link(LinkKey::Name(name)).await.ok()?
    }

    pub(super) async fn link_indexed(&self, ifindex: u32) -> Option<Link> {
        self.netlink.link(LinkKey::Index(ifindex)).await.ok()?
    }

    /// The qdiscs that somebody configured for what leaves: those that the kernel attaches by itself
    /// have no handle.
    pub(super) async fn configured_qdiscs(&self, ifindex: u32) -> Vec<String> {
        let index = i32::try_from(ifindex).unwrap_or(0);
        let handle = self.netlink.handle();
        let of_device = all(handle.qdisc().get().index(index).execute()).await;
        let configured = of_device
            .iter()
            .filter(|qdisc| qdisc.header.index == index && qdisc.header.handle.major != 0);
        let mut kinds: Vec<String> = configured.filter_map(kind).collect();
        // It holds filters for both ways, and queues nothing.
        if kinds.iter().any(|kind| kind == CLSACT) {
            let filters = all(handle.traffic_filter(index).get().egress().execute()).await;
            if filters.is_empty() {
                kinds.retain(|kind| kind != CLSACT);
            }
        }
        kinds
    }

    /// Addresses of a device, of the family of `like`.
    pub(super) async fn addresses(&self, ifindex: u32, like: IpAddr) -> Vec<IpAddr> {
        let own = self.netlink.addresses(like).await.unwrap_or_default();
        let of_device = own.into_iter().filter(|own| own.ifindex == ifindex);
        of_device.map(|own| own.address).collect()
    }

    pub(super) async fn neighbour(&self, ifindex: u32, address: IpAddr) -> Option<Neighbour> {
        self.netlink.neighbour(ifindex, address).await.ok()?
    }
}

/// `net/sched/sch_ingress.c`: `ingress` sees only what comes in, `clsact` both ways.
const INGRESS: &str = "ingress";
const CLSACT: &str = "clsact";

/// The kind of a qdisc that what leaves may meet.
fn kind(qdisc: &TcMessage) -> Option<String> {
    let kind = qdisc.attributes.iter().find_map(|attribute| match attribute {
        TcAttribute::Kind(kind) => Some(kind),
        _ => None,
    });
    kind.filter(|kind| *kind != INGRESS).cloned()
}

async fn all<T, E>(answers: impl Stream<Item = Result<T, E>>) -> Vec<T> {
    let collected = answers.filter_map(async |answer| answer.ok()).collect();
    tokio::time::timeout(ANSWER_LIMIT, collected).await.unwrap_or_default()
}
