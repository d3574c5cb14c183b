//! Names of receivers: from a DNS name to addresses, and when to ask again.
//!
//! [`Names`] does the asking: `/etc/hosts` first, then the servers of
//! `/etc/resolv.conf` (RFC 1034, section 5.3; the search list as in `man 5
//! resolv.conf`), without NSS, since the binary may be static: what only an NSS module
//! knows (mDNS, LDAP, systemd's `myhostname`) is not found. [`NameState`] is pure: it
//! keeps the last good addresses of one target through any failure, and says when the
//! next look-up is due. Nothing here knows routes or sockets, and nothing is cached
//! beyond what `NameState` holds.

mod ask;
mod error;
mod files;
mod state;

use std::{fmt, net::IpAddr, path::PathBuf, sync::Arc, time::Duration};

pub use self::error::NameError;
pub use self::state::{NameChange, NameFailure, NameState};
use self::{ask::Question, files::ResolvConf};

/// Shortest time between two look-ups of a name whose address is known.
pub const VALID_MIN: Duration = Duration::from_secs(30);
/// Longest time between two look-ups.
pub const VALID_MAX: Duration = Duration::from_secs(3600);
/// Longest time that a look-up takes, whatever resolv.conf says.
pub const LOOK_UP_MAX: Duration = Duration::from_secs(20);
/// Most addresses of one name and IP version that are kept.
pub const ADDRESSES_MAX: usize = 16;

/// The IP version of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IpVersion {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl IpVersion {
    /// That of an address.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

impl fmt::Display for IpVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// What a look-up brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// At least one address, and at most [`ADDRESSES_MAX`] of each version; each once,
    /// IPv4 first, otherwise in the order of the answer.
    pub addresses: Vec<IpAddr>,
    /// When to ask again: the smallest TTL of the answer, from [`VALID_MIN`] to
    /// [`VALID_MAX`].
    pub valid_for: Duration,
    /// The version for which no answer came, so that addresses of it may be missing.
    pub unanswered: Option<IpVersion>,
}

/// Looks names up. Clones share the settings.
#[derive(Clone, Debug)]
pub struct Names {
    files: Arc<Files>,
}

#[derive(Debug)]
struct Files {
    hosts: PathBuf,
    resolv_conf: PathBuf,
}

/// What the files say of a name.
enum Told {
    Addresses(Vec<IpAddr>),
    /// Nothing: servers are to be asked.
    Ask(ResolvConf),
}

impl Files {
    fn read(&self, host: &str) -> Result<Told, NameError> {
        let addresses = ask::usable(files::in_hosts(&self.hosts, host));
        if !addresses.is_empty() {
            return Ok(Told::Addresses(addresses));
        }
        ResolvConf::read(&self.resolv_conf, host).map(Told::Ask)
    }
}

impl Default for Names {
    fn default() -> Self {
        Self::new()
    }
}

impl Names {
    /// With the system's files.
    #[must_use]
    pub fn new() -> Self {
        Self::with_files("/etc/hosts", "/etc/resolv.conf")
    }

    /// With other files. They are read for each look-up and may be missing.
    #[must_use]
    pub fn with_files(hosts: impl Into<PathBuf>, resolv_conf: impl Into<PathBuf>) -> Self {
        Self { files: Arc::new(Files { hosts: hosts.into(), resolv_conf: resolv_conf.into() }) }
    }

    /// Looks up the addresses of a host; needs a tokio runtime with I/O and time. May
    /// be dropped at any time, and takes at most [`LOOK_UP_MAX`] once the files are read.
    ///
    /// # Errors
    /// If no address can be had at the moment, with the cause and the remedy.
    pub async fn look_up(&self, host: &str) -> Result<Resolved, NameError> {
        let (files, name) = (Arc::clone(&self.files), host.to_owned());
        let read = tokio::task::spawn_blocking(move || files.read(&name)).await;
        let told = read.unwrap_or_else(|ended| {
            let (host, path) = (host.to_owned(), self.files.resolv_conf.clone());
            Err(NameError::NoConfiguration { host, path, cause: ended.to_string() })
        });
        let conf = match told? {
            Told::Addresses(addresses) => {
                return Ok(Resolved { addresses, valid_for: VALID_MIN, unanswered: None });
            }
            Told::Ask(conf) => conf,
        };
        let question = Question { host, conf: &conf };
        tokio::time::timeout(LOOK_UP_MAX, question.ask())
            .await
            .unwrap_or_else(|_| Err(question.silence()))
    }
}
