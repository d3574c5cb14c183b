//! The targets from the control thread's side: brings the events of the network
//! and the answers to its own questions to each target's state machine, and carries out
//! what the machine wants.
//!
//! Nothing here waits: looks, openings and closings run as tasks, and their outcomes come
//! back as inputs. So a receiver that does not answer holds up no other.

pub(super) mod after_crash;
pub(super) mod extradata;
mod last_words;
mod messages;
mod network;
pub(super) mod targets;
mod timing;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::io::Errno;
use tokio::sync::{mpsc, oneshot};

use self::{after_crash::AfterCrash, extradata::ExtraData, messages::Outgoing};
use super::{
    last_words::LastWords,
    life::{self, Life},
    link::PumpLink,
    metrics::view::TargetScrape,
    netdev::NetdevChange,
    protocol::Reply,
    settings::HostFormat,
    sockets::{Opened, Sockets},
    status::TargetStatus,
    way::{self, WayOut},
};
use crate::{
    after_crash::memory::MemoryError,
    capture::wake::Waker,
    checkpoint::Checkpoints,
    clock::{self, Suspended},
    extradata::cgroup::Walked,
    handover::ControlEnd,
    names::{NameChange, NameError, Names, Resolved},
    net::{MacSource, NetEvent, Resolver},
    pump::{Command, PumpStats, Returned, TARGETS_MAX},
    target::state::{Effect, Event, Reason, SocketId, State, Ticket, WaitKind},
};

/// A neighbour whose last confirmation is older than this is asked again. With the
/// recheck of active targets it bounds how long a wrong address goes unnoticed.
const CONFIRM_AFTER: Duration = Duration::from_secs(10);
/// How long `target resolve` waits for the outcome.
const RESOLVE_PATIENCE: Duration = Duration::from_secs(3);

/// What comes back to the manager from elsewhere.
pub(super) enum Input {
    /// The outcome of a look.
    Looked(usize, Ticket, Result<Box<WayOut>, Reason>),
    /// What a target that waits for its neighbour could do at the worst.
    LastResort(usize, Box<WayOut>),
    /// The outcome of opening a socket.
    Opened(SocketId, Opened),
    /// The outcome of looking a target's name up, which may have another one by now.
    Named(usize, String, Result<Resolved, NameError>),
    /// The names of the cgroups.
    Walked(Walked),
    /// The outcome of writing down what was sent after a crash.
    Kept(Result<(), MemoryError>),
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
    /// By a number that no other target ever has.
    lives: BTreeMap<usize, Life>,
    last_id: usize,
    /// Removed targets that the pump has not given back yet, by their index there.
    leaving: BTreeMap<usize, Life>,
    /// Indices that the pump has a target for.
    places: [bool; TARGETS_MAX],
    host_format: HostFormat,
    checkpoints: Option<Checkpoints>,
    extradata: ExtraData,
    messages: Outgoing,
    after_crash: AfterCrash,
    /// Since the boot.
    started: Duration,
    suspended: Suspended,
    link: PumpLink,
    sockets: Sockets,
    resolver: Resolver,
    names: Names,
    last_words: Option<LastWords>,
    /// Who is spoken to in a panic, or how, may have changed.
    plan_is_old: bool,
    inputs: mpsc::UnboundedReceiver<Input>,
    sender: mpsc::UnboundedSender<Input>,
    changes: mpsc::Receiver<Change>,
    /// Events for the machines that came up while others were handled.
    pending: VecDeque<(usize, Event<WayOut>)>,
    asked: Vec<Asked>,
    tick_at: Instant,
}

impl Manager {
    /// A manager without targets yet.
    pub(super) fn new(
        (host_format, extradata): (HostFormat, ExtraData),
        checkpoints: Option<Checkpoints>,
        after_crash: AfterCrash,
        control: ControlEnd<Command, Returned>,
        pump: (Arc<Waker>, Arc<PumpStats>),
        resolver: Resolver,
        changes: mpsc::Receiver<Change>,
    ) -> Self {
        let (sender, inputs) = mpsc::unbounded_channel();
        Self {
            lives: BTreeMap::new(),
            last_id: 0,
            leaving: BTreeMap::new(),
            places: [false; TARGETS_MAX],
            host_format,
            checkpoints,
            extradata,
            messages: Outgoing::default(),
            after_crash,
            started: clock::since_boot(),
            suspended: Suspended::of_this_host(),
            link: PumpLink::new(control, pump.0, pump.1),
            sockets: Sockets::new(sender.clone()),
            resolver,
            names: Names::default(),
            last_words: None,
            plan_is_old: false,
            inputs,
            sender,
            changes,
            pending: VecDeque::new(),
            asked: Vec::new(),
            tick_at: Instant::now(),
        }
    }

    /// Waits for the next thing to do and does it. May be dropped at any time.
    pub async fn work(&mut self) {
        let next = self.next_deadline();
        tokio::select! {
            Some(input) = self.inputs.recv() => self.take(input),
            Some(change) = self.changes.recv() => self.network(&change),
            () = tokio::time::sleep_until(next.into()) => self.on_time(),
        }
        self.remove_ended();
        self.plan_last_words();
        self.answer_asked();
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Looked(target, ticket, answer) => {
                self.looked(target, ticket, answer.map(|way| *way));
            }
            Input::LastResort(target, way) => {
                if let Some(life) = self.lives.get_mut(&target).filter(|life| life.used.is_none()) {
                    life.used = Some(*way);
                    self.plan_is_old = true;
                }
            }
            Input::Named(target, host, answer) => {
                let Some(life) = self.lives.get_mut(&target) else { return };
                let Some(name) = life.name.as_mut().filter(|name| name.host() == host) else {
                    return;
                };
                let change = name.answer(Instant::now(), answer);
                // A target that waits tells the newest reason.
                let waits = name.addresses().is_empty();
                if waits || !matches!(change, NameChange::Unchanged | NameChange::Failed) {
                    self.handle(target, Event::Changed);
                }
            }
            Input::Walked(walked) => self.walked(walked),
            Input::Kept(outcome) => self.kept(outcome),
            Input::Opened(socket, outcome) => {
                for ((target, ticket), outcome) in
                    self.sockets.opened(&mut self.link, socket, outcome)
                {
                    let event = match outcome {
                        Ok(socket) => Event::Opened(ticket, socket),
                        Err(reason) => {
                            if let Some(life) = self.lives.get_mut(&target) {
                                life.fallback_reason = Some(reason.text.clone());
                            }
                            Event::OpenFailed(ticket, reason)
                        }
                    };
                    self.handle(target, event);
                }
            }
        }
    }

    fn looked(&mut self, target: usize, ticket: Ticket, answer: Result<WayOut, Reason>) {
        let Some(life) = self.lives.get_mut(&target) else { return };
        let (now, sent) = (Instant::now(), life.shared.ledger.read().sent);
        match &answer {
            Ok(way) => {
                life.trust_or_doubt(way, now, sent);
                life.found = Some(way.clone());
                if let Some(name) = &mut life.name {
                    name.use_address(way.remote.ip());
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
        let Some(life) = self.lives.get(&target) else { return };
        let hop = life.found.as_ref().and_then(|way| way.hop.as_ref());
        let Some(hop) = hop.filter(|hop| hop.mac_source == MacSource::Neighbour) else { return };
        let Some(address) = hop.neighbour else { return };
        // The look has just read it; an entry without an age is not ours to ask for.
        if hop.mac_confirmed_ago.is_none_or(|ago| ago < CONFIRM_AFTER) {
            return;
        }
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
            let Some(life) = self.lives.get_mut(&target) else {
                // A socket that nobody waits for any more.
                if let Event::Opened(_, socket) = event {
                    self.sockets.release(&mut self.link, target, socket);
                }
                continue;
            };
            let before = life.machine.state().clone();
            let effects = life.machine.handle(event);
            life.forget_fallback_reason();
            life.note(&before, cause);
            self.plan_is_old |= before != *life.machine.state();
            if before != State::Active && life.is_active() {
                self.activated(target);
            }
            for effect in effects {
                self.perform(target, effect);
            }
        }
    }

    fn perform(&mut self, target: usize, effect: Effect<WayOut>) {
        let now = Instant::now();
        let Some(life) = self.lives.get_mut(&target) else { return };
        match effect {
            Effect::Look(ticket) => self.look(target, ticket, now),
            Effect::Open(ticket, way) => {
                if let Some(socket) = self.sockets.claim(target, ticket, &way) {
                    self.pending.push_back((target, Event::Opened(ticket, socket)));
                }
            }
            Effect::Bind(socket, way) => {
                if let Some(route) = self.sockets.route(socket, &way) {
                    self.link.send(Command::Bind { target: life.place, route });
                    life.used = Some(way);
                    self.plan_is_old = true;
                }
            }
            Effect::Unbind => self.link.send(Command::Unbind { target: life.place }),
            Effect::Release(socket) => {
                self.sockets.release(&mut self.link, target, socket);
                let left = self.sockets.is_open(socket).then_some(socket);
                life.former = left.or(life.former);
            }
            Effect::Arm(timer, after) => {
                life.timers.insert(timer, now + after);
            }
            Effect::Disarm(timer) => {
                life.timers.remove(&timer);
            }
        }
    }

    fn look(&mut self, target: usize, ticket: Ticket, now: Instant) {
        let Some(life) = self.lives.get_mut(&target) else { return };
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
        let resort = life.used.is_none().then(|| {
            let config = Arc::clone(&life.config);
            way::last_resort(self.resolver.clone(), config, target, life.remotes())
        });
        let task = tokio::spawn(async move {
            tokio::time::sleep_until(at.into()).await;
            let answer = find.await.map(Box::new);
            let waits =
                matches!(&answer, Err(reason) if reason.kind == WaitKind::NeighbourUnresolved);
            // Nobody listens any more only when the agent ends.
            let _ = sender.send(Input::Looked(target, ticket, answer));
            if let Some(resort) = resort.filter(|_| waits)
                && let Some(way) = resort.await
            {
                let _ = sender.send(Input::LastResort(target, Box::new(way)));
            }
        });
        life.look = Some(task.abort_handle());
    }

    /// Takes what the pump has given back.
    pub fn take_back(&mut self) {
        while let Some(returned) = self.link.take_back() {
            match returned {
                Returned::Egress { index, egress } => self.sockets.returned(index, egress),
                Returned::Target { index, .. } => {
                    self.places[index] = false;
                    if let Some(life) = self.leaving.remove(&index) {
                        life.log_account();
                    }
                }
                Returned::Message(message) => self.message_back(&message),
                Returned::Recall(recall) => self.recalled(&recall),
                Returned::Route(_) | Returned::Tap(_) => {}
            }
        }
    }

    fn ids(&self) -> Vec<usize> {
        self.lives.keys().copied().collect()
    }

    fn close_for_all(&mut self, socket: SocketId, reason: Reason) {
        for target in self.ids() {
            self.handle(target, Event::Dead(socket, reason.clone()));
        }
    }

    /// A socket could not send. Mostly an event of the network says more; but one may have been missed.
    fn socket_fails(&mut self, socket: SocketId, errno: Errno) {
        let text = format!("the socket does not send: {errno}");
        let reason = Reason { kind: WaitKind::SocketDead, text };
        for target in self.ids() {
            if self.lives.get(&target).and_then(|life| life.machine.socket()) == Some(socket) {
                let event = match errno {
                    Errno::NXIO | Errno::NODEV | Errno::BADF => Event::Dead(socket, reason.clone()),
                    _ => Event::Changed,
                };
                self.handle(target, event);
            }
        }
    }

    /// Tells the pump to send what is there and end.
    pub fn stop_pump(&mut self, deadline_ns: u64) {
        self.link.send(Command::Stop { deadline_ns });
    }

    fn in_order(&self) -> impl Iterator<Item = &Life> {
        let mut lives: Vec<&Life> = self.lives.values().filter(|life| !life.removing).collect();
        lives.sort_by_key(|life| life.order);
        lives.into_iter()
    }

    /// The state of all targets, in the order of the configuration.
    #[must_use]
    pub fn status(&self) -> Vec<TargetStatus> {
        self.in_order().map(Life::status).collect()
    }

    /// What the targets' metrics are made of, in the order of the configuration.
    #[must_use]
    pub(super) fn scrape(&self) -> Vec<TargetScrape> {
        self.in_order().map(Life::scrape).collect()
    }

    /// Logs the account of each target.
    pub fn log_accounts(&self) {
        self.lives.values().for_each(Life::log_account);
    }
}
