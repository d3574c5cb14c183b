//! Next hops in network namespaces: what `net` says must be what the kernel does.
//!
//! ```text
//!   a: up0 10.77.0.1  ──veth──  b: up0 10.77.0.2, far0 10.78.0.1  ──veth──  c: up0 10.78.0.2
//!      2001:db8:77::1              2001:db8:77::2
//! ```
//!
//! Every test has namespaces of its own, which go when it ends; nothing outside
//! of them is touched. Needs root and `ip`; else a test says `SKIPPED` and
//! passes, or fails where `CI=true`.

#[path = "net/addresses.rs"]
mod addresses;
#[path = "net/devices.rs"]
mod devices;
#[path = "net/events.rs"]
mod events;
#[path = "net/neighbours.rs"]
mod neighbours;
#[path = "net/support.rs"]
mod support;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use netconsole_agent::egress::EgressKind;
use netconsole_agent::net::{MacSource, NextHop, ResolveError, Resolver, Wanted, choose_egress};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
use support::{Lan, MAC_A, MAC_B, NOBODY, Namespace, by, skip, wanted};

fn auto(hop: &NextHop) -> (EgressKind, String) {
    choose_egress(None, hop).expect("auto never fails")
}

#[test]
fn a_direct_neighbour_is_resolved_over_ipv4() {
    let Some(lan) = Lan::new() else { return };
    assert_eq!(lan.a.ip("neigh show to 10.77.0.2 dev up0"), "");
    let hop = lan.a.resolve(&wanted("10.77.0.2:6666")).unwrap();
    assert_eq!(hop.ifname, "up0");
    assert!(lan.a.ip("link show up0").starts_with(&format!("{}: up0", hop.ifindex)));
    assert_eq!((hop.src_mac, hop.dst_mac), (MAC_A, Some(MAC_B)));
    assert_eq!(hop.mac_source, MacSource::Neighbour);
    assert_eq!(hop.local.to_string(), "10.77.0.1");
    assert_eq!((hop.gateway, hop.mtu_bytes), (None, 1500));
    assert!(hop.ethernet && !hop.local_route && !hop.encapsulated && !hop.xfrm_policies);
    assert_eq!(auto(&hop).0, EgressKind::Xdp);
    let mapped = lan.a.resolve(&wanted("[::ffff:10.77.0.2]:6666")).unwrap();
    assert!(mapped.is_same(&hop), "{mapped:?} {hop:?}");
}

#[test]
fn a_direct_neighbour_is_resolved_over_ipv6() {
    let Some(lan) = Lan::new() else { return };
    let hop = lan.a.resolve(&wanted("[2001:db8:77::2]:6666")).unwrap();
    assert_eq!((hop.dst_mac, hop.mac_source), (Some(MAC_B), MacSource::Neighbour));
    assert_eq!(hop.local.to_string(), "2001:db8:77::1");
    assert_eq!(hop.gateway, None);
    assert_eq!(auto(&hop).0, EgressKind::Xdp);
}

#[test]
fn a_link_local_remote_needs_a_device() {
    let Some(lan) = Lan::new() else { return };
    let remote = "[fe80::ff:fe00:b01]:6666";
    let error = lan.a.resolve(&wanted(remote)).unwrap_err();
    assert!(matches!(error, ResolveError::DeviceNeeded { .. }), "{error}");
    let hop = lan.a.resolve(&by("up0", remote)).unwrap();
    assert_eq!((hop.dst_mac, hop.local.to_string()), (Some(MAC_B), "fe80::ff:fe00:a01".to_owned()));
    // The scope id of a socket address names the device, too.
    let SocketAddr::V6(mut scoped) = remote.parse().unwrap() else { unreachable!() };
    scoped.set_scope_id(hop.ifindex);
    let again = lan.a.resolve(&Wanted { remote: scoped.into(), ..wanted(remote) }).unwrap();
    assert!(again.is_same(&NextHop { device: None, ..hop.clone() }), "{again:?} {hop:?}");
}

#[test]
fn behind_a_gateway_the_frame_goes_to_the_gateway() {
    let Some(lan) = Lan::new() else { return };
    let Some(c) = Namespace::new("c") else { return };
    lan.b.ip(&format!("link add far0 type veth peer name up0 netns {}", c.name));
    lan.b.ip("addr add 10.78.0.1/24 dev far0");
    lan.b.ip("link set far0 up");
    c.ip("addr add 10.78.0.2/24 dev up0");
    c.ip("link set up0 up");
    lan.a.ip("route add 10.78.0.0/24 via 10.77.0.2 mtu 1280");
    let hop = lan.a.resolve(&wanted("10.78.0.2:6666")).unwrap();
    assert_eq!(hop.gateway, Some("10.77.0.2".parse().unwrap()));
    assert_eq!((hop.dst_mac, hop.ifname.as_str()), (Some(MAC_B), "up0"));
    assert_eq!(hop.mtu_bytes, 1280);
    assert_eq!(auto(&hop).0, EgressKind::Xdp);

    lan.a.ip("route add 10.79.0.0/24 via inet6 fe80::ff:fe00:b01 dev up0");
    let hop = lan.a.resolve(&wanted("10.79.0.2:6666")).unwrap();
    assert_eq!(hop.gateway, Some("fe80::ff:fe00:b01".parse().unwrap()));
    assert_eq!((hop.dst_mac, hop.local.to_string()), (Some(MAC_B), "10.77.0.1".to_owned()));
}

#[test]
fn rules_on_ports_take_part() {
    let Some(lan) = Lan::new() else { return };
    lan.a.ip("route add 10.78.0.0/24 via 10.77.0.2");
    lan.a.ip("route add 10.78.0.0/24 via 10.77.0.3 table 77");
    if let Err(error) = lan.a.try_ip("rule add ipproto udp dport 1514 table 77") {
        return skip(&error);
    }
    let gateway = |remote| {
        lan.a.run(async || Resolver::new().unwrap().route(&wanted(remote)).await.unwrap().gateway)
    };
    assert_eq!(gateway("10.78.0.2:6666"), Some("10.77.0.2".parse().unwrap()));
    assert_eq!(gateway("10.78.0.2:1514"), Some("10.77.0.3".parse().unwrap()));
}

#[test]
fn a_static_mac_asks_nobody() {
    let Some(lan) = Lan::new() else { return };
    let wanted = Wanted { remote_mac: Some(NOBODY), ..wanted("10.77.0.99:6666") };
    let hop = lan.a.resolve(&wanted).unwrap();
    assert_eq!((hop.dst_mac, hop.mac_source), (Some(NOBODY), MacSource::Static));
    assert_eq!(lan.a.ip("neigh show to 10.77.0.99 dev up0"), "");
}

#[test]
fn no_route_is_said_so() {
    let Some(lan) = Lan::new() else { return };
    for kind in ["unreachable", "blackhole", "prohibit"] {
        let host = kind.len();
        lan.a.ip(&format!("route add {kind} 10.80.0.{host}"));
        lan.a.ip(&format!("route add {kind} 2001:db8:80::{host}"));
        for remote in [format!("10.80.0.{host}:6666"), format!("[2001:db8:80::{host}]:6666")] {
            let error = lan.a.resolve(&wanted(&remote)).unwrap_err();
            assert!(matches!(error, ResolveError::NoRoute { .. }), "{kind} {remote}: {error}");
        }
    }
    for remote in ["198.51.100.1:6666", "[2001:db8:81::1]:6666"] {
        let error = lan.a.resolve(&wanted(remote)).unwrap_err();
        assert!(matches!(error, ResolveError::NoRoute { device: None, .. }), "{error}");
    }
}

#[test]
fn a_device_that_is_missing_or_down_is_named() {
    let Some(lan) = Lan::new() else { return };
    for missing in ["nosuch0", "02:00:00:00:0e:0e", "nosuch-with-an-alternative-name"] {
        let error = lan.a.resolve(&by(missing, "10.77.0.2:6666")).unwrap_err();
        assert!(matches!(error, ResolveError::DeviceMissing { .. }), "{error}");
        assert!(error.to_string().contains(missing), "{error}");
    }
    lan.b.ip("link set up0 down");
    for wanted in [wanted("10.77.0.2:6666"), by("up0", "10.77.0.2:6666")] {
        let error = lan.a.resolve(&wanted).unwrap_err();
        assert!(matches!(error, ResolveError::NoCarrier { .. }), "{error}");
    }
    lan.a.ip("link set up0 down");
    let error = lan.a.resolve(&by("up0", "10.77.0.2:6666")).unwrap_err();
    assert!(matches!(error, ResolveError::DeviceDown { .. }), "{error}");
    let error = lan.a.resolve(&wanted("10.77.0.2:6666")).unwrap_err();
    assert!(matches!(error, ResolveError::NoRoute { .. }), "{error}");
}

#[test]
fn a_device_is_found_by_mac_and_by_alternative_name() {
    let Some(lan) = Lan::new() else { return };
    let hop = lan.a.resolve(&by("02:00:00:00:0a:01", "10.77.0.2:6666")).unwrap();
    assert_eq!(hop.ifname, "up0");
    if let Err(error) = lan.a.try_ip("link property add dev up0 altname the-cable-in-the-left-port")
    {
        return skip(&error);
    }
    let again = lan.a.resolve(&by("the-cable-in-the-left-port", "10.77.0.2:6666")).unwrap();
    assert!(again.is_same(&hop), "{again:?} {hop:?}");
}

#[test]
fn this_host_is_reached_by_udp() {
    let Some(lan) = Lan::new() else { return };
    for remote in ["127.0.0.1:6666", "[::1]:6666", "10.77.0.1:6666", "[2001:db8:77::1]:6666"] {
        let hop = lan.a.resolve(&wanted(remote)).unwrap();
        assert!(hop.local_route && hop.dst_mac.is_none(), "{remote}: {hop:?}");
        let (kind, reason) = auto(&hop);
        assert_eq!(kind, EgressKind::Udp);
        assert!(reason.contains("this host"), "{reason}");
        let error = choose_egress(Some(EgressKind::Xdp), &hop).unwrap_err();
        assert!(error.to_string().contains("this host"), "{error}");
    }
}

#[test]
fn a_device_without_ethernet_is_left_to_udp() {
    let Some(lan) = Lan::new() else { return };
    // The loopback device is the one such device that every kernel has.
    lan.a.ip("route add 10.81.0.0/24 dev lo src 10.77.0.1");
    let hop = lan.a.resolve(&wanted("10.81.0.1:6666")).unwrap();
    assert!(!hop.ethernet && !hop.local_route);
    assert_eq!((hop.dst_mac, hop.mac_source), (None, MacSource::None));
    let (kind, reason) = auto(&hop);
    assert_eq!(kind, EgressKind::Udp);
    assert!(reason.contains("Ethernet"), "{reason}");
    assert!(choose_egress(Some(EgressKind::Packet), &hop).is_err());
}

#[test]
fn groups_need_no_neighbour() {
    let Some(lan) = Lan::new() else { return };
    let mac4 = [0x01, 0x00, 0x5e, 0x7f, 0x01, 0x02];
    let mac6 = [0x33, 0x33, 0, 0, 0x01, 0x02];
    for (remote, mac, source) in [
        ("239.255.1.2:6666", mac4, MacSource::Multicast),
        ("[ff02::102]:6666", mac6, MacSource::Multicast),
        ("[ff15::102]:6666", mac6, MacSource::Multicast),
        ("255.255.255.255:6666", [0xff; 6], MacSource::Broadcast),
        ("10.77.0.255:6666", [0xff; 6], MacSource::Broadcast),
    ] {
        let hop = lan.a.resolve(&by("up0", remote)).unwrap();
        assert_eq!((hop.dst_mac, hop.mac_source), (Some(mac), source), "{remote}");
        assert_eq!(auto(&hop).0, EgressKind::Xdp);
    }
    let error = lan.a.resolve(&wanted("[ff02::102]:6666")).unwrap_err();
    assert!(matches!(error, ResolveError::DeviceNeeded { .. }), "{error}");
}

#[test]
fn a_silent_neighbour_costs_no_more_than_the_patience() {
    let Some(lan) = Lan::new() else { return };
    let patience = Duration::from_millis(300);
    for remote in ["10.77.0.99:6666", "[2001:db8:77::99]:6666"] {
        let begin = Instant::now();
        let error = lan.a.resolve(&Wanted { patience, ..wanted(remote) }).unwrap_err();
        let took = begin.elapsed();
        let ResolveError::NeighbourUnresolved { state, device, .. } = &error else {
            panic!("{error}")
        };
        assert_eq!((state.as_str(), device.as_str()), ("incomplete", "up0"));
        assert!(took >= patience && took < patience + Duration::from_secs(1), "{took:?}");
    }
}

#[test]
fn a_neighbour_that_comes_late_is_found_within_the_patience() {
    let Some(lan) = Lan::new() else { return };
    let late = std::thread::scope(|scope| {
        let asking = scope.spawn(|| lan.a.resolve(&wanted("10.77.0.7:6666")));
        std::thread::sleep(Duration::from_millis(400));
        lan.b.ip("addr add 10.77.0.7/24 dev up0");
        asking.join().unwrap()
    });
    assert_eq!(late.unwrap().dst_mac, Some(MAC_B));
}

#[test]
fn a_failed_neighbour_is_asked_again() {
    let Some(lan) = Lan::new() else { return };
    lan.a.shell("echo 50 > /proc/sys/net/ipv4/neigh/up0/retrans_time_ms");
    let patience = Duration::from_millis(400);
    // The kernel gives up after three probes; the entry must not stay failed.
    lan.a.resolve(&Wanted { patience, ..wanted("10.77.0.7:6666") }).unwrap_err();
    lan.b.ip("addr add 10.77.0.7/24 dev up0");
    assert_eq!(lan.a.resolve(&wanted("10.77.0.7:6666")).unwrap().dst_mac, Some(MAC_B));
}

#[test]
fn a_wrong_stale_mac_heals_by_asking() {
    let Some(lan) = Lan::new() else { return };
    lan.a.shell(
        "cd /proc/sys/net/ipv4/neigh/up0 && echo 50 > retrans_time_ms && echo 1 > delay_first_probe_time",
    );
    lan.a.ip("neigh replace 10.77.0.2 lladdr 02:00:00:00:0e:0e nud stale dev up0");
    let (first, healed) = lan.a.run(async || {
        let resolver = Resolver::new().unwrap();
        let first = resolver.resolve(&wanted("10.77.0.2:6666")).await.unwrap().dst_mac;
        let end = Instant::now() + Duration::from_secs(8);
        let mut healed = first;
        while healed != Some(MAC_B) && Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(200)).await;
            healed = resolver.resolve(&wanted("10.77.0.2:6666")).await.unwrap().dst_mac;
        }
        (first, healed)
    });
    assert_eq!(first, Some(NOBODY));
    assert_eq!(healed, Some(MAC_B));
}

#[test]
fn a_permanent_entry_is_used_and_stays_permanent() {
    let Some(lan) = Lan::new() else { return };
    lan.a.ip("neigh add 10.77.0.2 lladdr 02:00:00:00:0e:0e nud permanent dev up0");
    let hop = lan.a.resolve(&wanted("10.77.0.2:6666")).unwrap();
    assert_eq!(hop.dst_mac, Some(NOBODY));
    assert!(lan.a.ip("neigh show to 10.77.0.2 dev up0").contains("PERMANENT"));
}

#[test]
fn the_source_address_must_be_ours() {
    let Some(lan) = Lan::new() else { return };
    lan.a.ip("addr add 10.90.0.1/32 dev lo");
    let from = |local: &str| {
        lan.a.resolve(&Wanted { local: Some(local.parse().unwrap()), ..wanted("10.77.0.2:6666") })
    };
    assert_eq!(from("10.90.0.1").unwrap().local.to_string(), "10.90.0.1");
    for foreign in ["10.77.0.2", "2001:db8:77::1"] {
        let error = from(foreign).unwrap_err();
        assert!(matches!(error, ResolveError::NoSource { .. }), "{error}");
        assert!(error.to_string().contains(foreign), "{error}");
    }
}

#[test]
fn a_device_without_an_address_has_no_source() {
    let Some(lan) = Lan::new() else { return };
    lan.a.ip("addr flush dev up0");
    lan.a.ip("route add 10.77.0.0/24 dev up0");
    let error = lan.a.resolve(&wanted("10.77.0.2:6666")).unwrap_err();
    assert!(matches!(error, ResolveError::NoSource { .. }), "{error}");
}

#[test]
fn a_route_with_encapsulation_is_left_to_udp() {
    let Some(lan) = Lan::new() else { return };
    let route = "-6 route add 2001:db8:82::/64 encap seg6 mode inline segs 2001:db8:77::2 dev up0";
    if let Err(error) = lan.a.try_ip(route) {
        return skip(&format!("seg6: {error}"));
    }
    let hop = lan.a.run(async || {
        Resolver::new().unwrap().route(&wanted("[2001:db8:82::1]:6666")).await.unwrap()
    });
    assert!(hop.encapsulated);
    assert_eq!(auto(&NextHop { dst_mac: Some(MAC_B), ..hop }).0, EgressKind::Udp);
}

#[test]
fn ipsec_policies_are_left_to_udp() {
    let Some(lan) = Lan::new() else { return };
    let policy = |dir: &str| format!("xfrm policy add src 10.77.0.0/24 dst 10.99.0.0/24 dir {dir}");
    if let Err(error) = lan.a.try_ip(&policy("in")) {
        return skip(&format!("xfrm: {error}"));
    }
    assert!(!lan.a.resolve(&wanted("10.77.0.2:6666")).unwrap().xfrm_policies);
    lan.a.ip(&policy("out"));
    let hop = lan.a.resolve(&wanted("10.77.0.2:6666")).unwrap();
    assert!(hop.xfrm_policies);
    let (kind, reason) = auto(&hop);
    assert_eq!(kind, EgressKind::Udp);
    assert!(reason.contains("IPsec"), "{reason}");
}

#[test]
fn without_privilege_ipsec_is_assumed_and_the_remedy_named() {
    let Some(lan) = Lan::new() else { return };
    lan.a.ip("neigh add 10.77.0.2 lladdr 02:00:00:00:0b:01 nud reachable dev up0");
    let (known, unknown) = lan.a.run(async || {
        // Belongs to this thread, which ends with the test.
        let mut sets = capabilities(None).unwrap();
        sets.effective.remove(CapabilitySet::NET_ADMIN);
        set_capabilities(None, sets).unwrap();
        let resolver = Resolver::new().unwrap();
        let known = resolver.resolve(&wanted("10.77.0.2:6666")).await;
        (known, resolver.resolve(&wanted("10.77.0.3:6666")).await)
    });
    let hop = known.unwrap();
    assert_eq!(hop.dst_mac, Some(MAC_B));
    assert!(hop.xfrm_policies);
    let error = unknown.unwrap_err();
    assert!(matches!(error, ResolveError::Netlink(_)), "{error}");
    assert!(error.to_string().contains("CAP_NET_ADMIN"), "{error}");
}

#[test]
fn one_resolver_answers_many_at_once_and_again() {
    let Some(lan) = Lan::new() else { return };
    lan.a.run(async || {
        let resolver = Resolver::new().unwrap();
        let (good, six, silent) = (
            wanted("10.77.0.2:6666"),
            wanted("[2001:db8:77::2]:6666"),
            Wanted { patience: Duration::from_millis(50), ..wanted("10.77.0.99:6666") },
        );
        for _ in 0..10 {
            let (good, six, silent) = tokio::join!(
                resolver.resolve(&good),
                resolver.resolve(&six),
                resolver.resolve(&silent)
            );
            assert_eq!(good.unwrap().local.to_string(), "10.77.0.1");
            assert_eq!(six.unwrap().local.to_string(), "2001:db8:77::1");
            assert!(matches!(silent, Err(ResolveError::NeighbourUnresolved { .. })));
        }
    });
}

#[test]
fn a_look_costs_less_than_a_tick() {
    const LOOKS: u32 = 200;
    let Some(lan) = Lan::new() else { return };
    let asked = [
        wanted("10.77.0.2:6666"),
        by("up0", "10.77.0.2:6666"),
        wanted("[2001:db8:77::2]:6666"),
        by("up0", "[2001:db8:77::2]:6666"),
    ];
    for wanted in asked {
        let mean = lan.a.run(async || {
            let resolver = Resolver::new().unwrap();
            resolver.resolve(&wanted).await.unwrap();
            let begin = Instant::now();
            for _ in 0..LOOKS {
                resolver.resolve(&wanted).await.unwrap();
            }
            begin.elapsed() / LOOKS
        });
        println!("{} by {:?}: {mean:?}", wanted.remote, wanted.device);
        assert!(mean < Duration::from_millis(10), "{mean:?}");
    }
}
