//! The running agent: starts the threads, serves the control socket, and ends in order.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
    sync::{Arc, atomic::Ordering},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use tokio::{
    io::{Interest, unix::AsyncFd},
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

use super::{
    manager::{HostFormat, Manager, seeds},
    socket::{self, Asked, Reply, Request},
    status::{CaptureStatus, Status},
};
use crate::{
    capture::{
        self, Capture, CaptureError, SourceReport,
        bpf::{MappedRing, NetdevHook, Probes},
        kmsg::KmsgStats,
        sequencer::RecordRing,
        wait::now_ns,
        wake::Waker,
    },
    cli::logging::Limited,
    config::Config,
    handover::handover,
    net::{NetError, Resolver},
    privileges,
    pump::{EGRESS_MAX, Pump, PumpParts, PumpStats},
    store::Store,
};

/// How long the pump may send what is left when the agent is told to stop.
const DRAIN_PATIENCE: Duration = Duration::from_secs(2);
/// Stack of the data threads; all of it is locked, so it is not larger than needed.
const STACK_BYTES: usize = 256 << 10;
/// Housekeeping: boxes that came back are dropped, dead threads are noticed.
const TICK: Duration = Duration::from_secs(1);

/// Why the agent cannot run.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// No source of records.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// The control socket.
    #[error(transparent)]
    Socket(#[from] socket::SocketError),
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
    #[error("the {0} thread has ended by itself, which is a defect of the agent")]
    ThreadEnded(&'static str),
}

fn system(operation: &'static str) -> impl Fn(io::Error) -> AgentError {
    move |source| AgentError::System { operation, source }
}

/// Everything that was opened while the process had its start-up privileges.
pub struct Agent {
    config: Config,
    started: Instant,
    source: SourceReport,
    first_seq: u64,
    probes: Option<Probes>,
    netdev: NetdevSource,
    pump_waker: Arc<Waker>,
    pump_stats: Arc<PumpStats>,
    kmsg_stats: Arc<KmsgStats>,
    kmsg_waker: Arc<Waker>,
    kmsg_stop: Arc<std::sync::atomic::AtomicBool>,
    pump_thread: JoinHandle<()>,
    kmsg_thread: JoinHandle<()>,
    listener: std::os::unix::net::UnixListener,
    ledgers: Vec<Arc<crate::ledger::SharedLedger>>,
    control: crate::handover::ControlEnd<crate::pump::Command, crate::pump::Returned>,
}

/// Where events of network devices come from.
enum NetdevSource {
    Program { hook: NetdevHook, fd: OwnedFd, ring: MappedRing },
    Netlink { why: String },
}

impl NetdevSource {
    fn open(probes: Option<&mut Probes>) -> Self {
        let Some(probes) = probes else {
            return Self::Netlink { why: "no eBPF programs are in use".to_owned() };
        };
        match probes.attach_netdev().and_then(|hook| Ok((hook, probes.take_netdev_events()?))) {
            Ok((hook, (fd, ring))) => Self::Program { hook, fd, ring },
            Err(error) => Self::Netlink { why: error.to_string() },
        }
    }

    fn describe(&self) -> String {
        match self {
            Self::Program { hook: NetdevHook::Fentry, .. } => {
                "fentry call_netdevice_notifiers_info".to_owned()
            }
            Self::Program { hook: NetdevHook::Kprobe, .. } => {
                "kprobe call_netdevice_notifiers_info".to_owned()
            }
            Self::Netlink { why } => format!("rtnetlink ({why})"),
        }
    }
}

impl Agent {
    /// Opens the source and the control socket, gives up privileges, and starts
    /// the data threads.
    ///
    /// # Errors
    /// If any of it is not possible.
    pub fn start(config: Config) -> Result<Self, AgentError> {
        let started = Instant::now();
        let listener = socket::bind(&config.agent.control_socket)?;
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
            first_seq,
            shows_caller,
        } = capture::open(config.agent.capture, config.agent.ring_bytes)?;
        tracing::info!(
            source = report.kind.name(),
            hook = report.hook.map(|hook| hook.name()),
            reason = %report.reason,
            first_seq,
            "Records are captured."
        );
        let netdev = NetdevSource::open(probes.as_mut());
        if let Some(probes) = &mut probes {
            probes.finish_attaching();
        }
        tracing::info!(by = netdev.describe(), "Events of network devices are watched.");

        let seeds = seeds(&config, &HostFormat::of_this_host(shows_caller));
        let ledgers = seeds.iter().map(|seed| Arc::clone(&seed.ledger)).collect();
        let capacity = 2 * EGRESS_MAX + 2 * seeds.len() + 8;
        let (control, pump_end) = handover(capacity);
        let pump_stats = Arc::new(PumpStats::default());
        let mut pump = Pump::new(PumpParts {
            ring,
            doorbell,
            kmsg,
            waker: Arc::clone(&pump_waker),
            sequencer,
            store: Store::new(config.agent.store_bytes, first_seq),
            handover: pump_end,
            targets: seeds,
            stats: Arc::clone(&pump_stats),
        })
        .map_err(system("set up the pump"))?;

        privileges::drop_start_up_privileges()?;
        lock_memory();
        let spawn = |name: &str, run: Box<dyn FnOnce() + Send>| {
            std::thread::Builder::new().name(name.to_owned()).stack_size(STACK_BYTES).spawn(run)
        };
        let pump_thread = spawn("pump", Box::new(move || pump.run()))
            .map_err(system("start the pump thread"))?;
        let kmsg_thread = spawn(
            "kmsg",
            Box::new(move || {
                if let Err(error) = kmsg_thread.run() {
                    tracing::error!(%error, "The /dev/kmsg thread cannot wait and ends.");
                }
            }),
        )
        .map_err(system("start the /dev/kmsg thread"))?;
        Ok(Self {
            config,
            started,
            source: report,
            first_seq,
            probes,
            netdev,
            pump_waker,
            pump_stats,
            kmsg_stats,
            kmsg_waker,
            kmsg_stop,
            pump_thread,
            kmsg_thread,
            listener,
            ledgers,
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
        let netdev = std::mem::replace(
            &mut self.netdev,
            NetdevSource::Netlink { why: String::new() },
        );
        let netdev_by = netdev.describe();
        tokio::spawn(log_netdev_events(netdev));

        let (asked_sender, mut asked) = mpsc::channel::<Asked>(16);
        let listener = self.listener.try_clone().and_then(tokio::net::UnixListener::from_std);
        let listener = listener.map_err(system("listen on the control socket"))?;
        tokio::spawn(socket::serve(listener, asked_sender));

        let mut manager = Manager::new(
            &self.config,
            std::mem::take(&mut self.ledgers),
            self.control,
            Arc::clone(&self.pump_waker),
            Resolver::new()?,
        );
        let control = ControlView {
            started: self.started,
            source: &self.source,
            first_seq: self.first_seq,
            netdev_by,
            probes: self.probes.as_ref(),
            pump_stats: &self.pump_stats,
            kmsg_stats: &self.kmsg_stats,
        };
        let mut retry_at = manager.retry_waiting().await;
        // Not under systemd: then nobody is to be told.
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
        loop {
            let until_retry = retry_at
                .map_or(TICK, |at| at.saturating_duration_since(Instant::now()).min(TICK));
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = hang_up.recv() => {
                    tracing::warn!("SIGHUP is ignored: reloading is not supported yet, restart the agent.");
                }
                Some((request, answer)) = asked.recv() => {
                    let reply = match request {
                        Request::Status { .. } => Reply {
                            ok: true,
                            error: None,
                            status: Some(Box::new(control.status(&manager))),
                        },
                        Request::Resolve { target, .. } => {
                            match manager.resolve(target.as_deref()).await {
                                Ok(()) => Reply::done(),
                                Err(error) => Reply::refused(error),
                            }
                        }
                    };
                    // The client may have gone away.
                    let _ = answer.send(reply);
                }
                () = flush_log(&mut programs_log) => {}
                () = tokio::time::sleep(until_retry) => {}
            }
            retry_at = manager.retry_waiting().await;
            if self.pump_thread.is_finished() {
                return Err(AgentError::ThreadEnded("pump"));
            }
        }
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
        tracing::info!("Told to stop; sending what is left.");
        let deadline_ns = now_ns() + DRAIN_PATIENCE.as_nanos() as u64;
        if manager.stop_pump(deadline_ns).is_ok() {
            while !self.pump_thread.is_finished() && now_ns() < deadline_ns + 500_000_000 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        self.kmsg_stop.store(true, Ordering::Release);
        self.kmsg_waker.wake();
        while !self.kmsg_thread.is_finished() && now_ns() < deadline_ns + 500_000_000 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        manager.close_returned();
        manager.log_accounts();
        // A later start replaces it; leaving it would only look odd.
        let _ = std::fs::remove_file(&self.config.agent.control_socket);
        Ok(())
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

/// What `status` looks at besides the targets.
struct ControlView<'a> {
    started: Instant,
    source: &'a SourceReport,
    first_seq: u64,
    netdev_by: String,
    probes: Option<&'a Probes>,
    pump_stats: &'a PumpStats,
    kmsg_stats: &'a KmsgStats,
}

impl ControlView<'_> {
    fn status(&self, manager: &Manager) -> Status {
        let programs = self.probes.map(Probes::counters).unwrap_or_default();
        let (pump, kmsg) = (self.pump_stats, self.kmsg_stats);
        let errno = kmsg.failed_errno.load(Ordering::Relaxed);
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_s: self.started.elapsed().as_secs(),
            capture: CaptureStatus {
                source: self.source.kind.name().to_owned(),
                hook: self.source.hook.map(|hook| hook.name().to_owned()),
                reason: self.source.reason.clone(),
                netdev_events: self.netdev_by.clone(),
                first_seq: self.first_seq,
                captured: programs.captured,
                ring_full: programs.ring_full,
                read_errors: programs.read_error,
                recursion_misses: programs.recursion_misses,
                kmsg_read: kmsg.read.load(Ordering::Relaxed),
                kmsg_overwritten: kmsg.overwritten.load(Ordering::Relaxed),
                kmsg_failed: (errno != 0)
                    .then(|| io::Error::from_raw_os_error(errno as i32).to_string()),
                approximated: pump.approximated.load(Ordering::Relaxed),
                without_context: pump.without_context.load(Ordering::Relaxed),
                malformed: pump.malformed.load(Ordering::Relaxed),
                mismatched: pump.mismatched.load(Ordering::Relaxed),
                wakeups: pump.wakeups.load(Ordering::Relaxed)
                    + kmsg.wakeups.load(Ordering::Relaxed),
            },
            targets: manager.status(),
        }
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

/// Logs events of network devices, a few a minute in full and the rest as a count.
async fn log_netdev_events(source: NetdevSource) {
    let mut limit = Limited::to_one_per(Duration::from_secs(1));
    let mut tell = |event: String, ifindex: Option<u32>, name: Option<String>| {
        if let Some(suppressed) = limit.allow(Instant::now()) {
            tracing::info!(event, ifindex, name, suppressed, "A network device changed.");
        }
    };
    match source {
        NetdevSource::Program { fd, mut ring, .. } => {
            let Ok(fd) = readable_events(fd) else { return };
            loop {
                let Ok(mut ready) = fd.readable().await else { return };
                while let Some(item) = ring.next() {
                    if let Some((event, ifindex, name)) = netdev_event(ring.bytes(item)) {
                        tell(event_name(event), Some(ifindex), Some(name));
                    }
                    ring.release(item.end);
                }
                ready.clear_ready();
            }
        }
        NetdevSource::Netlink { .. } => match crate::net::links::watch() {
            Ok(mut events) => {
                use futures_util::StreamExt as _;
                while let Some(event) = events.next().await {
                    tell(format!("{:?}", event.kind), event.ifindex, event.name);
                }
            }
            Err(error) => tracing::warn!(%error, "Network devices are not watched."),
        },
    }
}

/// Registers a descriptor with tokio's reactor.
fn readable_events<T: AsRawFd>(source: T) -> io::Result<AsyncFd<T>> {
    #[expect(
        deprecated,
        reason = "its replacement is unsafe; the sources here own their descriptor and never change it"
    )]
    AsyncFd::with_interest(source, Interest::READABLE)
}

/// Reads an [`agent_common::NetdevEvent`].
fn netdev_event(bytes: &[u8]) -> Option<(u32, u32, String)> {
    let word = |at: usize| Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let name = bytes.get(16..32)?.split(|byte| *byte == 0).next()?;
    Some((word(8)?, word(12)?, String::from_utf8_lossy(name).into_owned()))
}

/// Names of `enum netdev_cmd` (`include/linux/netdevice.h`; its order has not
/// changed since 4.17, new ones are appended).
fn event_name(event: u32) -> String {
    let name = match event {
        1 => "UP",
        2 => "DOWN",
        3 => "REBOOT",
        4 => "CHANGE",
        5 => "REGISTER",
        6 => "UNREGISTER",
        7 => "CHANGEMTU",
        8 => "CHANGEADDR",
        9 => "PRE_CHANGEADDR",
        10 => "GOING_DOWN",
        11 => "CHANGENAME",
        _ => return format!("NETDEV event {event}"),
    };
    name.to_owned()
}

