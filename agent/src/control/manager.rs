//! The targets from the control thread's side: brings the events of the network
//! and the answers to its own questions to each target's state machine, and carries out
//! what the machine wants.
//!
//! Nothing here waits: looks, openings and closings run as tasks, and their outcomes come
//! back as [`Input`]s. So a receiver that does not answer holds up no other.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::io::Errno;
use tokio::sync::{mpsc, oneshot};

use super::{
    life::{self, Life},
    netdev::NetdevChange,
    socket::Reply,
    sockets::{Opened, Sockets},
    status::TargetStatus,
    way::{self, WayOut},
};
use crate::{
    capture::wake::Waker,
    config,
    handover::ControlEnd,
    ledger::SharedLedger,
    net::{
        MacSource, NetEvent, NetEventKind, Resolver,
        names::{NameError, NameState, Names, Resolved},
    },
    pump::{Command, PumpStats, Returned},
    target::state::{Effect, Event, Reason, SocketId, State, Ticket, WaitKind},
};

/// Housekeeping, and faster while something is on its way.
const TICK: Duration = Duration::from_secs(1);
const TICK_BUSY: Duration = Duration::from_millis(20);
/// A socket that was given something and sends nothing for this many ticks is stuck.
const STUCK_TICKS: u32 = 3;
/// A neighbour whose last confirmation is older than this is asked again. With the
/// recheck of active targets it bounds how long a wrong address goes unnoticed.
const CONFIRM_AFTER: Duration = Duration::from_secs(10);
/// How long `target resolve` waits for the outcome.
const RESOLVE_PATIENCE: Duration = Duration::from_secs(3);

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

/// What happened in the network, from whichever source noticed first.
#[derive(Debug)]
pub(super) enum Change {
    /// By rtnetlink.
    Netlink(NetEvent),
    /// By a program.
    Netdev(NetdevChange),
}

/// Somebody waits for the outcome of a look.
struct Asked {
    targets: Vec<usize>,
    until: Instant,
    answer: oneshot::Sender<Reply>,
}

/// See the module's description.
pub struct Manager {
    lives: Vec<Life>,
    sockets: Sockets,
    resolver: Resolver,
    names: Names,
    inputs: mpsc::UnboundedReceiver<Input>,
    sender: mpsc::UnboundedSender<Input>,
    changes: mpsc::Receiver<Change>,
    /// Events for the machines that came up while others were handled.
    pending: VecDeque<(usize, Event<WayOut>)>,
    asked: Vec<Asked>,
    tick_at: Instant,
}

impl Manager {
    /// Takes charge of the targets of a configuration; `ledgers` are those of the
    /// seeds. The targets are switched on.
    pub(super) fn new(
        config: &config::Config,
        ledgers: Vec<Arc<SharedLedger>>,
        control: ControlEnd<Command, Returned>,
        pump: (Arc<Waker>, Arc<PumpStats>),
        resolver: Resolver,
        changes: mpsc::Receiver<Change>,
    ) -> Self {
        let (sender, inputs) = mpsc::unbounded_channel();
        let targets = config.targets.iter().cloned().zip(ledgers);
        let mut manager = Self {
            lives: targets.map(|(config, ledger)| Life::new(config, ledger)).collect(),
            sockets: Sockets::new(control, pump.0, pump.1, sender.clone()),
            resolver,
            names: Names::default(),
            inputs,
            sender,
            changes,
            pending: VecDeque::new(),
            asked: Vec::new(),
            tick_at: Instant::now(),
        };
        for target in 0..manager.lives.len() {
            manager.handle(target, Event::Enable);
        }
        manager
    }

    /// Waits for the next thing to do and does it. May be dropped at any time.
    pub async fn work(&mut self) {
        let next = self.next_deadline();
        tokio::select! {
            Some(input) = self.inputs.recv() => self.take(input),
            Some(change) = self.changes.recv() => self.network(&change),
            () = tokio::time::sleep_until(next.into()) => self.on_time(),
        }
        self.answer_asked();
    }

    fn next_deadline(&self) -> Instant {
        let timers = self.lives.iter().flat_map(|life| life.timers.values().copied());
        let names = self.lives.iter().filter_map(|life| life.name.as_ref()).map(NameState::next_at);
        timers.chain(names).chain([self.tick_at]).min().unwrap_or(self.tick_at)
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Looked(target, ticket, answer) => {
                self.looked(target, ticket, answer.map(|way| *way));
            }
            Input::Named(target, answer) => {
                let Some(name) = &mut self.lives[target].name else { return };
                let failed = answer.is_err();
                let changed = name.answer(Instant::now(), answer);
                // A target that waits tells the newest reason.
                if changed || failed && name.addresses().is_empty() {
                    self.handle(target, Event::Changed);
                }
            }
            Input::Opened(socket, outcome) => {
                for ((target, ticket), outcome) in self.sockets.opened(socket, outcome) {
                    let event = match outcome {
                        Ok(socket) => Event::Opened(ticket, socket),
                        Err(reason) => {
                            self.lives[target].fallback_reason = Some(reason.text.clone());
                            Event::OpenFailed(ticket, reason)
                        }
                    };
                    self.handle(target, event);
                }
            }
        }
    }

    fn looked(&mut self, target: usize, ticket: Ticket, answer: Result<WayOut, Reason>) {
        let life = &mut self.lives[target];
        let (now, sent) = (Instant::now(), life.ledger.read().sent);
        match &answer {
            Ok(way) => {
                life.trust_or_doubt(way, now, sent);
                life.found = Some(way.clone());
                if let Some(name) = &mut life.name {
                    name.works(way.remote.ip());
                }
                if let Some(hop) = &way.hop {
                    life.known = hop.device.clone().or(life.known.take());
                    self.confirm(target);
                }
            }
            Err(reason) if reason.kind == WaitKind::NeighbourUnresolved => {
                if life.is_active() {
                    let records = life.suspicion.doubt(sent);
                    life.tell_doubt(records, &reason.text);
                }
            }
            Err(_) => {}
        }
        self.handle(target, Event::Looked(ticket, answer));
    }

    /// Has the kernel ask the neighbour whether it is still there, if that was not
    /// found out by other traffic. What comes of it is an event.
    fn confirm(&self, target: usize) {
        let hop = self.lives[target].found.as_ref().and_then(|way| way.hop.as_ref());
        let Some(hop) = hop.filter(|hop| hop.mac_source == MacSource::Neighbour) else { return };
        let Some(address) = hop.neighbour else { return };
        let (resolver, ifindex) = (self.resolver.clone(), hop.ifindex);
        tokio::spawn(async move {
            if let Err(error) = resolver.confirm(ifindex, address, CONFIRM_AFTER).await {
                tracing::debug!(%error, "A neighbour could not be asked.");
            }
        });
    }

    fn handle(&mut self, target: usize, event: Event<WayOut>) {
        self.pending.push_back((target, event));
        while let Some((target, event)) = self.pending.pop_front() {
            let cause = life::cause(&event);
            let life = &mut self.lives[target];
            let before = life.machine.state().clone();
            let effects = life.machine.handle(event);
            life.forget_fallback_reason();
            life.note(&before, cause);
            for effect in effects {
                self.perform(target, effect);
            }
        }
    }

    fn perform(&mut self, target: usize, effect: Effect<WayOut>) {
        let now = Instant::now();
        match effect {
            Effect::Look(ticket) => self.look(target, ticket, now),
            Effect::Open(ticket, way) => {
                if let Some(socket) = self.sockets.claim(target, ticket, &way) {
                    self.pending.push_back((target, Event::Opened(ticket, socket)));
                }
            }
            Effect::Bind(socket, way) => self.sockets.bind(target, socket, &way),
            Effect::Unbind => self.sockets.unbind(target),
            Effect::Release(socket) => self.sockets.release(target, socket),
            Effect::Arm(timer, after) => {
                self.lives[target].timers.insert(timer, now + after);
            }
            Effect::Disarm(timer) => {
                self.lives[target].timers.remove(&timer);
            }
        }
    }

    fn look(&mut self, target: usize, ticket: Ticket, now: Instant) {
        let life = &mut self.lives[target];
        let at = life.look_at(now);
        if let Some(overtaken) = life.look.take() {
            overtaken.abort();
        }
        let remotes = life.remotes();
        if remotes.is_empty() {
            let answer = Err(life.unnamed());
            let _ = self.sender.send(Input::Looked(target, ticket, answer));
            return;
        }
        let find = way::find(
            self.resolver.clone(),
            Arc::clone(&life.config),
            target,
            remotes,
            life.known.clone(),
        );
        let sender = self.sender.clone();
        let task = tokio::spawn(async move {
            tokio::time::sleep_until(at.into()).await;
            let answer = find.await.map(Box::new);
            // Nobody listens any more only when the agent ends.
            let _ = sender.send(Input::Looked(target, ticket, answer));
        });
        life.look = Some(task.abort_handle());
    }

    fn network(&mut self, change: &Change) {
        let (kind, ifindex) = match change {
            Change::Netlink(event) => {
                if let Some(neighbour) = &event.neighbour {
                    let cares = |life: &Life| life.cares_for(neighbour);
                    let caring = (0..self.lives.len()).filter(|at| cares(&self.lives[*at]));
                    for target in caring.collect::<Vec<_>>() {
                        self.handle(target, Event::Changed);
                    }
                    return;
                }
                for known in self.lives.iter_mut().filter_map(|life| life.known.as_mut()) {
                    known.follow(event);
                }
                (event.kind, event.ifindex)
            }
            Change::Netdev(change) => (change.kind(), Some(change.ifindex)),
        };
        let lost = match kind {
            NetEventKind::LinkGone => Some((WaitKind::NoDevice, "the device is gone")),
            NetEventKind::LinkDown => Some((WaitKind::DeviceDown, "the device went down")),
            NetEventKind::LinkNoCarrier => {
                Some((WaitKind::NoCarrier, "the device lost its carrier"))
            }
            _ => None,
        };
        let gone = match (kind, ifindex) {
            (NetEventKind::LinkGone, Some(ifindex)) => self.sockets.device_gone(ifindex),
            _ => Vec::new(),
        };
        for target in 0..self.lives.len() {
            let socket = self.lives[target].machine.socket();
            let uses = socket.is_some_and(|socket| {
                gone.contains(&socket)
                    || ifindex.is_some() && self.sockets.ifindex(socket) == ifindex
            });
            let event = match &lost {
                Some((kind, text)) if uses => {
                    Event::Lost(Reason { kind: *kind, text: (*text).to_owned() })
                }
                _ => Event::Changed,
            };
            self.handle(target, event);
        }
    }

    fn on_time(&mut self) {
        let now = Instant::now();
        for target in 0..self.lives.len() {
            let due = |life: &Life| {
                life.timers.iter().find(|(_, at)| **at <= now).map(|(timer, _)| *timer)
            };
            while let Some(timer) = due(&self.lives[target]) {
                self.lives[target].timers.remove(&timer);
                self.handle(target, Event::Timer(timer));
            }
        }
        self.ask_for_names(now);
        if self.tick_at <= now {
            self.tick(now);
        }
    }

    fn ask_for_names(&mut self, now: Instant) {
        for (target, life) in self.lives.iter_mut().enumerate() {
            let config::Remote::Name { host, .. } = &life.config.remote else { continue };
            let Some(name) = life.name.as_mut().filter(|name| name.next_at() <= now) else {
                continue;
            };
            name.asked(now);
            let (names, host, sender) = (self.names.clone(), host.clone(), self.sender.clone());
            tokio::spawn(async move {
                // Nobody listens any more only when the agent ends.
                let _ = sender.send(Input::Named(target, names.look_up(&host).await));
            });
        }
    }

    fn tick(&mut self, now: Instant) {
        let mut busy = !self.sockets.settle();
        for (socket, errno) in self.sockets.failing() {
            self.socket_fails(socket, errno);
        }
        for target in 0..self.lives.len() {
            let life = &mut self.lives[target];
            let ledger = life.ledger.read();
            life.suspicion.sample(now, ledger.sent);
            if *life.machine.state() == State::Draining {
                busy = true;
                if ledger.in_flight == 0 {
                    self.handle(target, Event::Drained);
                }
            } else if life.is_stuck(STUCK_TICKS) {
                let text = "the socket sends nothing of what it was given".to_owned();
                life.fallback_reason = Some(text.clone());
                self.handle(target, Event::Stuck(Reason { kind: WaitKind::SocketDead, text }));
            }
        }
        self.tick_at = now + if busy { TICK_BUSY } else { TICK };
    }

    /// A socket could not send. Mostly an event of the network says more; but one may have been missed.
    fn socket_fails(&mut self, socket: SocketId, errno: Errno) {
        let text = format!("the socket does not send: {errno}");
        let reason = Reason { kind: WaitKind::SocketDead, text };
        for target in 0..self.lives.len() {
            if self.lives[target].machine.socket() == Some(socket) {
                let event = match errno {
                    Errno::NXIO | Errno::NODEV | Errno::BADF => Event::Dead(socket, reason.clone()),
                    _ => Event::Changed,
                };
                self.handle(target, event);
            }
        }
    }

    /// Finds the way of one target, or of all, anew, and answers when that is done.
    pub(super) fn resolve(&mut self, name: Option<&str>, answer: oneshot::Sender<Reply>) {
        match self.named(name) {
            Ok(targets) => {
                for target in &targets {
                    self.handle(*target, Event::Changed);
                }
                let until = Instant::now() + RESOLVE_PATIENCE;
                self.asked.push(Asked { targets, until, answer });
            }
            // The client may have gone away.
            Err(error) => drop(answer.send(Reply::refused(error))),
        }
    }

    /// Switches a target on or off.
    pub(super) fn switch(&mut self, name: &str, on: bool) -> Reply {
        match self.named(Some(name)) {
            Ok(targets) => {
                for target in targets {
                    self.handle(target, if on { Event::Enable } else { Event::Disable });
                }
                Reply::done()
            }
            Err(error) => Reply::refused(error),
        }
    }

    fn named(&self, name: Option<&str>) -> Result<Vec<usize>, String> {
        let wanted = |life: &Life| name.is_none_or(|name| life.config.name == name);
        let wanted: Vec<usize> =
            (0..self.lives.len()).filter(|target| wanted(&self.lives[*target])).collect();
        if wanted.is_empty() {
            return Err(format!("there is no target {:?}", name.unwrap_or_default()));
        }
        Ok(wanted)
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
        let (ready, rest) = std::mem::take(&mut self.asked).into_iter().partition(decided);
        self.asked = rest;
        for Asked { targets, answer, .. } in ready {
            let problems: Vec<String> = targets
                .into_iter()
                .filter_map(|target| {
                    let status = self.lives[target].status();
                    let problem = status
                        .waiting_for
                        .or((status.state != "active").then(|| format!("it is {}", status.state)))?;
                    Some(format!("{}: {problem}", status.name))
                })
                .collect();
            // The client may have gone away.
            let _ = answer.send(if problems.is_empty() {
                Reply::done()
            } else {
                Reply::refused(problems.join("; "))
            });
        }
    }

    /// Tells the pump to send what is there and end.
    pub fn stop_pump(&mut self, deadline_ns: u64) {
        self.sockets.stop_pump(deadline_ns);
    }

    /// Closes what the pump has given back.
    pub fn close_returned(&mut self) {
        self.sockets.settle();
    }

    /// The state of all targets.
    #[must_use]
    pub fn status(&self) -> Vec<TargetStatus> {
        self.lives.iter().map(Life::status).collect()
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
