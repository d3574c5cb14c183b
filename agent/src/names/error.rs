//! Why a name has no address at the moment.

use std::path::PathBuf;

use hickory_resolver::{
    net::{DnsError, NetError, NoRecords},
    proto::op::ResponseCode,
};

use super::IpVersion;

/// Why a look-up brought no address. Each reads "what happened; the remedy".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The text is no host name.
    #[error("{host:?} is not a DNS name; write a host name or an address into `remote`")]
    NotAName {
        /// The text.
        host: String,
    },
    /// DNS says that there is no such name.
    #[error(
        "DNS has no name {host} (NXDOMAIN, asked: {servers}); correct `remote`, or enter the name \
         into DNS or /etc/hosts"
    )]
    NotFound {
        /// The name.
        host: String,
        /// The servers that were asked.
        servers: String,
    },
    /// The name is there, and has no address that anything can be sent to.
    #[error(
        "DNS has no usable A or AAAA record for {host} (asked: {servers}); give the name an \
         address there, or in /etc/hosts"
    )]
    NoAddress {
        /// The name.
        host: String,
        /// The servers that were asked.
        servers: String,
    },
    /// All its addresses are of the other IP version.
    #[error(
        "{host} has no {wanted} address, which `local` calls for; give it one in DNS, or change `local`"
    )]
    OtherVersion {
        /// The name.
        host: String,
        /// What is needed.
        wanted: IpVersion,
    },
    /// A server answered that it cannot tell.
    #[error(
        "the DNS server did not resolve {host}: {code} (asked: {servers}); see the server's log, or \
         name another server in resolv.conf"
    )]
    ServerFailure {
        /// The name.
        host: String,
        /// The servers that were asked.
        servers: String,
        /// The response code (RFC 1035, section 4.1.1).
        code: String,
    },
    /// No server answered in time.
    #[error(
        "no DNS server answered for {host} (asked: {servers}); check that they can be reached and \
         that UDP and TCP port 53 are not filtered"
    )]
    Timeout {
        /// The name.
        host: String,
        /// The servers that were asked.
        servers: String,
    },
    /// The question could not be sent, or the answer not be read.
    #[error(
        "cannot ask DNS for {host} (asked: {servers}): {cause}; check the route to the servers, or \
         name others in resolv.conf"
    )]
    Failed {
        /// The name.
        host: String,
        /// The servers that were asked.
        servers: String,
        /// What the system said.
        cause: String,
    },
    /// resolv.conf names no server.
    #[error(
        "cannot look up {host}: {path} names no DNS server; add a `nameserver` line, enter the name \
         into /etc/hosts, or write the address into `remote`", path = .path.display()
    )]
    NoServers {
        /// The name.
        host: String,
        /// The file.
        path: PathBuf,
    },
    /// resolv.conf cannot be read.
    #[error(
        "cannot look up {host}: cannot read {path}: {cause}; create it with a `nameserver` line, \
         enter the name into /etc/hosts, or write the address into `remote`", path = .path.display()
    )]
    NoConfiguration {
        /// The name.
        host: String,
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: String,
    },
}

impl NameError {
    /// What a server's answer, or the lack of one, means.
    pub(super) fn from_net(error: &NetError, host: &str, servers: &str) -> Self {
        let (host, servers) = (host.to_owned(), servers.to_owned());
        match error {
            NetError::Dns(DnsError::NoRecordsFound(NoRecords {
                response_code: ResponseCode::NXDomain,
                ..
            })) => Self::NotFound { host, servers },
            NetError::Dns(DnsError::NoRecordsFound(_)) => Self::NoAddress { host, servers },
            NetError::Dns(DnsError::ResponseCode(code)) => {
                Self::ServerFailure { host, servers, code: code.to_string() }
            }
            NetError::Timeout => Self::Timeout { host, servers },
            NetError::Io(cause) => Self::Failed { host, servers, cause: cause.to_string() },
            other => Self::Failed { host, servers, cause: other.to_string() },
        }
    }

    /// Whether nobody answered: then other names that the text may stand for are not asked for, or it
    /// would mean now this host and now that one. glibc does the same (`__libc_res_nsearch`,
    /// `resolv/res_query.c`): its search goes on after NXDOMAIN, no data and SERVFAIL only.
    pub(super) fn is_silence(&self) -> bool {
        matches!(self, Self::Timeout { .. } | Self::Failed { .. })
    }

    /// DNS has answered: another server would say the same.
    pub(super) fn is_answer(&self) -> bool {
        matches!(self, Self::NotFound { .. } | Self::NoAddress { .. })
    }

    /// The one of two errors that says more about what is in the way: a question that
    /// nobody answered before an answer, and "no address" before "no name".
    pub(super) fn more_telling(self, other: Option<Self>) -> Self {
        let rank = |error: &Self| match error {
            Self::ServerFailure { .. } => 4,
            Self::Failed { .. } => 3,
            Self::Timeout { .. } => 2,
            Self::NoAddress { .. } => 1,
            _ => 0,
        };
        match other {
            Some(other) if rank(&other) >= rank(&self) => other,
            _ => self,
        }
    }
}

#[cfg(test)]
impl NameError {
    /// One of each kind.
    pub(crate) fn one_of_each() -> Vec<Self> {
        let (host, servers) = ("fleet.test".to_owned(), "192.0.2.53".to_owned());
        let (path, cause) = (PathBuf::from("/etc/resolv.conf"), "Permission denied".to_owned());
        let all = vec![
            Self::NotAName { host: host.clone() },
            Self::NotFound { host: host.clone(), servers: servers.clone() },
            Self::NoAddress { host: host.clone(), servers: servers.clone() },
            Self::OtherVersion { host: host.clone(), wanted: IpVersion::V6 },
            Self::ServerFailure {
                host: host.clone(),
                servers: servers.clone(),
                code: "Server Failure".to_owned(),
            },
            Self::Timeout { host: host.clone(), servers: servers.clone() },
            Self::Failed { host: host.clone(), servers, cause: cause.clone() },
            Self::NoServers { host: host.clone(), path: path.clone() },
            Self::NoConfiguration { host, path, cause },
        ];
        for error in &all {
            // A new one does not compile before it is thought of here.
            match error {
                Self::NotAName { .. }
                | Self::NotFound { .. }
                | Self::NoAddress { .. }
                | Self::OtherVersion { .. }
                | Self::ServerFailure { .. }
                | Self::Timeout { .. }
                | Self::Failed { .. }
                | Self::NoServers { .. }
                | Self::NoConfiguration { .. } => {}
            }
        }
        all
    }
}
