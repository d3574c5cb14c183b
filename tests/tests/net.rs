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

use std::fs::File;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use netconsole_agent::egress::EgressKind;
use netconsole_agent::net::links::{NetEventKind, watch};
use netconsole_agent::net::{MacSource, NextHop, ResolveError, Resolver, Wanted, choose_egress};
use rustix::thread::{
    CapabilitySet, LinkNameSpaceType, capabilities, move_into_link_name_space, set_capabilities,
};

const MAC_A: [u8; 6] = [2, 0, 0, 0, 0x0a, 1];
const MAC_B: [u8; 6] = [2, 0, 0, 0, 0x0b, 1];
const NOBODY: [u8; 6] = [2, 0, 0, 0, 0x0e, 0x0e];

/// A network namespace that goes with its owner.
struct Namespace {
    name: String,
}

impl Namespace {
    fn new(label: &str) -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("ncnet{}-{count}{label}", std::process::id());
        let made = Command::new("ip").args(["netns", "add", &name]).output();
        match made {
            Ok(output) if output.status.success() => {}
            Ok(output) => {
                skip(&format!("ip netns add: {}", String::from_utf8_lossy(&output.stderr)));
                return None;
            }
            Err(error) => {
                skip(&format!("ip: {error}"));
                return None;
            }
        }
        let namespace = Self { name };
        // Addresses are to be usable at once; these settings belong to the namespace.
        namespace
            .shell("for d in all default; do echo 0 > /proc/sys/net/ipv6/conf/$d/accept_dad; done");
        namespace.ip("link set lo up");
        Some(namespace)
    }

    /// `ip -n NAME ARGS…`, which must succeed.
    fn ip(&self, args: &str) -> String {
        self.try_ip(args).unwrap_or_else(|error| panic!("ip {args}: {error}"))
    }

    fn try_ip(&self, args: &str) -> Result<String, String> {
        let output = Command::new("ip")
            .args(["-n", &self.name])
            .args(args.split_whitespace())
            .output()
            .map_err(|error| error.to_string())?;
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }

    fn is_ready(&self) -> bool {
        let addresses = self.ip("-6 addr show dev up0 scope link");
        self.ip("link show up0").contains("state UP")
            && addresses.contains("fe80::")
            && !addresses.contains("tentative")
    }

    fn shell(&self, script: &str) {
        let status =
            Command::new("ip").args(["netns", "exec", &self.name, "sh", "-c", script]).status();
        assert!(status.expect("ip runs").success(), "{script}");
    }

    /// Runs `work` in this namespace, on a thread and a runtime of its own.
    fn run<T: Send>(&self, work: impl AsyncFnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let namespace = File::open(format!("/run/netns/{}", self.name));
                let namespace = namespace.expect("the namespace was made by ip");
                let network = Some(LinkNameSpaceType::Network);
                move_into_link_name_space(namespace.as_fd(), network).expect("root may enter it");
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.expect("a runtime").block_on(work())
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    fn resolve(&self, wanted: &Wanted) -> Result<NextHop, ResolveError> {
        self.run(async || Resolver::new().expect("netlink").resolve(wanted).await)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

fn skip(reason: &str) {
    println!("SKIPPED: {}", reason.trim());
    assert!(std::env::var("CI").as_deref() != Ok("true"), "skipped where CI=true: {reason}");
}

/// The two ends of a cable.
struct Lan {
    a: Namespace,
    b: Namespace,
}

impl Lan {
    fn new() -> Option<Self> {
        let lan = Self { a: Namespace::new("a")?, b: Namespace::new("b")? };
        let made = lan.a.try_ip(&format!(
            "link add up0 address 02:00:00:00:0a:01 type veth peer name up0 address 02:00:00:00:0b:01 netns {}",
            lan.b.name
        ));
        if let Err(error) = made {
            skip(&format!("veth: {error}"));
            return None;
        }
        for (end, host) in [(&lan.a, 1), (&lan.b, 2)] {
            end.ip(&format!("addr add 10.77.0.{host}/24 brd + dev up0"));
            end.ip(&format!("addr add 2001:db8:77::{host}/64 dev up0 nodad"));
            end.ip("link set up0 up");
        }
        // The kernel notices the carrier up to a second later, and drops until then.
        let deadline = Instant::now() + Duration::from_secs(10);
        while !(lan.a.is_ready() && lan.b.is_ready()) {
            assert!(Instant::now() < deadline, "the cable stays down");
            std::thread::sleep(Duration::from_millis(10));
        }
        Some(lan)
    }
}

fn wanted(remote: &str) -> Wanted {
    Wanted {
        known: None,
        remote: remote.parse().expect("an address"),
        device: None,
        local: None,
        remote_mac: None,
        patience: Duration::from_secs(3),
    }
}

fn by(device: &str, remote: &str) -> Wanted {
    Wanted { device: Some(device.to_owned()), ..wanted(remote) }
}

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
    assert_eq!(lan.a.resolve(&wanted("[::ffff:10.77.0.2]:6666")).unwrap(), hop);
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
    let again = Wanted { known: None, remote: scoped.into(), ..wanted(remote) };
    assert_eq!(lan.a.resolve(&again).unwrap(), hop);
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
    let wanted = Wanted { known: None, remote_mac: Some(NOBODY), ..wanted("10.77.0.99:6666") };
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
    assert_eq!(lan.a.resolve(&by("the-cable-in-the-left-port", "10.77.0.2:6666")).unwrap(), hop);
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
fn changes_are_told() {
    let Some(lan) = Lan::new() else { return };
    let seen = lan.a.run(async || {
        let mut changes = watch().unwrap();
        lan.a.ip("addr add 10.91.0.1/24 dev up0");
        lan.a.ip("route add 10.92.0.0/24 via 10.77.0.2");
        lan.a.ip("neigh add 10.77.0.8 lladdr 02:00:00:00:0e:0e dev up0");
        lan.a.ip("neigh del 10.77.0.8 dev up0");
        lan.a.ip("link set up0 down");
        lan.a.ip("link del up0");
        let mut seen = Vec::new();
        let until_gone = async {
            while let Some(event) = changes.next().await {
                let last = event.kind == NetEventKind::LinkGone;
                seen.push(event);
                if last {
                    break;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(5), until_gone).await.unwrap();
        seen
    });
    for kind in [
        NetEventKind::AddressNew,
        NetEventKind::RouteNew,
        NetEventKind::NeighbourNew,
        NetEventKind::NeighbourGone,
        NetEventKind::LinkDown,
        NetEventKind::AddressGone,
        NetEventKind::LinkGone,
    ] {
        let event = seen.iter().find(|event| event.kind == kind);
        let event = event.unwrap_or_else(|| panic!("no {kind:?} in {seen:?}"));
        assert!(event.ifindex.is_some(), "{event:?}");
    }
    let gone = seen.last().unwrap();
    assert_eq!(gone.name.as_deref(), Some("up0"));
}
