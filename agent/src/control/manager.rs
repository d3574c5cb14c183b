//! The targets from the control thread's side: finds their way out, opens
//! sockets, lends them to the pump, and closes them when they come back.
//!
//! Sockets of the kinds `xdp` and `packet` belong to a device and are shared by
//! the targets on it. A target that cannot be served waits and is tried again;
//! following changes of the network by itself is not done yet.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use super::status::{EgressStatus, NextHopStatus, TargetStatus};
use crate::{
    capture::wake::Waker,
    cli::logging::Limited,
    config,
    egress::{Egress, EgressKind, OpenError, packet, pcap, udp, xdp},
    frame::{FrameAddresses, HeaderError, HeaderTemplate},
    handover::{ControlEnd, LendError},
    ledger::SharedLedger,
    net::{EgressImpossible, NextHop, ResolveError, Resolver, Wanted, choose_egress},
    netconsole::FormatKind,
    pump::{Command, EGRESS_MAX, Returned},
    target::Route,
};

/// How long the start waits for a neighbour to answer.
const RESOLVE_PATIENCE: Duration = Duration::from_millis(1500);
/// Wait before a target is tried again: the first, and the longest.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(30);
/// A target that does not work complains this often.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

/// Why a target cannot send.
#[derive(Debug, thiserror::Error)]
pub enum ActivateError {
    /// Its way could not be found.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// The wanted way out does not fit the route.
    #[error(transparent)]
    Choose(#[from] EgressImpossible),
    /// No socket could be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The addresses make no frame.
    #[error("cannot build frames to {remote}: {cause}")]
    Header {
        /// The remote.
        remote: SocketAddr,
        /// Why.
        cause: HeaderError,
    },
    /// The pump cannot take more at the moment.
    #[error(transparent)]
    Lend(#[from] LendError),
    /// The remote is a name, and names are not looked up here yet.
    #[error("the address of {remote} is not known: write the address into `remote`")]
    NotResolved {
        /// The remote.
        remote: config::Remote,
    },
    /// Every place for a socket is taken.
    #[error(
        "{EGRESS_MAX} sockets are open, which is the most the agent holds; let targets share devices"
    )]
    NoPlace,
}

/// What makes two targets share a socket.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum SocketKey {
    Xdp {
        ifindex: u32,
        queue: u32,
    },
    Packet {
        ifindex: u32,
    },
    /// UDP and pcap are a target's own.
    Own {
        target: usize,
    },
}

/// A way out of the host that was found for a target.
struct Way {
    kind: EgressKind,
    reason: String,
    hop: Option<NextHop>,
}

#[derive(Debug)]
struct Active {
    key: SocketKey,
    kind: EgressKind,
    reason: String,
    hop: Option<NextHop>,
}

struct Managed {
    config: config::Target,
    ledger: Arc<SharedLedger>,
    active: Option<Active>,
    waiting_for: Option<String>,
    retry_at: Instant,
    retry_after: Duration,
    complaints: Limited,
}

/// See the module's description.
pub struct Manager {
    targets: Vec<Managed>,
    sockets: BTreeMap<SocketKey, usize>,
    places: [bool; EGRESS_MAX],
    control: ControlEnd<Command, Returned>,
    pump: Arc<Waker>,
    resolver: Resolver,
}

impl Manager {
    /// Takes charge of the targets of a configuration; `ledgers` are those of the seeds.
    #[must_use]
    pub fn new(
        config: &config::Config,
        ledgers: Vec<Arc<SharedLedger>>,
        control: ControlEnd<Command, Returned>,
        pump: Arc<Waker>,
        resolver: Resolver,
    ) -> Self {
        let targets = config
            .targets
            .iter()
            .zip(ledgers)
            .map(|(config, ledger)| Managed {
                config: config.clone(),
                ledger,
                active: None,
                waiting_for: Some("the agent is starting".to_owned()),
                retry_at: Instant::now(),
                retry_after: RETRY_FIRST,
                complaints: Limited::to_one_per(COMPLAIN_EVERY),
            })
            .collect();
        let places = [false; EGRESS_MAX];
        Self { targets, sockets: BTreeMap::new(), places, control, pump, resolver }
    }

    /// Tries each waiting target whose time has come; returns when to call again.
    pub async fn retry_waiting(&mut self) -> Option<Instant> {
        self.close_returned();
        self.retire_unused();
        let due = |target: &Managed| target.active.is_none() && target.retry_at <= Instant::now();
        let due = (0..self.targets.len()).filter(|index| due(&self.targets[*index])).collect();
        // The outcomes are in the targets' state and in the log.
        let _ = self.activate(due).await;
        let waiting = self.targets.iter().filter(|target| target.active.is_none());
        waiting.map(|target| target.retry_at).min()
    }

    /// Finds the way of one target, or of all, anew.
    ///
    /// # Errors
    /// In words for the operator; targets that worked go on as before.
    pub async fn resolve(&mut self, name: Option<&str>) -> Result<(), String> {
        let wanted = |target: &Managed| name.is_none_or(|name| target.config.name == name);
        let wanted: Vec<usize> =
            (0..self.targets.len()).filter(|index| wanted(&self.targets[*index])).collect();
        if wanted.is_empty() {
            return Err(format!("there is no target {:?}", name.unwrap_or_default()));
        }
        let errors: Vec<String> = self
            .activate(wanted)
            .await
            .into_iter()
            .map(|(index, error)| format!("{}: {error}", self.targets[index].config.name))
            .collect();
        if errors.is_empty() { Ok(()) } else { Err(errors.join("; ")) }
    }

    /// Finds the ways of several targets at once, so that one that does not answer
    /// holds up no other, and uses them; returns what failed.
    async fn activate(&mut self, indices: Vec<usize>) -> Vec<(usize, ActivateError)> {
        let find = indices.iter().map(|index| self.find_way(&self.targets[*index].config));
        let ways = futures_util::future::join_all(find).await;
        let mut failed = Vec::new();
        for (index, way) in indices.into_iter().zip(ways) {
            let result = way.and_then(|way| self.use_way(index, way));
            self.note(index, &result);
            if let Err(error) = result {
                failed.push((index, error));
            }
        }
        failed
    }

    /// Keeps the outcome in the target's state, and tells it in the log.
    fn note(&mut self, index: usize, result: &Result<(), ActivateError>) {
        let target = &mut self.targets[index];
        let name = target.config.name.as_str();
        match result {
            Ok(()) => {
                target.waiting_for = None;
                target.retry_after = RETRY_FIRST;
                if let Some(active) = &target.active {
                    tracing::info!(
                        target_name = name,
                        remote = %target.config.remote,
                        egress = active.kind.name(),
                        device = active.hop.as_ref().map(|hop| hop.ifname.as_str()),
                        reason = %active.reason,
                        "The target sends."
                    );
                }
            }
            Err(error) => {
                target.waiting_for = Some(error.to_string());
                target.retry_at = Instant::now() + target.retry_after;
                target.retry_after = (target.retry_after * 2).min(RETRY_MAX);
                if let Some(suppressed) = target.complaints.allow(Instant::now()) {
                    tracing::warn!(target_name = name, %error, suppressed, "The target cannot send.");
                }
            }
        }
    }

    /// Opens what a way needs and lends it to the pump.
    fn use_way(&mut self, index: usize, mut way: Way) -> Result<(), ActivateError> {
        let config = self.targets[index].config.clone();
        let mut socket = self.socket_for(index, &config, &way);
        if let (None, EgressKind::Xdp, Err(ActivateError::Open(error))) =
            (config.egress, way.kind, &socket)
        {
            way = Way { kind: EgressKind::Udp, reason: error.to_string(), ..way };
            socket = self.socket_for(index, &config, &way);
        }
        let (key, place) = socket?;
        let Way { kind, reason, hop } = way;
        let header = header(&config, kind, hop.as_ref())?;
        let route = Box::new(Route { egress: place, header });
        self.send(Command::Bind { target: index, route }, 1)?;
        self.targets[index].active = Some(Active { key, kind, reason, hop });
        self.retire_unused();
        Ok(())
    }

    /// The kind of way out for a target, and the next hop where frames need one.
    async fn find_way(&self, config: &config::Target) -> Result<Way, ActivateError> {
        match config.egress {
            // A connected socket and a file need no next hop of ours.
            Some(kind @ (EgressKind::Udp | EgressKind::Pcap)) => {
                Ok(Way { kind, reason: "configured".to_owned(), hop: None })
            }
            wanted => {
                let hop = self.resolver.resolve(&wanted_way(config)?).await?;
                let (kind, reason) = choose_egress(wanted, &hop)?;
                Ok(Way { kind, reason, hop: Some(hop) })
            }
        }
    }

    /// The socket for a way out: one that is open already, or a new one, which is
    /// lent to the pump.
    fn socket_for(
        &mut self,
        index: usize,
        config: &config::Target,
        way: &Way,
    ) -> Result<(SocketKey, usize), ActivateError> {
        let key = match (way.kind, &way.hop) {
            (EgressKind::Xdp, Some(hop)) => {
                SocketKey::Xdp { ifindex: hop.ifindex, queue: config.queue }
            }
            (EgressKind::Packet, Some(hop)) => SocketKey::Packet { ifindex: hop.ifindex },
            _ => SocketKey::Own { target: index },
        };
        if let Some(place) = self.sockets.get(&key) {
            return Ok((key, *place));
        }
        let place = self.places.iter().position(|taken| !taken).ok_or(ActivateError::NoPlace)?;
        let egress = open(config, way.kind, way.hop.as_ref())?;
        self.send(Command::Install { index: place, egress }, 1)?;
        self.places[place] = true;
        self.sockets.insert(key.clone(), place);
        Ok((key, place))
    }

    /// Asks sockets back that no target uses any more. What cannot be asked now is
    /// asked later.
    fn retire_unused(&mut self) {
        let used = |key: &SocketKey| {
            let uses =
                |target: &Managed| target.active.as_ref().is_some_and(|active| active.key == *key);
            self.targets.iter().any(uses)
        };
        let unused: Vec<(SocketKey, usize)> = self
            .sockets
            .iter()
            .filter(|(key, _)| !used(key))
            .map(|(key, place)| (key.clone(), *place))
            .collect();
        for (key, index) in unused {
            if self.send(Command::Retire { index }, 0).is_ok() {
                self.sockets.remove(&key);
            }
        }
    }

    fn send(&mut self, command: Command, boxes: usize) -> Result<(), LendError> {
        self.close_returned();
        self.control.send(command, boxes).map_err(|(_, error)| error)?;
        self.pump.wake();
        Ok(())
    }

    /// Drops what the pump has given back: sockets are closed here.
    pub fn close_returned(&mut self) {
        while let Some(returned) = self.control.take_back() {
            if let Returned::Egress { index, egress } = returned {
                drop(egress);
                if !self.sockets.values().any(|place| *place == index) {
                    self.places[index] = false;
                }
            }
        }
    }

    /// Tells the pump to send what is there and end.
    ///
    /// # Errors
    /// If the pump does not take commands.
    pub fn stop_pump(&mut self, deadline_ns: u64) -> Result<(), LendError> {
        self.send(Command::Stop { deadline_ns }, 0)
    }

    /// The state of all targets.
    #[must_use]
    pub fn status(&self) -> Vec<TargetStatus> {
        self.targets.iter().map(Managed::status).collect()
    }

    /// Logs the account of each target.
    pub fn log_accounts(&self) {
        for target in self.status() {
            tracing::info!(
                target_name = target.name,
                account = target.account.line(),
                "The target's final account."
            );
        }
    }
}

impl Managed {
    fn status(&self) -> TargetStatus {
        let format = match self.config.format {
            FormatKind::Extended => "extended",
            FormatKind::Basic => "basic",
        };
        TargetStatus {
            name: self.config.name.clone(),
            remote: self.config.remote.to_string(),
            format: format.to_owned(),
            state: if self.active.is_some() { "active" } else { "waiting" }.to_owned(),
            waiting_for: self.waiting_for.clone(),
            egress: self.active.as_ref().map(|active| EgressStatus {
                kind: active.kind.name().to_owned(),
                reason: active.reason.clone(),
                queue: (active.kind == EgressKind::Xdp).then_some(self.config.queue),
            }),
            next_hop: self.active.as_ref().and_then(|active| active.hop.as_ref()).map(|hop| {
                NextHopStatus {
                    device: hop.ifname.clone(),
                    source: hop.local.to_string(),
                    mac: hop.dst_mac.map(mac_text),
                    gateway: hop.gateway.map(|gateway| gateway.to_string()),
                }
            }),
            account: self.ledger.read().into(),
        }
    }
}

fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

fn wanted_way(config: &config::Target) -> Result<Wanted, ActivateError> {
    Ok(Wanted {
        remote: remote(config)?,
        device: config.device.clone(),
        local: config.local_ip,
        remote_mac: config.remote_mac,
        patience: RESOLVE_PATIENCE,
    })
}

fn remote(config: &config::Target) -> Result<SocketAddr, ActivateError> {
    let missing = || ActivateError::NotResolved { remote: config.remote.clone() };
    config.remote.address().ok_or_else(missing)
}

fn header(
    config: &config::Target,
    kind: EgressKind,
    hop: Option<&NextHop>,
) -> Result<Option<HeaderTemplate>, ActivateError> {
    if !kind.takes_frames() {
        return Ok(None);
    }
    let remote = remote(config)?;
    // A pcap file gets frames as they would look without a network.
    let local_ip = hop.map(|hop| hop.local).or(config.local_ip).unwrap_or(unspecified(remote));
    HeaderTemplate::new(FrameAddresses {
        src_mac: hop.map_or([0; 6], |hop| hop.src_mac),
        dst_mac: hop.and_then(|hop| hop.dst_mac).or(config.remote_mac).unwrap_or([0; 6]),
        vlan: None,
        local: SocketAddr::new(local_ip, config.local_port),
        remote,
    })
    .map(Some)
    .map_err(|cause| ActivateError::Header { remote, cause })
}

/// "Any address" of the same IP version.
fn unspecified(like: SocketAddr) -> IpAddr {
    if like.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
}

fn open(
    config: &config::Target,
    kind: EgressKind,
    hop: Option<&NextHop>,
) -> Result<Box<dyn Egress>, ActivateError> {
    let egress = match (kind, hop) {
        (EgressKind::Xdp, Some(hop)) => xdp::open(&xdp::XdpOptions {
            queue: config.queue,
            ..xdp::XdpOptions::new(hop.ifindex, &hop.ifname, hop.mtu_bytes)
        }),
        (EgressKind::Packet, Some(hop)) => {
            packet::open(&packet::PacketOptions::new(hop.ifindex, &hop.ifname, hop.mtu_bytes))
        }
        (EgressKind::Pcap, _) => pcap::open(&pcap::PcapOptions {
            path: config.pcap.clone().unwrap_or_default(),
            stamps: pcap::PcapStamps::Nanoseconds,
        }),
        _ => udp::open(&udp::UdpOptions {
            local: Some(SocketAddr::new(
                config.local_ip.unwrap_or(unspecified(remote(config)?)),
                config.local_port,
            )),
            device: config.device.clone(),
            ..udp::UdpOptions::new(remote(config)?)
        }),
    };
    Ok(egress?)
}
