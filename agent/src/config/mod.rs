//! The configuration: TOML files in layers, read whole and checked whole.
//!
//! [`Sources`] holds the texts (`agent.toml`, the drop-ins, what was changed live), and turns
//! them into [`Config`], or into a report of everything that is wrong with them, each problem
//! at its place. It looks at the text alone, unless it is asked to look at this host, too
//! ([`Sources::check_on_host`]). All keys are defined in `keys.rs`.

mod address;
mod diagnostic;
mod duplicate;
mod example;
mod extradata;
mod files;
mod filter;
mod host;
mod keys;
mod kind;
mod live;
mod manual;
mod merge;
mod metrics;
mod pace;
mod places;
mod read;
mod remote;
mod schema;
mod secrets;
mod show;
mod source;
mod table;
mod target;
mod values;

use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

pub use diagnostic::{ConfigError, Diagnostic, OtherPlace, Severity, Warnings};
pub use example::example;
pub use live::LiveChange;
pub use manual::{PAGE, manual};
pub use remote::Remote;
pub use schema::schema;
pub use show::{MASK, Shown};
pub use source::{Place, Role, Source, Sources};

use crate::{
    capture::{Choice, Replay},
    egress::EgressKind,
    netconsole::{FormatKind, Sysdata},
    target::filter::spec::{Rate, Rule},
};

/// Port of the receiver, unless the configuration says otherwise (`A.3` of
/// netconsole's defaults, `drivers/net/netconsole.c`).
pub const DEFAULT_REMOTE_PORT: u16 = 6666;
/// Source port, unless the configuration says otherwise.
pub const DEFAULT_LOCAL_PORT: u16 = 6665;
/// Datagrams per second, unless the configuration says otherwise: with 50 µs between
/// them netconsd's receive buffer (200 KB) lost nothing.
pub const DEFAULT_PACE_PER_SECOND: u32 = 20_000;

/// A checked configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// `[agent]`.
    pub agent: Agent,
    /// `[last_words]`.
    pub last_words: LastWords,
    /// `[target.NAME]`, in the order of the files; then those that were added live.
    pub targets: Vec<Target>,
    /// Targets of the files that were removed live.
    pub removed: Vec<String>,
    /// What is probably not meant so.
    pub warnings: Warnings,
}

impl Config {
    /// Whether a target is sent what earlier boots left when they crashed.
    #[must_use]
    pub fn wants_after_crash(&self) -> bool {
        self.targets.iter().any(|target| target.after_crash)
    }
}

/// Settings of the agent itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agent {
    /// Path of the control socket.
    pub control_socket: PathBuf,
    /// Group whose members may ask the agent things; only root if `None`.
    pub control_group: Option<String>,
    /// Which source of records.
    pub capture: Choice,
    /// What is sent of what was logged before the start.
    pub replay: Replay,
    /// Folder of the targets' checkpoints.
    pub runtime_dir: PathBuf,
    /// Folder of what must outlive a reboot.
    pub state_dir: PathBuf,
    /// Size of the record store in bytes.
    pub store_bytes: usize,
    /// Size of the BPF ring buffer in bytes, a power of two.
    pub ring_bytes: u32,
    /// Where metrics and health are served; nowhere if `None`.
    pub metrics: Option<MetricsAddress>,
}

/// What is done while the kernel panics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastWords {
    /// How long a line waits without anything leaving the host; zero: not at all.
    pub hold: Duration,
    /// How long all lines may wait together.
    pub budget: Duration,
}

impl Default for LastWords {
    fn default() -> Self {
        Self { hold: Duration::from_millis(20), budget: Duration::from_millis(500) }
    }
}

/// Where metrics and health are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetricsAddress {
    /// A loopback address.
    Tcp(SocketAddr),
    /// A Unix socket, for root and the control group.
    Unix(PathBuf),
}

impl Default for Agent {
    fn default() -> Self {
        Self {
            control_socket: PathBuf::from("/run/netconsole-agent/control.sock"),
            control_group: None,
            capture: Choice::Auto,
            replay: Replay::Resume,
            runtime_dir: PathBuf::from("/run/netconsole-agent"),
            state_dir: PathBuf::from("/var/lib/netconsole-agent"),
            store_bytes: 16 << 20,
            ring_bytes: 8 << 20,
            metrics: None,
        }
    }
}

/// Settings of one target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its name.
    pub name: String,
    /// Whether it is switched on when it is new.
    pub enabled: bool,
    /// The receiver.
    pub remote: Remote,
    /// Device to send through, by name or by MAC (lower case, with colons); the
    /// route decides if `None`.
    pub device: Option<String>,
    /// Way out; `None` is `auto`.
    pub egress: Option<EgressKind>,
    /// File of the `pcap` egress.
    pub pcap: Option<PathBuf>,
    /// Transmit queue of the `xdp` egress.
    pub queue: u32,
    /// Wire format.
    pub format: FormatKind,
    /// Put the kernel release before each header.
    pub release: bool,
    /// Least severe level that is sent.
    pub max_level: u8,
    /// Facilities that are sent; all if `None`.
    pub facilities: Option<Vec<u8>>,
    /// Rules, the first that matches decides.
    pub filter: Vec<Rule>,
    /// Most records in a time, besides those of an oops or panic.
    pub rate: Option<Rate>,
    /// How often it says that it is alive.
    pub keepalive: Option<Duration>,
    /// Whether it is sent what earlier boots left when they crashed.
    pub after_crash: bool,
    /// Source address; the route decides if `None`.
    pub local_ip: Option<IpAddr>,
    /// Source port.
    pub local_port: u16,
    /// MAC of the next hop; the neighbour table decides if `None`.
    pub remote_mac: Option<[u8; 6]>,
    /// Most datagrams per second in the long run; no limit if `None`.
    pub pace: Option<u32>,
    /// How often a severe record is sent.
    pub copies: u8,
    /// Whether dumps in the netoops format are sent.
    pub netoops: bool,
    /// Keys and values that are added to each record, in the order of the file. A value may be
    /// a template ([`crate::extradata::template_syntax`]): `{file:/etc/rack}`, `{env:JOB}`.
    pub userdata: Vec<(String, String)>,
    /// Lines that the agent adds by itself.
    pub sysdata: Sysdata,
    /// Keys that were changed live (`max_level`, `userdata.rack`, also one that was removed);
    /// all of its keys, `remote` included, if the target itself was added live.
    pub live: Vec<String>,
}

impl Target {
    /// Whether the records of both leave by the same way to the same receiver.
    #[must_use]
    pub fn has_same_way(&self, other: &Self) -> bool {
        let way = |target: &Self| {
            let local = (target.local_ip, target.local_port);
            (target.egress, target.queue, local, target.remote_mac)
        };
        way(self) == way(other)
            && self.remote == other.remote
            && self.device == other.device
            && self.pcap == other.pcap
    }
}

/// Reads and checks a file and the drop-ins beside it.
///
/// # Errors
/// If a file cannot be read, or with everything that is wrong in them.
pub fn load(path: &Path) -> Result<Config, ConfigError> {
    Sources::read(&Place::File(path.to_owned()))?.check()
}

/// Checks one text that is no file.
///
/// # Errors
/// With everything that is wrong in it; `name` is what the report calls it.
pub fn parse(text: &str, name: &str) -> Result<Config, ConfigError> {
    let source = Source { name: name.to_owned(), text: text.to_owned(), role: Role::Main };
    Sources::of_texts(vec![source]).check()
}

#[cfg(test)]
mod tests;
