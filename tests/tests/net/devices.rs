//! Which device is meant, whatever becomes of it.

use netconsole_agent::net::links::{NetEvent, watch};
use netconsole_agent::net::{BlockKind, KnownDevice, NextHop, ResolveError, Resolver, Wanted};

use futures_util::StreamExt;

use super::support::{Lan, MAC_A, MAC_B, Namespace, by, lacks, skip, wanted};

const REMOTES: [&str; 2] = ["10.77.0.2:6666", "[2001:db8:77::2]:6666"];

fn knowing(known: &KnownDevice, device: &str, remote: &str) -> Wanted {
    Wanted { known: Some(known.clone()), ..by(device, remote) }
}

fn known(hop: &NextHop) -> KnownDevice {
    hop.device.clone().expect("`device` is configured")
}

/// A second cable beside the one of `lan`, from a:`left` to b:`far`.
fn second_cable(lan: &Lan, left: &str, mac: &str) {
    lan.a.ip(&format!(
        "link add {left} address {mac} type veth peer name far-{left} netns {}",
        lan.b.name
    ));
    // It answers for no address of another cable.
    lan.b.shell(&format!("echo 1 > /proc/sys/net/ipv4/conf/far-{left}/arp_ignore"));
    lan.b.ip(&format!("link set far-{left} up"));
    lan.a.ip(&format!("link set {left} up"));
}

#[test]
fn a_renamed_device_is_followed() {
    let Some(lan) = Lan::new() else { return };
    let hop = lan.a.resolve(&by("up0", REMOTES[0])).unwrap();
    let device = known(&hop);
    assert_eq!((device.ifindex, device.name.as_str()), (hop.ifindex, "up0"));
    assert_eq!((device.mac, device.stacked), (Some(MAC_A), false));
    lan.a.ip("link set up0 down");
    lan.a.ip("link set up0 name wan0");
    lan.a.restore("wan0");
    // Even where another device has its name now.
    second_cable(&lan, "up0", "02:00:00:00:0a:02");
    for remote in REMOTES {
        let hop = lan.a.resolve(&knowing(&device, "up0", remote)).unwrap();
        assert_eq!((hop.ifindex, hop.ifname.as_str()), (device.ifindex, "wan0"));
        assert_eq!(known(&hop).name, "wan0");
    }
    // Who never saw it takes the name at its word.
    let error = lan.a.resolve(&by("up0", REMOTES[0])).unwrap_err();
    assert!(error.to_string().contains("up0"), "{error}");
}

#[test]
fn a_device_that_changes_name_and_mac_between_two_looks_is_followed() {
    let Some(lan) = Lan::new() else { return };
    let (stale, followed) = lan.a.run(async || {
        let mut changes = watch().unwrap();
        let resolver = Resolver::new().unwrap();
        let mut device = known(&resolver.resolve(&by("up0", REMOTES[0])).await.unwrap());
        let before = device.clone();
        lan.a.ip("link set up0 down");
        lan.a.ip("link set up0 address 02:00:00:00:0a:77");
        lan.a.ip("link set up0 name wan0");
        let renamed = |event: &NetEvent| event.name.as_deref() == Some("wan0");
        while let Some(event) = changes.next().await {
            device.follow(&event);
            if renamed(&event) {
                break;
            }
        }
        lan.a.restore("wan0");
        let stale = resolver.resolve(&knowing(&before, "up0", REMOTES[0])).await;
        (stale, resolver.resolve(&knowing(&device, "up0", REMOTES[0])).await)
    });
    assert_eq!(stale.unwrap_err().kind(), BlockKind::NoDevice);
    let hop = followed.unwrap();
    assert_eq!(hop.ifname, "wan0");
    assert_eq!(hop.src_mac, [2, 0, 0, 0, 0x0a, 0x77]);
}

#[test]
fn a_device_named_by_its_mac_is_followed_when_that_changes() {
    let Some(lan) = Lan::new() else { return };
    let configured = "02:00:00:00:0a:01";
    let device = known(&lan.a.resolve(&by(configured, REMOTES[0])).unwrap());
    lan.a.ip("link set up0 address 02:00:00:00:0a:77");
    let hop = lan.a.resolve(&knowing(&device, configured, REMOTES[0])).unwrap();
    assert_eq!((hop.ifname.as_str(), hop.src_mac), ("up0", [2, 0, 0, 0, 0x0a, 0x77]));
    // Until another one has it.
    second_cable(&lan, "up1", configured);
    lan.a.ip("addr add 10.88.0.1/24 dev up1");
    lan.a.wait_for_carrier("up1");
    let by_hand = Wanted { remote_mac: Some(MAC_B), ..knowing(&device, configured, REMOTES[0]) };
    assert_eq!(lan.a.resolve(&by_hand).unwrap().ifname, "up1");
}

#[test]
fn a_device_comes_back_under_another_name() {
    let Some(lan) = Lan::new() else { return };
    let by_mac = lan.a.resolve(&by("02:00:00:00:0a:01", REMOTES[0])).unwrap();
    let by_name = lan.a.resolve(&by("up0", REMOTES[0])).unwrap();
    lan.a.ip("link del up0");
    for wanted in [
        knowing(&known(&by_mac), "02:00:00:00:0a:01", REMOTES[0]),
        knowing(&known(&by_name), "up0", REMOTES[0]),
    ] {
        let error = lan.a.resolve(&wanted).unwrap_err();
        assert_eq!(error.kind(), BlockKind::NoDevice, "{error}");
    }
    lan.plug("back0");
    for wanted in [
        knowing(&known(&by_mac), "02:00:00:00:0a:01", REMOTES[0]),
        knowing(&known(&by_name), "up0", REMOTES[0]),
    ] {
        let hop = lan.a.resolve(&wanted).unwrap();
        assert_eq!((hop.ifname.as_str(), hop.dst_mac), ("back0", Some(MAC_B)));
        assert_ne!(hop.ifindex, by_name.ifindex);
    }
}

#[test]
fn an_index_that_another_device_got_is_not_followed() {
    let Some(lan) = Lan::new() else { return };
    let device = known(&lan.a.resolve(&by("up0", REMOTES[0])).unwrap());
    lan.a.ip("link del up0");
    lan.a.ip(&format!(
        "link add other0 index {} address 02:00:00:00:0a:55 type veth peer name other1",
        device.ifindex
    ));
    lan.a.ip("link set other0 up");
    lan.a.ip("link set other1 up");
    let error = lan.a.resolve(&knowing(&device, "up0", REMOTES[0])).unwrap_err();
    assert_eq!(error.kind(), BlockKind::NoDevice, "{error}");
    lan.plug("up0");
    let hop = lan.a.resolve(&knowing(&device, "up0", REMOTES[0])).unwrap();
    assert_eq!(hop.ifname, "up0");
}

#[test]
fn the_wrong_port_is_told() {
    let Some(lan) = Lan::new() else { return };
    second_cable(&lan, "up1", "02:00:00:00:0a:02");
    lan.a.ip("addr add 10.88.0.1/24 dev up1");
    lan.a.ip("addr add 2001:db8:88::1/64 dev up1 nodad");
    lan.a.ip("route add 2001:db8:77::/64 dev up1 metric 4096");
    lan.a.wait_for_carrier("up1");
    let patience = std::time::Duration::from_millis(50);
    for remote in REMOTES {
        let right = lan.a.resolve(&by("up0", remote)).unwrap();
        assert_eq!(right.route_device, None);
        assert_eq!(lan.a.resolve(&wanted(remote)).unwrap().route_device, None);
        let wrong = Wanted { patience, ..by("up1", remote) };
        let error = lan.a.resolve(&wrong).unwrap_err();
        let ResolveError::NeighbourUnresolved { route_device, .. } = &error else {
            panic!("{error}")
        };
        assert_eq!(route_device.as_deref(), Some("up0"));
        assert!(error.to_string().contains("leaves by up0"), "{error}");
        // With a MAC of its own it seems to work, and says so.
        let hop = lan.a.resolve(&Wanted { remote_mac: Some(MAC_B), ..wrong }).unwrap();
        assert_eq!((hop.ifname.as_str(), hop.route_device.as_deref()), ("up1", Some("up0")));
    }
    // Groups go where they are sent.
    for group in ["239.255.1.2:6666", "255.255.255.255:6666", "[ff15::102]:6666", "[ff02::1]:6666"]
    {
        assert_eq!(lan.a.resolve(&by("up1", group)).unwrap().route_device, None, "{group}");
    }
}

/// A bridge over up0, which keeps its addresses.
fn bridge(lan: &Lan) -> bool {
    if let Err(error) = lan.a.try_ip("link add br0 type bridge") {
        skip(&format!("bridge: {error}"));
        return false;
    }
    lan.a.ip("link set br0 up");
    lan.a.ip("link set up0 master br0");
    lan.a.wait_for_carrier("br0");
    true
}

#[test]
fn a_port_whose_address_moved_to_the_bridge_is_reached_by_the_bridge() {
    let Some(lan) = Lan::new() else { return };
    let device = known(&lan.a.resolve(&by("up0", REMOTES[0])).unwrap());
    if !bridge(&lan) {
        return;
    }
    // The link-local one stays: the kernel asks no neighbour without.
    lan.a.ip("addr flush dev up0 scope global");
    lan.a.ip("addr add 10.77.0.1/24 dev br0");
    lan.a.ip("addr add 2001:db8:77::1/64 dev br0 nodad");
    for remote in REMOTES {
        let hop = lan.a.resolve(&knowing(&device, "up0", remote)).unwrap();
        assert_eq!((hop.ifname.as_str(), hop.dst_mac), ("br0", Some(MAC_B)));
        assert_eq!(hop.configured_device.as_deref(), Some("up0"));
        assert_eq!((hop.device.as_ref(), hop.route_device), (Some(&device), None));
        // By its MAC, too, which the bridge has as well.
        let hop = lan.a.resolve(&by("02:00:00:00:0a:01", remote)).unwrap();
        assert_eq!(hop.configured_device.as_deref(), Some("up0"));
        // The bridge itself is no stand-in for anything.
        let hop = lan.a.resolve(&by("br0", remote)).unwrap();
        assert_eq!((hop.ifname.as_str(), hop.configured_device.as_deref()), ("br0", None));
    }
    // Released, with its addresses back.
    lan.a.ip("link del br0");
    lan.a.restore("up0");
    for remote in REMOTES {
        let hop = lan.a.resolve(&knowing(&device, "up0", remote)).unwrap();
        assert_eq!((hop.ifname.as_str(), hop.configured_device), ("up0", None));
    }
}

#[test]
fn a_port_that_kept_its_address_still_leads_to_the_remote() {
    let Some(lan) = Lan::new() else { return };
    if !bridge(&lan) {
        return;
    }
    // Answers to the port's questions go to the bridge: only that learns them.
    let hop = lan.a.resolve(&by("up0", REMOTES[0])).unwrap();
    assert_eq!((hop.ifname.as_str(), hop.dst_mac), ("br0", Some(MAC_B)));
    assert_eq!((hop.local.to_string().as_str(), hop.route_device), ("10.77.0.1", None));
    // IPv6 has no way by a bridge without addresses; the port serves with what it knows.
    lan.a.ip("neigh replace 2001:db8:77::2 lladdr 02:00:00:00:0b:01 nud permanent dev up0");
    let hop = lan.a.resolve(&by("up0", REMOTES[1])).unwrap();
    assert_eq!((hop.ifname.as_str(), hop.dst_mac), ("up0", Some(MAC_B)));
    assert_eq!(hop.configured_device, None);
}

#[test]
fn a_bridge_that_is_down_leaves_the_port() {
    let Some(lan) = Lan::new() else { return };
    if !bridge(&lan) {
        return;
    }
    lan.a.ip("link set br0 down");
    let patience = std::time::Duration::from_millis(50);
    let error = lan.a.resolve(&Wanted { patience, ..by("up0", REMOTES[0]) }).unwrap_err();
    // The port got farther than the bridge.
    let ResolveError::NeighbourUnresolved { device, .. } = &error else { panic!("{error}") };
    assert_eq!(device, "up0");
    let by_hand = Wanted { remote_mac: Some(MAC_B), ..by("up0", REMOTES[0]) };
    let hop = lan.a.resolve(&by_hand).unwrap();
    assert_eq!((hop.ifname.as_str(), hop.configured_device), ("up0", None));
}

#[test]
fn a_port_without_carrier_is_no_reason_to_wait_for_it() {
    let Some(lan) = Lan::new() else { return };
    if !bridge(&lan) {
        return;
    }
    second_cable(&lan, "up1", "02:00:00:00:0a:02");
    lan.a.ip("link set up1 master br0");
    // The link-local one stays: the kernel asks no neighbour without.
    lan.a.ip("addr flush dev up0 scope global");
    lan.a.ip("addr add 10.77.0.1/24 dev br0");
    lan.b.ip("addr flush dev up0");
    lan.b.ip("link set up0 down");
    lan.b.ip("addr add 10.77.0.2/24 dev far-up1");
    let hop = lan.a.resolve(&by("up0", REMOTES[0])).unwrap();
    assert_eq!((hop.ifname.as_str(), hop.configured_device.as_deref()), ("br0", Some("up0")));
}

#[test]
fn a_vrf_is_left_to_the_routes() {
    let Some(lan) = Lan::new() else { return };
    if let Err(error) = lan.a.try_ip("link add red type vrf table 10") {
        return lacks(&format!("VRFs: {error}"));
    }
    lan.a.ip("link set red up");
    lan.a.ip("link set up0 master red");
    for device in ["up0", "red"] {
        let hop = lan.a.resolve(&by(device, REMOTES[0])).unwrap();
        assert_eq!((hop.ifname.as_str(), hop.dst_mac), ("up0", Some(MAC_B)));
        assert_eq!((hop.configured_device, hop.route_device), (None, None));
    }
}

#[test]
fn a_macvlan_is_a_device_like_any_other() {
    let Some(lan) = Lan::new() else { return };
    let made = lan.a.try_ip("link add mv0 link up0 address 02:00:00:00:0a:33 type macvlan");
    if let Err(error) = made {
        return lacks(&format!("macvlan: {error}"));
    }
    lan.a.ip("addr add 10.77.0.3/24 dev mv0");
    lan.a.ip("link set mv0 up");
    lan.a.wait_for_carrier("mv0");
    let hop = lan.a.resolve(&by("mv0", REMOTES[0])).unwrap();
    assert_eq!((hop.ifname.as_str(), hop.src_mac), ("mv0", [2, 0, 0, 0, 0x0a, 0x33]));
    assert!(known(&hop).stacked);
}

#[test]
fn the_namespace_of_a_device_that_left_has_it_no_more() {
    let Some(lan) = Lan::new() else { return };
    let Some(other) = Namespace::new("o") else { return };
    let device = known(&lan.a.resolve(&by("up0", REMOTES[0])).unwrap());
    lan.a.ip(&format!("link set up0 netns {}", other.name));
    let error = lan.a.resolve(&knowing(&device, "up0", REMOTES[0])).unwrap_err();
    assert_eq!(error.kind(), BlockKind::NoDevice, "{error}");
    other.ip(&format!("link set up0 netns {}", lan.a.name));
    lan.a.restore("up0");
    assert_eq!(lan.a.resolve(&knowing(&device, "up0", REMOTES[0])).unwrap().ifname, "up0");
}
