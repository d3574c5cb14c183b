//! One target in the care of the control thread: its state machine with the
//! clock, the log and the memory that the machine itself does not have.

pub(super) mod heal;
mod tell;

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use tokio::task::AbortHandle;

use super::{settings::Prepared, status::TransitionStatus, suspicion::Suspicion, way::WayOut};
use crate::{
    after_crash::sending::Sending,
    cli::logging::Limited,
    config,
    ledger::Ledger,
    message::keepalive,
    names::{IpVersion, NameState},
    net::{KnownDevice, MacSource},
    netconsole::HostLines,
    target::state::{Event, Machine, Reason, SocketId, State, Timer, WaitKind},
    target::{TargetSettings, filter::Filter},
};

/// Transitions that `status` shows.
const HISTORY: usize = 16;
/// Transitions are logged one by one; a target that changes for ever tells so many,
/// and then one a minute: the log may come back as kernel records.
const LOG_BURST: u32 = 16;
const LOG_EVERY: Duration = Duration::from_secs(60);
/// Events come in groups: each starts the look anew, but not sooner than this.
const LOOK_PAUSE: Duration = Duration::from_millis(2);
/// Other devices of the host may change all the time: so many looks may follow each other
/// at once, and then one in this time.
const LOOK_BURST: u32 = 32;
const LOOK_EVERY: Duration = Duration::from_millis(25);

/// See the module's description.
pub(super) struct Life {
    pub(super) config: Arc<config::Target>,
    /// Its index with the pump.
    pub(super) place: usize,
    /// Its place in the configuration.
    pub(super) order: usize,
    /// It goes when its socket is given up.
    pub(super) removing: bool,
    /// What it shares with the pump.
    pub(super) shared: Prepared,
    /// Settings that the pump may still hold: it must not be the one that frees them.
    pub(super) old_settings: Vec<Arc<TargetSettings>>,
    pub(super) machine: Machine<WayOut>,
    pub(super) timers: BTreeMap<Timer, Instant>,
    pub(super) look: Option<AbortHandle>,
    looked_at: Option<Instant>,
    looks: Limited,
    /// What is known of the receiver's name, if it has one.
    pub(super) name: Option<NameState>,
    /// Its look-up that is under way.
    pub(super) look_up: Option<AbortHandle>,
    /// The way as it was found last.
    pub(super) found: Option<WayOut>,
    /// The way that it uses, or used last.
    pub(super) used: Option<WayOut>,
    /// The device that was used last, to recognise it again.
    pub(super) known: Option<KnownDevice>,
    /// A socket that it left to others, and that may still have something of it.
    pub(super) former: Option<SocketId>,
    /// Why a better way out is not used.
    pub(super) fallback_reason: Option<String>,
    pub(super) suspicion: Suspicion,
    pub(super) keepalives: keepalive::Schedule,
    /// Its way through what earlier boots left, once it was to be sent that.
    pub(super) after_crash: Option<Sending>,
    /// Records done with, and since when that has not changed with something in the socket.
    progress: (u64, Instant),
    history: VecDeque<TransitionStatus>,
    /// How long it could not send, each time that it could before.
    pub(super) heals: heal::Heals,
    /// When its state began.
    pub(super) since: SystemTime,
    /// Its wrong account was told.
    told_imbalance: bool,
    /// Why it could not send the last time that it could not.
    last_error: Option<String>,
    log: Limited,
}

impl Life {
    pub(super) fn new(
        place: usize,
        order: usize,
        config: config::Target,
        shared: Prepared,
    ) -> Self {
        Self {
            name: name_of(&config),
            look_up: None,
            config: Arc::new(config),
            place,
            order,
            removing: false,
            shared,
            old_settings: Vec::new(),
            machine: Machine::new(),
            timers: BTreeMap::new(),
            look: None,
            looked_at: None,
            looks: Limited::to_bursts(LOOK_BURST, LOOK_EVERY),
            found: None,
            used: None,
            known: None,
            former: None,
            fallback_reason: None,
            suspicion: Suspicion::default(),
            keepalives: keepalive::Schedule::default(),
            after_crash: None,
            progress: (0, Instant::now()),
            history: VecDeque::with_capacity(HISTORY),
            heals: heal::Heals::default(),
            since: SystemTime::now(),
            told_imbalance: false,
            last_error: None,
            log: Limited::to_bursts(LOG_BURST, LOG_EVERY),
        }
    }

    /// Takes another configuration; what follows from it is found out by the next look.
    pub(super) fn configure(&mut self, config: config::Target) {
        let same_name =
            config.remote == self.config.remote && config.local_ip == self.config.local_ip;
        if !same_name {
            self.name = name_of(&config);
            self.look_up.take().iter().for_each(AbortHandle::abort);
        }
        if config.device != self.config.device {
            self.known = None;
        }
        // The old way may lead to the old receiver.
        if !same_name
            || config.device != self.config.device
            || config.egress != self.config.egress
            || config.remote_mac != self.config.remote_mac
        {
            self.used = None;
        }
        self.config = Arc::new(config);
    }

    /// The filter in use.
    pub(super) fn filter(&self) -> Arc<Filter> {
        Arc::clone(&self.shared.settings.load().filter)
    }

    /// Lets the pump use other settings, if they are others.
    pub(super) fn store_settings(&mut self, settings: TargetSettings) {
        if self.shared.settings.load().is_same(&settings) {
            return;
        }
        self.old_settings.push(self.shared.settings.swap(Arc::new(settings)));
    }

    /// Lets the pump send other lines about the host.
    pub(super) fn store_host_lines(&mut self, host: HostLines) {
        let settings = self.shared.settings.load();
        if settings.format.host != host {
            let mut format = settings.format.clone();
            format.host = host;
            self.store_settings(TargetSettings {
                name: settings.name.clone(),
                format,
                filter: Arc::clone(&settings.filter),
                names_cgroups: settings.names_cgroups,
                copies: settings.copies,
                pace: settings.pace,
            });
        }
    }

    /// Whether the names of cgroups are wanted.
    pub(super) fn names_cgroups(&self) -> bool {
        self.shared.settings.load().names_cgroups
    }

    /// A timer that has run out.
    pub(super) fn due(&mut self, now: Instant) -> Option<Timer> {
        let (timer, _) = self.timers.iter().find(|(_, at)| **at <= now)?;
        let timer = *timer;
        self.timers.remove(&timer);
        Some(timer)
    }

    pub(super) fn is_active(&self) -> bool {
        *self.machine.state() == State::Active
    }

    /// When the next look may begin; and it is said to begin then.
    pub(super) fn look_at(&mut self, now: Instant) -> Instant {
        // A look that has not begun yet is put off no further, and is no other one.
        if let Some(at) = self.looked_at.filter(|at| *at > now && self.look.is_some()) {
            return at;
        }
        let pause = if self.looks.allow(now).is_some() { LOOK_PAUSE } else { LOOK_EVERY };
        let at = self.looked_at.map_or(now, |at| (at + pause).max(now));
        self.looked_at = Some(at);
        at
    }

    /// Whether something was handed to a socket and nothing has become of it for that long; or
    /// twice as long, whether what there is to be sent finds no place in the socket: the kernel has
    /// taken all that was handed over, and gives none of its frames back.
    pub(super) fn is_stuck(&mut self, now: Instant, ledger: &Ledger, patience: Duration) -> bool {
        let done = ledger.sent + ledger.filtered + ledger.lost_total();
        let idle = ledger.queued() == 0 || !self.is_active() || done != self.progress.0;
        if idle {
            self.progress = (done, now);
        }
        let patience = if ledger.in_flight > 0 { patience } else { 2 * patience };
        now.saturating_duration_since(self.progress.1) >= patience
    }

    /// Whether an event about this neighbour is worth a look.
    pub(super) fn cares_for(&self, neighbour: &crate::net::NeighbourChange) -> bool {
        let found = self.found.as_ref().and_then(|way| Some((way, way.hop.as_ref()?)));
        match self.machine.state() {
            State::Active => found.is_some_and(|(way, hop)| {
                // What the table said at the last look; a configured MAC may differ from it.
                let known = hop.neighbour_mac.or(hop.dst_mac);
                let next = hop.gateway.unwrap_or(way.remote.ip().to_canonical());
                next == neighbour.address && !(neighbour.usable && neighbour.mac == known)
            }),
            State::Waiting(reason) => {
                reason.kind == WaitKind::NeighbourUnresolved && neighbour.usable
            }
            State::Disabled | State::Draining => false,
        }
    }

    /// Where the receiver may be, in the order to try.
    pub(super) fn remotes(&self) -> Vec<SocketAddr> {
        match (&self.config.remote, &self.name) {
            (config::Remote::Address(address), _) => vec![*address],
            (config::Remote::Name { port, .. }, Some(name)) => {
                name.addresses().iter().map(|ip| SocketAddr::new(*ip, *port)).collect()
            }
            (config::Remote::Name { .. }, None) => Vec::new(),
        }
    }

    /// Why there is no address to look for a way to.
    pub(super) fn unnamed(&self) -> Reason {
        let failure = self.name.as_ref().and_then(NameState::failure);
        let text = failure.map_or_else(
            || format!("the name in {} is being resolved", self.config.remote),
            |failure| failure.error.to_string(),
        );
        Reason { kind: WaitKind::NameUnresolved, text }
    }

    /// Compares what was found with what is used: a confirmed neighbour is a reason to trust what
    /// was sent, another MAC a reason to doubt it.
    pub(super) fn trust_or_doubt(&mut self, way: &WayOut, now: Instant, sent: u64) {
        let Some(hop) = way.hop.as_ref().filter(|hop| hop.mac_source == MacSource::Neighbour)
        else {
            return;
        };
        let before = self.found.as_ref().and_then(|way| way.hop.as_ref());
        let moved = before.is_some_and(|before| {
            before.neighbour == hop.neighbour
                && before.ifindex == hop.ifindex
                && before.dst_mac != hop.dst_mac
        });
        if moved && self.is_active() {
            let records = self.suspicion.doubt(sent);
            self.tell_doubt(records, "the next hop has another MAC address");
        }
        if let Some(ago) = hop.mac_confirmed_ago {
            self.suspicion.confirmed(now, ago, sent);
        }
    }

    /// A way out that is the best one needs no excuse.
    pub(super) fn forget_fallback_reason(&mut self) {
        if self.is_active() && self.machine.avoided().is_none() {
            self.fallback_reason = None;
        }
    }
}

fn name_of(config: &config::Target) -> Option<NameState> {
    let version = config.local_ip.map(IpVersion::of);
    match &config.remote {
        config::Remote::Name { host, .. } => Some(NameState::new(host, version, Instant::now())),
        config::Remote::Address(_) => None,
    }
}

/// What an event is called as the cause of a transition.
pub(super) fn cause(event: &Event<WayOut>) -> &'static str {
    match event {
        Event::Enable => "switched on",
        Event::Disable => "switched off",
        Event::Changed => "the network changed",
        Event::Lost(_) => "the device was lost",
        Event::Looked(..) => "the way was found",
        Event::Opened(..) => "the socket is open",
        Event::OpenFailed(..) => "the socket cannot be opened",
        Event::Dead(..) => "the socket is dead",
        Event::Stuck(_) => "the socket is stuck",
        Event::Timer(_) => "it was time",
        Event::Drained => "everything has left",
    }
}
