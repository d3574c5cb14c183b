//! What may be sent from.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use netconsole_agent::net::links::{Changes, NetEventKind, watch};
use netconsole_agent::net::{BlockKind, NextHop, ResolveError, Resolver, Wanted};

use super::support::{Lan, MAC_B, by, wanted};

const REMOTE: &str = "[2001:db8:77::2]:6666";

/// Addresses are checked for duplicates from now on, as by default.
fn check_duplicates(lan: &Lan) {
    lan.a.shell("for d in all up0; do echo 1 > /proc/sys/net/ipv6/conf/$d/accept_dad; done");
    lan.a.ip("addr del 2001:db8:77::1/64 dev up0");
}

/// Looks, and looks again whenever an address is told to be new; the errors, and
/// how long after the last event the way was found.
async fn look_at_each_address(
    resolver: &Resolver,
    changes: &mut Changes,
) -> (Vec<ResolveError>, NextHop, Duration) {
    let mut errors = Vec::new();
    let mut event_at = Instant::now();
    loop {
        match resolver.resolve(&by("up0", REMOTE)).await {
            Ok(hop) => return (errors, hop, event_at.elapsed()),
            Err(error) => errors.push(error),
        }
        let told = async {
            while let Some(event) = changes.next().await {
                if event.kind == NetEventKind::AddressNew {
                    break;
                }
            }
        };
        let told = tokio::time::timeout(Duration::from_secs(10), told).await;
        told.expect("the end of the check is told");
        event_at = Instant::now();
    }
}

#[test]
fn neighbours_are_asked_as_soon_as_the_link_local_address_is_usable() {
    let Some(lan) = Lan::new() else { return };
    check_duplicates(&lan);
    let (errors, hop, took) = lan.a.run(async || {
        lan.a.ip("link set up0 down");
        lan.a.ip("link set up0 up");
        lan.a.ip("addr add 2001:db8:77::1/64 dev up0 nodad");
        lan.a.wait_for_carrier("up0");
        let mut changes = watch().expect("notifications");
        let resolver = Resolver::new().expect("netlink");
        look_at_each_address(&resolver, &mut changes).await
    });
    // Asked before, the kernel would have kept silent and tried again in a second.
    println!("found {took:?} after the event");
    assert!(took < Duration::from_millis(200), "{took:?}");
    assert!(!errors.is_empty());
    for error in errors {
        assert_eq!(error.kind(), BlockKind::AddressTentative, "{error}");
    }
    assert_eq!(hop.dst_mac, Some(MAC_B));
}

#[test]
fn a_tentative_address_is_waited_for_and_its_event_ends_the_wait() {
    let Some(lan) = Lan::new() else { return };
    check_duplicates(&lan);
    let (errors, hop, took) = lan.a.run(async || {
        let mut changes = watch().unwrap();
        let resolver = Resolver::new().unwrap();
        let begin = Instant::now();
        lan.a.ip("addr add 2001:db8:77::1/64 dev up0");
        let (errors, hop, _) = look_at_each_address(&resolver, &mut changes).await;
        (errors, hop, begin.elapsed())
    });
    println!("usable after {took:?}, {} looks before", errors.len());
    assert!(!errors.is_empty());
    for error in errors {
        assert!(matches!(error, ResolveError::AddressTentative { .. }), "{error}");
        assert_eq!(error.kind(), BlockKind::AddressTentative);
    }
    assert_eq!((hop.local.to_string().as_str(), hop.dst_mac), ("2001:db8:77::1", Some(MAC_B)));
}

#[test]
fn a_configured_source_that_is_tentative_is_waited_for() {
    let Some(lan) = Lan::new() else { return };
    check_duplicates(&lan);
    lan.a.ip("addr add 2001:db8:77::5/64 dev up0 nodad");
    lan.a.ip("addr add 2001:db8:77::1/64 dev up0");
    let from = Wanted { local: Some("2001:db8:77::1".parse().unwrap()), ..wanted(REMOTE) };
    assert_eq!(lan.a.resolve(&from).unwrap_err().kind(), BlockKind::AddressTentative);
    // Without that wish there is an address.
    assert_eq!(lan.a.resolve(&wanted(REMOTE)).unwrap().local.to_string(), "2001:db8:77::5");
}

#[test]
fn an_address_that_another_host_has_is_no_source() {
    let Some(lan) = Lan::new() else { return };
    check_duplicates(&lan);
    lan.a.ip("addr add 2001:db8:77::2/64 dev up0");
    let end = Instant::now() + Duration::from_secs(10);
    while !lan.a.ip("-6 addr show dev up0").contains("dadfailed") {
        assert!(Instant::now() < end, "the duplicate is not noticed");
        std::thread::sleep(Duration::from_millis(50));
    }
    lan.a.ip("-6 route add 2001:db8:77::/64 dev up0 metric 100");
    let error = lan.a.resolve(&by("up0", "[2001:db8:77::3]:6666")).unwrap_err();
    assert_eq!(error.kind(), BlockKind::NoAddress, "{error}");
    assert!(error.to_string().contains("2001:db8:77::2 is used by another host"), "{error}");
}

#[test]
fn a_device_without_an_address_borrows_none_unless_a_route_says_so() {
    let Some(lan) = Lan::new() else { return };
    lan.a.ip("link add up1 type veth peer name up2");
    lan.a.ip("addr add 10.88.0.1/24 dev up1");
    lan.a.ip("link set up1 up");
    lan.a.ip("link set up2 up");
    lan.a.ip("addr flush dev up0");
    for remote in ["10.77.0.2:6666", "255.255.255.255:6666", "239.255.1.2:6666"] {
        let error = lan.a.resolve(&by("up0", remote)).unwrap_err();
        assert_eq!(error.kind(), BlockKind::NoAddress, "{remote}: {error}");
    }
    lan.a.ip("route add 10.77.0.2 dev up0 src 10.88.0.1");
    lan.b.ip("route add 10.88.0.0/24 dev up0");
    let hop = lan.a.resolve(&by("up0", "10.77.0.2:6666")).unwrap();
    assert_eq!((hop.local.to_string().as_str(), hop.dst_mac), ("10.88.0.1", Some(MAC_B)));
}

#[test]
fn a_remote_without_a_route_is_taken_to_be_on_the_link_of_its_device() {
    let Some(lan) = Lan::new() else { return };
    lan.b.ip("addr add 10.99.0.2/32 dev up0");
    lan.b.ip("route add 10.77.0.1 dev up0");
    let hop = lan.a.resolve(&by("up0", "10.99.0.2:6666")).unwrap();
    assert_eq!((hop.local.to_string().as_str(), hop.dst_mac), ("10.77.0.1", Some(MAC_B)));
    assert_eq!((hop.route_device, hop.gateway), (None, None));
}

#[test]
fn a_source_that_went_with_its_device_does_not_hide_that() {
    let Some(lan) = Lan::new() else { return };
    let local = Some("10.77.0.1".parse().unwrap());
    let from = Wanted { local, ..by("up0", "10.77.0.2:6666") };
    assert_eq!(lan.a.resolve(&from).unwrap().local.to_string(), "10.77.0.1");
    lan.a.ip("addr del 10.77.0.1/24 dev up0");
    assert_eq!(lan.a.resolve(&from).unwrap_err().kind(), BlockKind::NoAddress);
    lan.a.ip("link set up0 down");
    assert_eq!(lan.a.resolve(&from).unwrap_err().kind(), BlockKind::DeviceDown);
    lan.a.ip("link del up0");
    assert_eq!(lan.a.resolve(&from).unwrap_err().kind(), BlockKind::NoDevice);
}
