//! The configuration: one TOML file, read whole and checked whole.
//!
//! [`parse`] turns text into [`Config`], or into a report of everything that is wrong
//! with it, each problem at its place. It looks at the text alone: whether a
//! device exists is not its business. The keys are those of the README.

mod address;
mod diagnostic;
mod extradata;
mod pace;
mod read;
mod remote;
mod table;

use std::{
    fs::File,
    io::{self, Read as _},
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

pub use diagnostic::{ConfigError, Diagnostic, Severity, Warnings};
pub use remote::Remote;

use crate::{
    capture::Choice,
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

/// Most bytes of a file that is read: more is not a configuration.
const FILE_MAX_BYTES: u64 = 1 << 20;

/// A checked configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// `[agent]`.
    pub agent: Agent,
    /// `[target.NAME]`, in the order of the file.
    pub targets: Vec<Target>,
    /// What is probably not meant so.
    pub warnings: Warnings,
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
    /// Size of the record store in bytes.
    pub store_bytes: usize,
    /// Size of the BPF ring buffer in bytes, a power of two.
    pub ring_bytes: u32,
}

impl Default for Agent {
    fn default() -> Self {
        Self {
            control_socket: PathBuf::from("/run/netconsole-agent/control.sock"),
            control_group: None,
            capture: Choice::Auto,
            store_bytes: 16 << 20,
            ring_bytes: 8 << 20,
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
    /// Source address; the route decides if `None`.
    pub local_ip: Option<IpAddr>,
    /// Source port.
    pub local_port: u16,
    /// MAC of the next hop; the neighbour table decides if `None`.
    pub remote_mac: Option<[u8; 6]>,
    /// Most datagrams per second in the long run; no limit if `None`.
    pub pace: Option<u32>,
    /// Keys and values that are added to each record, in the order of the file. A value may be
    /// a template: `{file:/etc/rack}`, `{env:JOB}`.
    pub userdata: Vec<(String, String)>,
    /// Lines that the agent adds by itself.
    pub sysdata: Sysdata,
}

/// Reads and checks a file.
///
/// # Errors
/// If it cannot be read, or with everything that is wrong in it.
pub fn load(path: &Path) -> Result<Config, ConfigError> {
    let text =
        read_text(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    parse(&text, &path.display().to_string())
}

fn read_text(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_MAX_BYTES {
        return Err(io::Error::other(format!("the file has more than {FILE_MAX_BYTES} bytes")));
    }
    String::from_utf8(bytes).map_err(|_| io::Error::other("the file is not UTF-8 text"))
}

/// Checks text; `file` is the name that the report uses.
///
/// # Errors
/// With everything that is wrong in it.
pub fn parse(text: &str, file: &str) -> Result<Config, ConfigError> {
    let (mut config, findings) = read::config(text);
    let (problems, warnings) = findings.split();
    if !problems.is_empty() {
        let report = diagnostic::render(&problems, text, file);
        return Err(ConfigError::Invalid { report, problems });
    }
    config.warnings =
        Warnings { report: diagnostic::render(&warnings, text, file), problems: warnings };
    Ok(config)
}

#[cfg(test)]
mod tests;
