//! One look-up in DNS: for each name that the text may stand for, each server, both
//! kinds of address.
//!
//! hickory-resolver asks one server for one kind of record, with retransmission,
//! TCP for what is cut short, and CNAMEs followed. What a whole look-up must not
//! depend on is decided here: a server that fails at once must not outrun one that
//! works, and a question for AAAA that nobody answers must not hide the A record.

use std::{
    future::Future,
    net::IpAddr,
    pin::pin,
    time::{Duration, Instant},
};

use futures_util::{
    StreamExt as _,
    future::{Either, select},
    stream::FuturesUnordered,
};
use hickory_resolver::{
    TokioResolver,
    config::{NameServerConfig, ResolveHosts, ResolverConfig},
    lookup::Lookup,
    net::{NetError, runtime::TokioRuntimeProvider},
    proto::rr::{Name, RecordType},
};
use tokio::time::timeout;

use super::{
    ADDRESSES_MAX, IpVersion, LOOK_UP_MAX, NameError, Resolved, VALID_MAX, VALID_MIN,
    files::ResolvConf,
};

/// A server that has not answered for so long is not waited for alone: the next one is
/// asked as well.
const NEXT_SERVER_AFTER: Duration = Duration::from_secs(1);
/// Once one kind of address is there, the other gets so much longer.
const OTHER_VERSION_PATIENCE: Duration = Duration::from_secs(1);

type Answer = Result<Lookup, NetError>;

/// A host to look up, and whom to ask.
pub(super) struct Question<'a> {
    pub(super) host: &'a str,
    pub(super) conf: &'a ResolvConf,
}

impl Question<'_> {
    /// Asks for each candidate in turn until one has an address, or nobody answers.
    pub(super) async fn ask(&self) -> Result<Resolved, NameError> {
        let not_a_name = || NameError::NotAName { host: self.host.to_owned() };
        let mut told = None;
        for name in self.conf.candidates(self.host).ok_or_else(not_a_name)? {
            match self.ask_servers(&name).await {
                Ok(resolved) => return Ok(resolved),
                Err(error) if error.is_silence() => return Err(error),
                Err(error) => told = Some(error.more_telling(told)),
            }
        }
        Err(told.unwrap_or_else(not_a_name))
    }

    /// Asks one server after the other: the next one as soon as one has failed, or all that were
    /// asked are silent for a while. Those are still listened to.
    async fn ask_servers(&self, name: &Name) -> Result<Resolved, NameError> {
        let mut servers = self.conf.servers.iter();
        let mut tries = FuturesUnordered::new();
        let mut told = None;
        loop {
            tries.extend(servers.next().map(|server| self.ask_server(*server, name)));
            let patience = if servers.len() > 0 { NEXT_SERVER_AFTER } else { LOOK_UP_MAX };
            match timeout(patience, tries.next()).await {
                Err(_silence) => {}
                Ok(None) => return Err(told.unwrap_or_else(|| self.silence())),
                Ok(Some(Err(error))) if !error.is_answer() => {
                    told = Some(error.more_telling(told));
                }
                Ok(Some(answer)) => return answer,
            }
        }
    }

    async fn ask_server(&self, server: IpAddr, name: &Name) -> Result<Resolved, NameError> {
        let resolver = self.resolver(server).map_err(|error| self.error(&error))?;
        let v4 = resolver.lookup(name.clone(), RecordType::A);
        let v6 = resolver.lookup(name.clone(), RecordType::AAAA);
        let (v4, v6) = both(v4, v6).await;
        self.combine(v4, v6)
    }

    /// A resolver for one server. It lives for one look-up: nothing is cached in it.
    fn resolver(&self, server: IpAddr) -> Result<TokioResolver, NetError> {
        let server = if self.conf.tcp {
            NameServerConfig::tcp(server)
        } else {
            NameServerConfig::udp_and_tcp(server)
        };
        let config = ResolverConfig::from_name_servers(vec![server]);
        let mut builder =
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        let options = builder.options_mut();
        options.timeout = self.conf.timeout;
        // hickory counts the repetitions.
        options.attempts = self.conf.attempts - 1;
        options.edns0 = self.conf.edns0;
        options.cache_size = 0;
        options.use_hosts_file = ResolveHosts::Never;
        builder.build()
    }

    fn combine(&self, v4: Option<Answer>, v6: Option<Answer>) -> Result<Resolved, NameError> {
        let mut addresses = Vec::new();
        let mut valid_for = VALID_MAX;
        let mut unanswered = None;
        let mut told = None;
        for (version, answer) in [(IpVersion::V4, v4), (IpVersion::V6, v6)] {
            match answer {
                Some(Ok(lookup)) => {
                    valid_for = valid_for.min(validity(&lookup));
                    let records = lookup.answers().iter();
                    addresses.extend(records.filter_map(|record| record.data.ip_addr()));
                }
                Some(Err(error)) => {
                    let error = self.error(&error);
                    unanswered = unanswered.or((!error.is_answer()).then_some(version));
                    told = Some(error.more_telling(told));
                }
                None => unanswered = Some(version),
            }
        }
        let addresses = usable(addresses);
        if addresses.is_empty() {
            let (host, servers) = (self.host.to_owned(), self.servers());
            return Err(told.unwrap_or(NameError::NoAddress { host, servers }));
        }
        // The half that is missing is asked for again soon.
        let valid_for = if unanswered.is_some() { VALID_MIN } else { valid_for };
        Ok(Resolved { addresses, valid_for, unanswered })
    }

    fn error(&self, error: &NetError) -> NameError {
        NameError::from_net(error, self.host, &self.servers())
    }

    /// That nobody answered.
    pub(super) fn silence(&self) -> NameError {
        NameError::Timeout { host: self.host.to_owned(), servers: self.servers() }
    }

    fn servers(&self) -> String {
        self.conf.servers.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", ")
    }
}

/// Waits for both answers, but for the second not much longer than for a good first.
async fn both(
    v4: impl Future<Output = Answer>,
    v6: impl Future<Output = Answer>,
) -> (Option<Answer>, Option<Answer>) {
    async fn rest(first: &Answer, other: impl Future<Output = Answer>) -> Option<Answer> {
        match first {
            Ok(_) => timeout(OTHER_VERSION_PATIENCE, other).await.ok(),
            Err(_) => Some(other.await),
        }
    }
    match select(pin!(v4), pin!(v6)).await {
        Either::Left((v4, other)) => {
            let v6 = rest(&v4, other).await;
            (Some(v4), v6)
        }
        Either::Right((v6, other)) => {
            let v4 = rest(&v6, other).await;
            (v4, Some(v6))
        }
    }
}

/// How long an answer holds: the smallest TTL on the way to the address, CNAMEs
/// included, within bounds.
fn validity(lookup: &Lookup) -> Duration {
    let ttl = lookup.answers().iter().map(|record| record.ttl).min().unwrap_or(0);
    let left = lookup.valid_until().saturating_duration_since(Instant::now());
    // `left` has lost the microseconds since the answer came.
    let left_s = left.as_secs_f64().ceil() as u64;
    Duration::from_secs(left_s.min(ttl.into())).clamp(VALID_MIN, VALID_MAX)
}

/// Each address once, IPv4 first, without those that nothing can be sent to, as block
/// lists give them out.
pub(super) fn usable(found: Vec<IpAddr>) -> Vec<IpAddr> {
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    for address in found {
        let address = address.to_canonical();
        let addresses = if address.is_ipv4() { &mut v4 } else { &mut v6 };
        let good = !address.is_unspecified() && !addresses.contains(&address);
        if good && addresses.len() < ADDRESSES_MAX {
            addresses.push(address);
        }
    }
    v4.append(&mut v6);
    v4
}
