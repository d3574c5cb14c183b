//! Last words from the control thread's side: sets them up at the start, keeps the plan of who is
//! spoken to, and tells how things are. When the kernel panics it has no part in them.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufReader},
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};

use super::way::{SocketKey, WayOut};
use crate::{
    capture::LastWordsCapture,
    config,
    egress::{EgressKind, packet::AnyDevice},
    extradata::CgroupNames,
    last_words::{
        Beacon, DumpDesk, HoldState, Speaker, SpeakerParts, TEXT_BYTES, Understudy, find_panic_cpu,
        open_symbols,
        placement::Placement,
        plan::{Plan, Spoken, SpokenWay},
    },
    netoops::{Kind, PORT, TextRing},
    pump::LastWordsParts,
    target::{TargetSettings, state::Way as _},
};

/// What `status` tells.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(default)]
pub struct LastWordsStatus {
    /// What proves a panic; without a proof no line is held.
    pub proof: Option<String>,
    /// Why there is no better proof.
    pub why: Option<String>,
    /// How long a line is held without anything leaving; 0: not at all.
    pub hold_ms: u64,
    /// How long all lines together.
    pub budget_ms: u64,
    /// CPU of the understudy; without one nobody speaks when the pump's CPU panics.
    pub understudy_cpu: Option<u32>,
    /// Targets that would be spoken to now.
    pub targets: usize,
    /// Lines that were held: 0 as long as there was no panic.
    pub held: u64,
    /// Records that were sent as last words; not 0 only if the machine lived.
    pub spoken: u64,
    /// Dumps that were made.
    pub dumps: u64,
}

impl LastWordsStatus {
    /// What `status --verbose` says of it.
    pub(super) fn line(&self) -> String {
        let held = match &self.proof {
            Some(_) if self.hold_ms == 0 => "not held (hold = \"0s\")".to_owned(),
            Some(proof) => format!(
                "each held up to {} ms, {} ms in all, by proof of {proof}",
                self.hold_ms, self.budget_ms
            ),
            None => format!("not held ({})", self.why.as_deref().unwrap_or("nothing is known yet")),
        };
        let understudy = match self.understudy_cpu {
            Some(cpu) => format!("understudy on CPU {cpu}"),
            None => "no CPU for an understudy".to_owned(),
        };
        format!("last words: lines of a panic {held}; {understudy}; targets {}\n", self.targets)
    }
}

/// What is to be spoken to one target.
pub(super) struct Listener<'a> {
    /// Its number, which no other target ever has.
    pub(super) id: usize,
    /// Its index with the pump.
    pub(super) place: usize,
    pub(super) settings: &'a Arc<ArcSwap<TargetSettings>>,
    pub(super) way: &'a WayOut,
    pub(super) wants_dumps: bool,
}

/// By target, and by port if it is not the configured one.
type Sockets = BTreeMap<(usize, Option<u16>), (SocketKey, Arc<OwnedFd>)>;

/// See the module's description.
pub struct LastWords {
    parts: SpeakerParts,
    state: HoldState,
    limits: config::LastWords,
    placement: Option<Placement>,
    /// Sockets of the targets that are spoken to by UDP.
    sockets: Sockets,
    symbols: Option<io::Result<File>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl LastWords {
    /// Opens what needs privileges. Returns the pump's part and the understudy, which makes the dumps
    /// even where no CPU is left for it.
    pub(super) fn open(
        capture: Option<LastWordsCapture>,
        release: &[u8],
        cgroups: &Arc<ArcSwap<CgroupNames>>,
        shows_caller: bool,
        limits: config::LastWords,
        keeps_text: bool,
    ) -> (Self, LastWordsParts, Understudy) {
        let (alarm, views, state) = match capture {
            Some(LastWordsCapture { alarm, views, hook }) => {
                (Some(Arc::new(alarm)), views.map(Some), HoldState::of_hook(hook))
            }
            None => {
                let why = "this source has no programs that could tell of a panic".to_owned();
                (None, [None, None], HoldState::Off { why })
            }
        };
        let [pumps, understudys] = views;
        let text = TextRing::new(TEXT_BYTES);
        let parts = SpeakerParts {
            beacon: Arc::new(Beacon::default()),
            alarm,
            plan: Arc::default(),
            cgroups: Arc::clone(cgroups),
            shows_caller,
            dumps: Arc::default(),
            text: text.reader(),
            release: release.into(),
        };
        let devices = || {
            let opened = AnyDevice::open();
            opened.inspect_err(|error| {
                tracing::warn!(%error, "Last words go to targets with egress = \"udp\" alone (AF_PACKET needs CAP_NET_RAW).");
            }).ok()
        };
        let placement = parts.alarm.as_ref().and_then(|_| Placement::of_this_process());
        let stop = Arc::new(AtomicBool::new(false));
        let speaker = Speaker::new(understudys, parts.clone(), devices());
        let understudy = Understudy::new(speaker, parts.clone(), placement, Arc::clone(&stop));
        let speaker = Speaker::new(pumps, parts.clone(), devices());
        let pump = LastWordsParts { speaker, shared: parts.clone(), placement, text };
        // From the first record on: a dump holds what was logged before the start, too.
        parts.dumps.set_keeps_text(keeps_text);
        let mut this = Self {
            // Whether addresses are shown is decided when it is opened. A hook needs none of them.
            symbols: parts.alarm.as_ref().filter(|_| !state.is_on()).map(|_| open_symbols()),
            parts,
            state,
            limits,
            placement,
            sockets: BTreeMap::new(),
            stop,
            thread: None,
        };
        this.limit(limits);
        if this.state.is_on() {
            this.tell();
        }
        (this, pump, understudy)
    }

    /// Keeps the understudy's thread, to end it.
    pub(super) fn runs(&mut self, thread: JoinHandle<()>) {
        self.thread = Some(thread);
    }

    /// Whether the understudy has ended by itself.
    pub(super) fn has_ended(&self) -> bool {
        self.thread.as_ref().is_some_and(JoinHandle::is_finished)
    }

    /// Reads the kernel's symbols, if no hook tells of a panic. It takes tens of milliseconds: a task
    /// for another thread.
    pub(super) fn symbols(
        &mut self,
    ) -> Option<impl FnOnce() -> Result<u64, String> + Send + 'static> {
        let symbols = self.symbols.take()?;
        Some(|| {
            let file = symbols.map_err(|error| format!("/proc/kallsyms: {error}"))?;
            find_panic_cpu(BufReader::with_capacity(64 << 10, file))
        })
    }

    /// Takes what the symbols say.
    pub(super) fn found(&mut self, panic_cpu: &Result<u64, String>) {
        if let (Ok(address), Some(alarm)) = (panic_cpu, &self.parts.alarm) {
            alarm.set_panic_cpu_address(*address);
        }
        let off = HoldState::Off { why: String::new() };
        self.state = std::mem::replace(&mut self.state, off).with_panic_cpu(panic_cpu);
        self.tell();
    }

    /// Logs whether lines are held.
    fn tell(&self) {
        match (self.state.proof(), self.state.why()) {
            (Some(proof), _) => {
                tracing::info!(proof, "Lines of a panic are held until they have left.")
            }
            (None, why) => tracing::warn!(
                why,
                "Lines of a panic are not held: there is no proof of one, and its end may not get out."
            ),
        }
    }

    /// Holds lines so long.
    pub(super) fn limit(&mut self, limits: config::LastWords) {
        self.limits = limits;
        self.parts.alarm.iter().for_each(|alarm| alarm.set_limits(limits.hold, limits.budget));
    }

    /// Plans anew who is spoken to, and whether text is kept for dumps.
    pub(super) fn plan<'a>(
        &mut self,
        listeners: impl Iterator<Item = Listener<'a>>,
        keeps_text: bool,
    ) {
        self.parts.dumps.set_keeps_text(keeps_text);
        let before = std::mem::take(&mut self.sockets);
        let targets = listeners.filter_map(|listener| {
            let way = self.way(&before, &listener, None)?;
            let dump = listener.wants_dumps.then(|| self.way(&before, &listener, Some(PORT)));
            Some(Spoken {
                dump: dump.flatten(),
                place: listener.place,
                settings: Arc::clone(listener.settings),
                nic: listener.way.nic().into_bytes().into(),
                way,
            })
        });
        let plan = Plan { targets: targets.collect() };
        self.parts.dumps.set_wanted(plan.targets.iter().any(|target| target.dump.is_some()));
        self.parts.plan.store(Arc::new(plan));
    }

    /// The way to a target, with both ports as they are configured or this one.
    fn way(
        &mut self,
        before: &Sockets,
        listener: &Listener<'_>,
        port: Option<u16>,
    ) -> Option<SpokenWay> {
        let Listener { id, way, .. } = listener;
        let place = (*id, port);
        match (way.kind(), &way.hop) {
            (EgressKind::Xdp | EgressKind::Packet, Some(hop)) => {
                // Whether the headers can be made was checked when the way was found.
                let header = way.header_with(port).ok().flatten()?;
                Some(SpokenWay::Frames { ifindex: hop.ifindex, header: Box::new(header) })
            }
            (EgressKind::Udp, _) => {
                let key = way.key();
                let socket = match before.get(&place).filter(|(before, _)| *before == key) {
                    Some((_, socket)) => Arc::clone(socket),
                    None => match way.connected(port) {
                        Ok(socket) => Arc::new(socket),
                        Err(error) => {
                            tracing::debug!(%error, "A target is not spoken to in a panic.");
                            return None;
                        }
                    },
                };
                self.sockets.insert(place, (key, Arc::clone(&socket)));
                Some(SpokenWay::Udp(socket))
            }
            // Frames need a next hop; nobody listens to a file.
            (EgressKind::Xdp | EgressKind::Packet, None)
            | (EgressKind::Pcap | EgressKind::Memory, _) => None,
        }
    }

    /// How things are.
    pub(super) fn status(&self) -> LastWordsStatus {
        let ms = |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        LastWordsStatus {
            proof: self.state.proof().map(str::to_owned),
            why: self.state.why().map(str::to_owned),
            hold_ms: ms(self.limits.hold),
            budget_ms: ms(self.limits.budget),
            understudy_cpu: self.placement.map(|placement| placement.understudy()),
            targets: self.parts.plan.load().targets.len(),
            held: self.parts.alarm.as_ref().map_or(0, |alarm| alarm.held().lines),
            spoken: self.parts.beacon.spoken(),
            dumps: self.parts.dumps.dumps().0,
        }
    }

    /// Asks for a dump now; how many there were before, and where they are counted.
    ///
    /// # Errors
    /// If no target wants dumps, or none of them has, or had, a way.
    pub(super) fn ask_dump(&self) -> Result<(u64, Arc<DumpDesk>), String> {
        if !self.parts.dumps.is_wanted() {
            return Err("no target that has found a way has `dump = \"netoops\"`".to_owned());
        }
        let (before, _) = self.parts.dumps.dumps();
        self.parts.dumps.ask(Kind::Soft);
        self.thread.iter().for_each(|thread| thread.thread().unpark());
        Ok((before, Arc::clone(&self.parts.dumps)))
    }

    /// Ends the understudy.
    pub(super) fn end(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // It looks at the word at least every 18 ms; a panic in it has ended the process.
            let _ = thread.join();
        }
    }
}
