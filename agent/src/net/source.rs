//! Whether the address to send from is one that may be used on the device.
//!
//! The kernel chooses it (`fib_select_default`, `inet_select_addr`,
//! `ipv6_dev_get_saddr`); what is looked at here is whether it had to fall back
//! on an address that a receiver would not know the machine by: of another
//! device, or of link scope, because the right one is missing or not usable yet
//! (RFC 4862, 5.4). Pure.

use std::net::IpAddr;

use netlink_packet_route::address::AddressFlags;

use super::netlink::OwnAddress;

/// What is wrong with a source address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SourceProblem {
    /// The right one is being checked for duplicates.
    Tentative,
    /// The right one was found on another host.
    Duplicate(IpAddr),
    /// There is none.
    Missing,
}

impl OwnAddress {
    /// Usable while it is checked only if it is optimistic (RFC 4429).
    fn is_tentative(&self) -> bool {
        self.flags.contains(AddressFlags::Tentative)
            && !self.flags.intersects(AddressFlags::Optimistic | AddressFlags::Dadfailed)
    }

    fn is_duplicate(&self) -> bool {
        self.flags.contains(AddressFlags::Dadfailed)
    }

    fn is_usable(&self) -> bool {
        !self.is_tentative() && !self.is_duplicate()
    }

    /// Whether `remote` can answer it.
    fn reaches(&self, remote: IpAddr) -> bool {
        is_link_local(remote) || !is_link_local(self.address)
    }
}

/// Checks the kernel's choice for an IPv6 remote.
pub(super) fn check_chosen(
    chosen: Option<IpAddr>,
    ifindex: u32,
    remote: IpAddr,
    addresses: &[OwnAddress],
) -> Option<SourceProblem> {
    let suitable = || addresses.iter().filter(|own| own.ifindex == ifindex && own.reaches(remote));
    // Its own choice stands as long as the device has an address that could be
    // meant: a route may prefer one of another device.
    if chosen.is_some() && suitable().any(OwnAddress::is_usable) {
        return None;
    }
    if suitable().any(OwnAddress::is_tentative) {
        return Some(SourceProblem::Tentative);
    }
    let too_narrow = chosen.is_some_and(is_link_local) && !is_link_local(remote);
    match (chosen, suitable().find(|own| own.is_duplicate())) {
        (Some(_), Some(own)) if too_narrow => Some(SourceProblem::Duplicate(own.address)),
        (Some(_), _) => None,
        (None, Some(own)) => Some(SourceProblem::Duplicate(own.address)),
        (None, None) => Some(SourceProblem::Missing),
    }
}

/// Checks a configured source, which must be an address of this host.
pub(super) fn check_configured(
    configured: IpAddr,
    addresses: &[OwnAddress],
) -> Option<SourceProblem> {
    let mut own = addresses.iter().filter(|own| own.address == configured).peekable();
    if own.peek().is_none() {
        return Some(SourceProblem::Missing);
    }
    // Link-local ones may exist on several devices.
    let mut worst = None;
    for own in own {
        if own.is_usable() {
            return None;
        }
        worst = Some(match own.is_tentative() {
            true => SourceProblem::Tentative,
            false => SourceProblem::Duplicate(configured),
        });
    }
    worst
}

/// Whether the kernel cannot ask for IPv6 neighbours yet: it does so from the
/// device's link-local address (`ndisc_send_ns`, `net/ipv6/ndisc.c`), and if that
/// is tentative it stays silent and tries again after a whole second.
pub(super) fn is_mute(ifindex: u32, addresses: &[OwnAddress]) -> bool {
    let mut lower = addresses
        .iter()
        .filter(|own| own.ifindex == ifindex && is_link_local(own.address))
        .peekable();
    // Here optimistic ones do not count either.
    lower.peek().is_some()
        && lower.all(|own| own.flags.contains(AddressFlags::Tentative) && !own.is_duplicate())
}

/// Whether the device has the address.
pub(super) fn is_on(address: IpAddr, ifindex: u32, addresses: &[OwnAddress]) -> bool {
    addresses.iter().any(|own| own.address == address && own.ifindex == ifindex)
}

/// IPv6 addresses of link scope (RFC 4291, 2.5.6 and 2.7) exist once per link.
pub(super) fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(_) => false,
        IpAddr::V6(ip) => {
            ip.is_unicast_link_local()
                || (ip.is_multicast() && matches!(ip.octets()[1] & 0xf, 1 | 2))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEVICE: u32 = 4;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn own(ifindex: u32, address: &str, flags: AddressFlags) -> OwnAddress {
        OwnAddress { ifindex, address: ip(address), flags }
    }

    const FINE: AddressFlags = AddressFlags::Permanent;
    const TENTATIVE: AddressFlags = AddressFlags::Tentative;

    fn check(chosen: Option<&str>, remote: &str, own: &[OwnAddress]) -> Option<SourceProblem> {
        check_chosen(chosen.map(ip), DEVICE, ip(remote), own)
    }

    #[test]
    fn a_tentative_address_is_waited_for_rather_than_replaced() {
        let lower = own(DEVICE, "fe80::1", FINE);
        let coming = own(DEVICE, "2001:db8::1", TENTATIVE);
        let others = own(9, "2001:db8:9::1", FINE);
        let all = [lower, coming, others];
        for chosen in [None, Some("fe80::1"), Some("2001:db8:9::1")] {
            let found = check(chosen, "2001:db8::2", &all);
            assert_eq!(found, Some(SourceProblem::Tentative), "{chosen:?}");
        }
        // Towards the link, the link-local one is right.
        assert_eq!(check(Some("fe80::1"), "fe80::2", &all), None);
    }

    #[test]
    fn one_more_address_in_the_making_stops_nobody() {
        let all = [own(DEVICE, "2001:db8::1", FINE), own(DEVICE, "2001:db8::99", TENTATIVE)];
        assert_eq!(check(Some("2001:db8::1"), "2001:db8::2", &all), None);
        // Nor does a source that the route prefers, of another device.
        assert_eq!(check(Some("2001:db8:9::1"), "2001:db8::2", &all), None);
    }

    #[test]
    fn an_optimistic_address_may_be_used() {
        let flags = TENTATIVE | AddressFlags::Optimistic;
        assert_eq!(
            check(Some("2001:db8::1"), "2001:db8::2", &[own(DEVICE, "2001:db8::1", flags)]),
            None
        );
    }

    #[test]
    fn a_duplicate_address_is_no_source() {
        // The kernel leaves the tentative flag on it.
        let flags = TENTATIVE | AddressFlags::Dadfailed;
        let all = [own(DEVICE, "2001:db8::1", flags)];
        let duplicate = Some(SourceProblem::Duplicate(ip("2001:db8::1")));
        assert_eq!(check(None, "2001:db8::2", &all), duplicate);
        assert_eq!(check(Some("fe80::1"), "2001:db8::2", &all), duplicate);
        assert_eq!(check(Some("2001:db8:9::1"), "2001:db8::2", &all), None);
        assert_eq!(check_configured(ip("2001:db8::1"), &all), duplicate);
        assert_eq!(check(None, "2001:db8::2", &[]), Some(SourceProblem::Missing));
    }

    #[test]
    fn the_kernels_choice_stands_where_nothing_better_is_coming() {
        let all = [own(DEVICE, "fe80::1", FINE), own(9, "2001:db8:9::1", FINE)];
        assert_eq!(check(Some("fe80::1"), "2001:db8::2", &all), None);
        assert_eq!(check(Some("2001:db8:9::1"), "2001:db8::2", &all), None);
    }

    #[test]
    fn a_configured_source_must_be_ours_and_usable() {
        let all = [own(DEVICE, "2001:db8::1", TENTATIVE), own(DEVICE, "2001:db8::2", FINE)];
        let check = |address| check_configured(ip(address), &all);
        assert_eq!(check("2001:db8::1"), Some(SourceProblem::Tentative));
        assert_eq!(check("2001:db8::2"), None);
        assert_eq!(check("2001:db8::3"), Some(SourceProblem::Missing));
        let twice = [own(3, "fe80::1", TENTATIVE), own(DEVICE, "fe80::1", FINE)];
        assert_eq!(check_configured(ip("fe80::1"), &twice), None);
    }

    #[test]
    fn neighbours_are_asked_once_the_link_local_address_is_usable() {
        let global = own(DEVICE, "2001:db8::1", FINE);
        let others = own(9, "fe80::9", FINE);
        assert!(is_mute(DEVICE, &[global, others, own(DEVICE, "fe80::1", TENTATIVE)]));
        assert!(!is_mute(DEVICE, &[global, others, own(DEVICE, "fe80::1", FINE)]));
        let optimistic = own(DEVICE, "fe80::1", TENTATIVE | AddressFlags::Optimistic);
        assert!(is_mute(DEVICE, &[global, optimistic]));
        // Without one there is nothing to wait for.
        assert!(!is_mute(DEVICE, &[global, others]));
    }

    #[test]
    fn an_address_is_looked_for_on_its_device() {
        let all = [own(DEVICE, "192.0.2.1", FINE)];
        assert!(is_on(ip("192.0.2.1"), DEVICE, &all));
        assert!(!is_on(ip("192.0.2.1"), 3, &all));
    }
}
