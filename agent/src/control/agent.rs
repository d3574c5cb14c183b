//! The running agent: starts the threads, serves the control socket, and ends in order.

use std::{
    io,
    sync::{Arc, atomic::Ordering},
    thread::JoinHandle,
    time::{Duration, Instant, SystemTime},
};

use tokio::{
    io::unix::AsyncFd,
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

use super::{
    desk::Desk,
    last_words::LastWords,
    manager::{Manager, after_crash::AfterCrash, extradata::ExtraData, targets::open_checkpoint},
    metrics::{self, server::MetricsError},
    netdev::{self, NetdevSource, readable_events},
    progress::{Progress, Watchdog},
    protocol::{Reply, Request},
    settings::{HostFormat, Prepared, SettingsError, SettingsMaker},
    socket::{self, Asked, Refusals, SocketUse},
    view::ControlView,
};
use crate::{
    capture::{
        self, Capture, CaptureError, SourceReport, bpf::Probes, kmsg::KmsgStats, sequencer::Begin,
        wait::now_ns, wake::Waker,
    },
    checkpoint::Checkpoints,
    config::{self, Config, Sources},
    handover::handover,
    net::{NetError, Resolver},
    privileges,
    pump::{Command, EGRESS_MAX, Pump, PumpParts, PumpStats, TARGETS_MAX},
    store::Store,
};

/// How long the pump may send what is left when the agent is told to stop.
const DRAIN_PATIENCE: Duration = Duration::from_secs(2);
/// Stack of the data threads; all of it is locked, so it is not larger than needed.
const STACK_BYTES: usize = 256 << 10;
/// Changes of the network that wait to be looked at. When there are more, the
/// kernel's socket buffer overflows in the end, and everything is looked at anew.
const CHANGES_QUEUED: usize = 256;

/// How long after the start the kernel's symbols are read.
const SYMBOLS_AFTER: Duration = Duration::from_secs(1);

/// Most boxes that the pump holds: sockets, and per target itself, its route, a tap and some
/// messages.
const BOXES_LENT: usize = 2 * EGRESS_MAX + 8 * TARGETS_MAX;

/// Why the agent cannot run.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// No source of records.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// Settings of a target.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The control socket.
    #[error(transparent)]
    Socket(#[from] socket::SocketError),
    /// Capabilities that are missing.
    #[error(transparent)]
    Unprivileged(#[from] privileges::Unprivileged),
    /// Capabilities.
    #[error(transparent)]
    Privilege(#[from] privileges::PrivilegeError),
    /// Netlink.
    #[error(transparent)]
    Net(#[from] NetError),
    /// A thread or a descriptor.
    #[error("cannot {operation}: {source}")]
    System {
        /// What was tried.
        operation: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A data thread is gone.
    #[error("the {0} thread has ended by itself; the agent must be started again")]
    ThreadEnded(&'static str),
}

fn system(operation: &'static str) -> impl Fn(io::Error) -> AgentError {
    move |source| AgentError::System { operation, source }
}

/// Everything that was opened while the process had its start-up privileges.
pub struct Agent {
    sources: Sources,
    config: Config,
    started: Instant,
    metrics: Option<Result<metrics::server::Listening, MetricsError>>,
    source: SourceReport,
    begin: Begin,
    checkpoints: Option<Checkpoints>,
    after_crash: AfterCrash,
    probes: Option<Probes>,
    netdev: NetdevSource,
    pump_waker: Arc<Waker>,
    pump_stats: Arc<PumpStats>,
    kmsg_stats: Arc<KmsgStats>,
    kmsg_waker: Arc<Waker>,
    kmsg_stop: Arc<std::sync::atomic::AtomicBool>,
    pump_thread: JoinHandle<()>,
    kmsg_thread: JoinHandle<()>,
    last_words: Option<LastWords>,
    listener: socket::Listening,
    host_format: HostFormat,
    extradata: ExtraData,
    targets: Vec<(config::Target, Prepared)>,
    control: crate::handover::ControlEnd<crate::pump::Command, crate::pump::Returned>,
}

impl Agent {
    /// Opens the source and the control socket, gives up privileges, and starts
    /// the data threads.
    ///
    /// # Errors
    /// If any of it is not possible.
    pub fn start(sources: Sources, config: Config) -> Result<Self, AgentError> {
        let started = Instant::now();
        privileges::check(&config)?;
        let group = config.agent.control_group.as_deref();
        let listener = socket::bind(SocketUse::Control, &config.agent.control_socket, group)?;
        // Who sends is worth more than who counts: without the endpoint it runs all the same.
        let metrics = config.agent.metrics.as_ref().map(|to| metrics::server::bind(to, group));
        if let Some(Err(error)) = &metrics {
            tracing::error!(%error, "Metrics are not served.");
        }
        let checkpoints = Checkpoints::open(&config.agent.runtime_dir);
        let checkpoints = checkpoints
            .inspect_err(|error| tracing::warn!(%error, "No target has a checkpoint."))
            .ok();
        if let Some(Ok(false)) = checkpoints.as_ref().map(Checkpoints::are_in_memory) {
            tracing::warn!(
                runtime_dir = %config.agent.runtime_dir.display(),
                "The checkpoints are on a disk, for which sending may have to wait; `runtime_dir` should be in memory, as /run is."
            );
        }
        let after_crash = AfterCrash::look(&config.agent.state_dir, config.wants_after_crash());
        let opened = |target: &config::Target| open_checkpoint(checkpoints.as_ref(), &target.name);
        let (kept, ended_at): (Vec<_>, Vec<_>) = config.targets.iter().map(opened).unzip();
        let Capture {
            report,
            mut probes,
            ring,
            doorbell,
            kmsg,
            sequencer,
            pump_waker,
            kmsg_thread,
            kmsg_stop,
            kmsg_waker,
            kmsg_stats,
            backfill,
            begin,
            targets_first_seq,
            shows_caller,
            last_words,
        } = capture::open(
            config.agent.capture,
            config.agent.ring_bytes,
            config.agent.replay,
            &ended_at,
        )?;
        tracing::info!(
            source = report.kind.name(),
            hook = report.hook.map(|hook| hook.name()),
            reason = %report.reason,
            replay = config.agent.replay.name(),
            first_seq = begin.first_seq,
            live_seq = begin.live_seq,
            "Records are captured."
        );
        let netdev = NetdevSource::open(probes.as_mut());
        if let Some(probes) = &mut probes {
            probes.attached_all();
        }
        tracing::info!(by = netdev.describe(), "Events of network devices are watched.");

        let host_format = HostFormat::of_this_host(shows_caller);
        let (extradata, (cgroups, unnamed)) = ExtraData::new(&config.targets);
        let mut maker = SettingsMaker::new(&host_format, extradata.values());
        let mut targets = Vec::new();
        if config.targets.len() > TARGETS_MAX {
            return Err(SettingsError::TooMany { targets: config.targets.len() }.into());
        }
        for target in &config.targets {
            // It may read files for values.
            let settings = privileges::as_after_the_start(|| maker.settings(target, None))?;
            targets.push((target.clone(), Prepared::new(settings)));
        }
        for warning in &maker.warnings {
            tracing::warn!(warning, "Extra data is incomplete.");
        }
        let (mut control, pump_end) = handover(BOXES_LENT);
        let begins = kept.into_iter().zip(targets_first_seq);
        for ((index, (_, shared)), (checkpoint, first_seq)) in
            targets.iter().enumerate().zip(begins)
        {
            let target = shared.for_the_pump(Some(first_seq), checkpoint);
            // The ring holds more than there may be targets.
            let _ = control.send(Command::Add { index, target }, 1);
        }
        let pump_stats = Arc::new(PumpStats::default());
        let (mut last_words, pump_last_words, mut understudy) = LastWords::open(
            last_words,
            host_format.release(),
            &cgroups,
            shows_caller,
            config.last_words,
            config.targets.iter().any(|target| target.netoops),
        );
        let mut pump = Pump::new(PumpParts {
            ring,
            doorbell,
            kmsg,
            backfill,
            waker: Arc::clone(&pump_waker),
            sequencer,
            store: Store::new(config.agent.store_bytes, begin.first_seq),
            handover: pump_end,
            cgroups,
            unnamed,
            stats: Arc::clone(&pump_stats),
            last_words: Some(pump_last_words),
        })
        .map_err(system("set up the pump"))?;

        privileges::drop_start_up_privileges()?;
        lock_memory();
        let spawn = |name: &str, run: Box<dyn FnOnce() + Send>| {
            std::thread::Builder::new().name(name.to_owned()).stack_size(STACK_BYTES).spawn(run)
        };
        let pump_thread =
            spawn("pump", Box::new(move || pump.run())).map_err(system("start the pump thread"))?;
        let thread = spawn("understudy", Box::new(move || understudy.run()));
        last_words.runs(thread.map_err(system("start the understudy thread"))?);
        let kmsg_thread = spawn(
            "kmsg",
            Box::new(move || {
                if let Err(error) = kmsg_thread.run() {
                    tracing::error!(%error, "The /dev/kmsg thread ends.");
                }
            }),
        )
        .map_err(system("start the /dev/kmsg thread"))?;
        Ok(Self {
            sources,
            config,
            started,
            metrics,
            source: report,
            begin,
            checkpoints,
            after_crash,
            probes,
            netdev,
            pump_waker,
            pump_stats,
            kmsg_stats,
            kmsg_waker,
            kmsg_stop,
            pump_thread,
            kmsg_thread,
            last_words: Some(last_words),
            listener,
            host_format,
            extradata,
            targets,
            control,
        })
    }

    /// Serves until SIGTERM or SIGINT, then drains and returns.
    ///
    /// # Errors
    /// If the control thread cannot work, or a data thread has ended.
    pub async fn run(mut self) -> Result<(), AgentError> {
        let mut terminate = signal(SignalKind::terminate()).map_err(system("watch SIGTERM"))?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(system("watch SIGINT"))?;
        let mut hang_up = signal(SignalKind::hangup()).map_err(system("watch SIGHUP"))?;
        let mut programs_log = self.programs_log();
        let netdev =
            std::mem::replace(&mut self.netdev, NetdevSource::Netlink { why: String::new() });
        let netdev_by = netdev.describe();
        let (changes_sender, changes) = mpsc::channel(CHANGES_QUEUED);
        tokio::spawn(netdev::watch(netdev, changes_sender));

        let (asked_sender, mut asked) = mpsc::channel::<Asked>(16);
        let listener =
            self.listener.socket.try_clone().and_then(tokio::net::UnixListener::from_std);
        let listener = listener.map_err(system("listen on the control socket"))?;
        let refusals = Arc::new(Refusals::default());
        let access = self.listener.access;
        tokio::spawn(socket::serve(listener, access, asked_sender, Arc::clone(&refusals)));

        let (asked_pages, mut pages) = mpsc::channel(16);
        let mut metrics_error = None;
        let metrics_file = self.metrics.iter().flatten().find_map(|metrics| metrics.file());
        match self.metrics.take() {
            Some(Ok(listening)) => drop(tokio::spawn(async move {
                if let Err(error) = metrics::server::serve(listening, asked_pages).await {
                    tracing::error!(%error, "Metrics are not served.");
                }
            })),
            Some(Err(error)) => metrics_error = Some(error.to_string()),
            None => {}
        }

        let mut manager = Manager::new(
            (self.host_format, self.extradata),
            self.checkpoints,
            self.after_crash,
            self.control,
            (Arc::clone(&self.pump_waker), Arc::clone(&self.pump_stats)),
            Resolver::new()?,
            changes,
        );
        manager.adopt(std::mem::take(&mut self.targets));
        let symbols = self.last_words.as_mut().and_then(LastWords::symbols);
        // It takes a CPU for tens of milliseconds, which the first records need more.
        let mut symbols = symbols.map(|read| {
            Box::pin(async {
                tokio::time::sleep(SYMBOLS_AFTER).await;
                let read = tokio::task::spawn_blocking(read).await;
                read.unwrap_or_else(|error| Err(format!("/proc/kallsyms: {error}")))
            })
        });
        self.last_words.take().into_iter().for_each(|words| manager.has_last_words(words));
        let mut desk = Desk::new(self.sources, self.config.agent.clone());
        let control = ControlView {
            started: self.started,
            source: &self.source,
            begin: self.begin,
            netdev_by,
            probes: self.probes.as_ref(),
            pump_stats: &self.pump_stats,
            kmsg_stats: &self.kmsg_stats,
            refusals: &refusals,
            started_at: SystemTime::now(),
            store_bytes: self.config.agent.store_bytes,
            metrics_error,
        };
        let mut progress = Progress::new(Instant::now());
        let mut watchdog = Watchdog::of_this_service();
        let turns = || control.turns();
        // Records are captured and stored from here on, so the service is ready;
        // a target that has to wait for its network must not hold up the boot.
        // Not under systemd: then nobody is to be told.
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
        let ended = loop {
            tokio::select! {
                _ = terminate.recv() => break Ok(()),
                _ = interrupt.recv() => break Ok(()),
                _ = hang_up.recv() => drop(desk.reload(&mut manager)),
                Some(asked) = asked.recv() => {
                    if asked.request == Request::Status {
                        let status = Some(Box::new(control.status(&manager, &desk)));
                        // A client that has gone away needs no answer.
                        let _ = asked.answer.send(Reply { status, ..Reply::done() }.into());
                    } else {
                        desk.serve(asked, &mut manager);
                    }
                }
                Some(asked) = pages.recv() => {
                    progress.look(Instant::now(), turns());
                    // A client that has gone away needs no answer.
                    let _ = asked.answer.send(control.page(asked.question, &manager, &desk, &progress));
                }
                panic_cpu = answer_of(&mut symbols) => {
                    manager.last_words().into_iter().for_each(|words| words.found(&panic_cpu));
                }
                () = watchdog.due() => watchdog.tick(turns()),
                () = desk.revert_level() => {}
                () = flush_log(&mut programs_log) => {}
                // At least once a second.
                () = manager.work() => {}
            }
            progress.look(Instant::now(), turns());
            if self.pump_thread.is_finished() {
                break Err(AgentError::ThreadEnded("pump"));
            }
            if manager.last_words().is_some_and(|words| words.has_ended()) {
                return Err(AgentError::ThreadEnded("understudy"));
            }
            if self.kmsg_thread.is_finished() {
                break Err(AgentError::ThreadEnded("/dev/kmsg"));
            }
        };
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
        match &ended {
            Ok(()) => tracing::info!("Told to stop; sending what is left."),
            Err(error) => tracing::error!(%error, "Sending what is left."),
        }
        let deadline_ns = now_ns() + DRAIN_PATIENCE.as_nanos() as u64;
        manager.stop_pump(deadline_ns);
        while !self.pump_thread.is_finished() && now_ns() < deadline_ns + 500_000_000 {
            manager.take_back();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.kmsg_stop.store(true, Ordering::Release);
        self.kmsg_waker.wake();
        while !self.kmsg_thread.is_finished() && now_ns() < deadline_ns + 500_000_000 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        manager.take_back();
        manager.last_words().into_iter().for_each(LastWords::end);
        manager.finish_after_crash().await;
        manager.log_accounts();
        // A later start replaces it; leaving it would only look odd.
        let _ = std::fs::remove_file(&self.config.agent.control_socket);
        metrics_file.into_iter().for_each(|file| drop(std::fs::remove_file(file)));
        ended
    }

    /// The programs' own messages, if there are programs.
    fn programs_log(&mut self) -> Option<ProgramsLog> {
        let logger = self.probes.as_mut()?.take_log();
        match logger {
            Ok(logger) => readable_events(logger).ok(),
            Err(error) => {
                tracing::debug!(%error, "The programs have no messages of their own.");
                None
            }
        }
    }
}

/// Waits for what the kernel's symbols say, once.
async fn answer_of<A>(symbols: &mut Option<impl Future<Output = A> + Unpin>) -> A {
    let Some(running) = symbols else { return std::future::pending().await };
    let answer = running.await;
    *symbols = None;
    answer
}

type ProgramsLog = AsyncFd<aya_log::EbpfLogger<&'static dyn log::Log>>;

async fn flush_log(log: &mut Option<ProgramsLog>) {
    match log {
        Some(log) => {
            if let Ok(mut ready) = log.readable_mut().await {
                ready.get_inner_mut().flush();
                ready.clear_ready();
            }
        }
        None => std::future::pending().await,
    }
}

/// Keeps what the data path touches in memory. Pages are locked as they are
/// touched, so unused stacks and code cost nothing.
fn lock_memory() {
    use rustix::mm::{MlockAllFlags, mlockall};
    let flags = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
    if let Err(error) = mlockall(flags) {
        tracing::warn!(
            error = %error,
            "Memory cannot be locked; under memory pressure records may be late (needs CAP_IPC_LOCK or LimitMEMLOCK=infinity)."
        );
    }
}
