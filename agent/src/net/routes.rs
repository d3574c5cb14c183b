//! Asks for routes, and whether the address to send from fits them.

use std::net::IpAddr;

use netlink_packet_route::route::RouteType;
use rustix::io::Errno;

use super::device;
use super::error::{NetError, ResolveError};
use super::link::Link;
use super::netlink::Route;
use super::resolve::Resolver;
use super::source::{self, SourceProblem};
use super::way::Look;

impl Resolver {
    /// The route by a device, or whatever the tables say.
    pub(super) async fn find_route(
        &self,
        look: &Look<'_>,
        device: Option<&Link>,
    ) -> Result<Route, ResolveError> {
        let remote = look.remote;
        let query = look.query(device.map(|link| link.ifindex), false);
        let no_route = |cause| ResolveError::NoRoute {
            remote,
            device: device.map(|link| link.name.clone()),
            cause,
        };
        let route = self.netlink.route(query).await.map_err(|cause| {
            let errno = Errno::from_io_error(&cause);
            match (errno, errno.and_then(no_route_cause), device) {
                (Some(Errno::NODEV), _, Some(link)) => {
                    ResolveError::DeviceMissing { device: link.name.clone() }
                }
                (_, Some(words), _) => no_route(words),
                _ => {
                    let object = remote.to_string();
                    NetError { operation: "ask for the route", object, cause }.into()
                }
            }
        })?;
        // IPv6 answers with the route that refuses, IPv4 with an error.
        match route.kind {
            RouteType::BlackHole => Err(no_route(BLACKHOLE)),
            RouteType::Unreachable => Err(no_route(UNREACHABLE)),
            RouteType::Prohibit => Err(no_route(PROHIBITED)),
            _ => Ok(route),
        }
    }

    /// The device by which the route leaves without a configured one; `None` also
    /// where there is no such route.
    pub(super) async fn unbound_device(
        &self,
        look: &Look<'_>,
    ) -> Result<Option<u32>, ResolveError> {
        match self.find_route(look, None).await {
            Ok(route) => Ok(route.ifindex),
            Err(ResolveError::Netlink(error)) => Err(error.into()),
            Err(_) => Ok(None),
        }
    }

    pub(super) async fn name_of(
        &self,
        ifindex: Option<u32>,
    ) -> Result<Option<String>, ResolveError> {
        let Some(ifindex) = ifindex else { return Ok(None) };
        match device::by_index(&self.netlink, ifindex).await {
            Ok(link) => Ok(Some(link.name)),
            Err(ResolveError::DeviceMissing { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The address to send from: the configured one, or the kernel's choice if
    /// that may be used.
    pub(super) async fn source(
        &self,
        look: &Look<'_>,
        link: &Link,
        chosen: Option<IpAddr>,
        local_route: bool,
        assumed: bool,
    ) -> Result<IpAddr, ResolveError> {
        // The kernel does not repeat the source it was asked for.
        if let Some(configured) = look.wanted.local {
            return Ok(configured);
        }
        let chosen = chosen.filter(|address| !address.is_unspecified());
        let problem = match (look.remote, chosen) {
            _ if local_route => None,
            (remote @ IpAddr::V6(_), _) => {
                source::check_chosen(chosen, link.ifindex, remote, &look.addresses)
            }
            (IpAddr::V4(_), Some(chosen)) if assumed => {
                self.check_on_link(look, link, chosen).await?
            }
            (IpAddr::V4(_), _) => None,
        };
        match (chosen, problem) {
            (Some(chosen), None) => Ok(chosen),
            (_, problem) => Err(source_error(
                problem.unwrap_or(SourceProblem::Missing),
                look.remote,
                link.name.clone(),
            )),
        }
    }

    /// Without a route, IPv4 takes a remote to be on the device's link, and for
    /// want of an address on the device sends from another one's.
    async fn check_on_link(
        &self,
        look: &Look<'_>,
        link: &Link,
        chosen: IpAddr,
    ) -> Result<Option<SourceProblem>, ResolveError> {
        if self.netlink.route(look.query(Some(link.ifindex), true)).await.is_ok() {
            return Ok(None);
        }
        let addresses = self.list_addresses(chosen).await?;
        let there = look.devices.iter().chain([&link.ifindex]);
        let there = there.copied().any(|device| source::is_on(chosen, device, &addresses));
        Ok((!there).then_some(SourceProblem::Missing))
    }
}

/// Checks a configured source before the route is asked for: IPv4 refuses a
/// foreign one with `EINVAL`, like a blackhole route; IPv6 takes any.
pub(super) fn check_configured(look: &Look<'_>, device: Option<&Link>) -> Result<(), ResolveError> {
    let Some(local) = look.wanted.local else { return Ok(()) };
    let remote = look.remote;
    let device = device.map_or_else(|| "the device".to_owned(), |link| link.name.clone());
    if local.is_ipv4() != remote.is_ipv4() {
        let cause = format!("`local` {local} is of the other address family");
        return Err(ResolveError::NoSource { remote, device, cause });
    }
    // All of 127.0.0.0/8 is ours, though only one of it is configured.
    if local.is_loopback() {
        return Ok(());
    }
    match source::check_configured(local, &look.addresses) {
        None => Ok(()),
        Some(SourceProblem::Missing) => {
            let cause = format!("`local` {local} is no address of this host");
            Err(ResolveError::NoSource { remote, device, cause })
        }
        Some(problem) => Err(source_error(problem, remote, device)),
    }
}

pub(super) fn source_error(problem: SourceProblem, remote: IpAddr, device: String) -> ResolveError {
    let cause = match problem {
        SourceProblem::Tentative => return ResolveError::AddressTentative { remote, device },
        SourceProblem::Duplicate(address) => {
            format!("{address} is used by another host on the link, too")
        }
        SourceProblem::Missing => format!("{device} has none that can be used"),
    };
    ResolveError::NoSource { remote, device, cause }
}

const BLACKHOLE: &str = "a blackhole route discards its packets";
const UNREACHABLE: &str = "a route says that it is unreachable";
const PROHIBITED: &str = "a route prohibits it";

/// What the errno of a lookup means (`fib_props` in `net/ipv4/fib_semantics.c`),
/// `None` if it is not about routes.
fn no_route_cause(errno: Errno) -> Option<&'static str> {
    match errno {
        Errno::INVAL => Some(BLACKHOLE),
        Errno::HOSTUNREACH => Some(UNREACHABLE),
        Errno::ACCESS => Some(PROHIBITED),
        Errno::NETUNREACH | Errno::SRCH | Errno::AGAIN => Some("no routing table has an entry"),
        _ => None,
    }
}
