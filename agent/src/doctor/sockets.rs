//! Tries a target's sockets, in the order in which the agent would: what opens is closed at once.
//! Whether something else would be better is judged in `leaving`.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
};

use rustix::io::Errno;

use super::{agent, split_remedy, way};
use crate::{
    config,
    egress::{EgressKind, OpenError, packet, udp, xdp},
    net::{NextHop, choose_egress, egress_kinds},
};

/// Those of a queue are shared by targets, so each queue is tried once.
pub(super) struct Sockets<'a> {
    agent: &'a agent::Facts,
    /// Without the right to, AF_XDP and AF_PACKET are not tried.
    may_open_raw: bool,
    queues: BTreeMap<(u32, u32), way::Opened>,
}

impl<'a> Sockets<'a> {
    pub(super) fn new(agent: &'a agent::Facts, may_open_raw: bool) -> Self {
        Self { agent, may_open_raw, queues: BTreeMap::new() }
    }

    /// Without a next hop it is a file, which needs none.
    pub(super) fn try_egress(
        &mut self,
        target: &config::Target,
        remote: SocketAddr,
        hop: Option<&NextHop>,
    ) -> way::Egress {
        let Some(hop) = hop else {
            let choice = Ok((EgressKind::Pcap, "configured".to_owned()));
            let opened = try_file(target.pcap.as_deref());
            return way::Egress { choice, tries: vec![(EgressKind::Pcap, opened)] };
        };
        let choice = choose_egress(target.egress, hop).map_err(|error| split_remedy(&error));
        let kinds = match &choice {
            Ok((kind, _)) => egress_kinds(target.egress, *kind),
            Err(_) => Vec::new(),
        };
        let mut tries = Vec::new();
        for kind in kinds {
            let opened = self.try_kind(kind, target, remote, hop);
            let refused = matches!(opened, way::Opened::Refused { .. });
            tries.push((kind, opened));
            if !refused {
                break;
            }
        }
        way::Egress { choice, tries }
    }

    fn try_kind(
        &mut self,
        kind: EgressKind,
        target: &config::Target,
        remote: SocketAddr,
        hop: &NextHop,
    ) -> way::Opened {
        match kind {
            EgressKind::Xdp | EgressKind::Packet if !self.may_open_raw => way::Opened::NotTried,
            EgressKind::Xdp => self.try_xdp(target.queue, hop),
            EgressKind::Packet => {
                let options = packet::PacketOptions::new(hop.ifindex, &hop.ifname);
                opened(packet::open(&options))
            }
            EgressKind::Udp => try_udp(target, remote, hop),
            EgressKind::Pcap => try_file(target.pcap.as_deref()),
            // No configuration has it.
            EgressKind::Memory => way::Opened::NotTried,
        }
    }

    fn try_xdp(&mut self, queue: u32, hop: &NextHop) -> way::Opened {
        if let Some(pid) = self.agent.holder(&hop.ifname, queue) {
            return way::Opened::Held { pid };
        }
        if let Some(opened) = self.queues.get(&(hop.ifindex, queue)) {
            return opened.clone();
        }
        let result =
            xdp::open(&xdp::XdpOptions { queue, ..xdp::XdpOptions::new(hop.ifindex, &hop.ifname) });
        let busy = result.as_ref().is_err_and(|error| error.errno() == Some(Errno::BUSY));
        let opened = match self.agent.pid() {
            // An agent keeps the socket of a target that waits.
            Some(pid) if busy => way::Opened::Held { pid },
            _ => opened(result),
        };
        self.queues.insert((hop.ifindex, queue), opened.clone());
        opened
    }
}

/// The socket itself is closed at once.
fn opened<T>(result: Result<T, OpenError>) -> way::Opened {
    match result {
        Ok(_) => way::Opened::Yes,
        Err(error) => {
            let (finding, remedy) = split_remedy(&error);
            way::Opened::Refused { finding, remedy }
        }
    }
}

/// As the agent opens it: the device is bound where one is configured, by its name.
fn try_udp(target: &config::Target, remote: SocketAddr, hop: &NextHop) -> way::Opened {
    let any: IpAddr =
        if remote.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    opened(udp::open(&udp::UdpOptions {
        local: Some(SocketAddr::new(target.local_ip.unwrap_or(any), target.local_port)),
        device: target.device.is_some().then(|| hop.ifname.clone()),
        ..udp::UdpOptions::new(remote)
    }))
}

/// Opening it would empty it, so only the folder is looked at.
fn try_file(path: Option<&Path>) -> way::Opened {
    let path = path.unwrap_or(Path::new(""));
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    match rustix::fs::access(folder, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK) {
        Ok(()) => way::Opened::Yes,
        Err(error) => way::Opened::Refused {
            finding: format!("cannot write {}: {}: {error}", path.display(), folder.display()),
            remedy: "make the folder, or let the agent write there".to_owned(),
        },
    }
}
