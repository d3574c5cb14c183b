//! A host, a switch and two routers with the receiver behind each of them.
//!
//! ```text
//!   host                     switch                    router 1, router 2
//!   up0 10.0.0.10  ── veth ── p0 ─ br0 ─ p1, p2 ── veth ──  lan0 10.0.0.1, 10.0.0.2
//!       2001:db8:1::10                                           2001:db8:1::1, ::2
//!                                                            lo  198.51.100.10, 2001:db8:99::10
//! ```
//!
//! Routes are not made: that is the test's business.

use crate::netns::{Namespace, mac_text};

/// MAC of the host's device.
pub const HOST_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x0a];

/// The four namespaces.
#[derive(Debug)]
pub struct Lan {
    /// Where the sender lives.
    pub host: Namespace,
    /// The switch; what comes in at `p0` is what the host sends.
    pub switch: Namespace,
    /// The routers, which are receivers as well.
    pub routers: [Namespace; 2],
}

/// MAC of a router's device: `router_mac(1, 0)` is that of the first one to begin with.
#[must_use]
pub fn router_mac(router: u8, change: u8) -> [u8; 6] {
    [2, 0, 0, 0, router, change]
}

impl Lan {
    /// Makes namespaces, devices and addresses. The addresses can be used at once.
    #[must_use]
    #[allow(clippy::new_without_default, reason = "it makes devices; that should be visible")]
    pub fn new() -> Self {
        let [host, switch, one, two] = ["h", "s", "r1", "r2"].map(Namespace::new);
        let lan = Self { host, switch, routers: [one, two] };
        for namespace in lan.routers.iter().chain([&lan.host]) {
            namespace.sysctl("net/ipv6/conf/all/accept_dad", "0");
            namespace.sysctl("net/ipv6/conf/default/accept_dad", "0");
            namespace.ip("link set lo up");
        }
        lan.switch.ip("link add br0 type bridge");
        lan.switch.ip("link set br0 up");
        lan.plug(&lan.host, "up0", HOST_MAC, "p0");
        lan.host.ip("addr add 10.0.0.10/24 dev up0");
        lan.host.ip("addr add 2001:db8:1::10/64 dev up0 nodad");
        lan.host.ip("link set up0 up");
        for (number, router) in (1..).zip(&lan.routers) {
            lan.plug(router, "lan0", router_mac(number, 0), &format!("p{number}"));
            router.ip(&format!("addr add 10.0.0.{number}/24 dev lan0"));
            router.ip(&format!("addr add 2001:db8:1::{number}/64 dev lan0 nodad"));
            router.ip("addr add 198.51.100.10/32 dev lo");
            router.ip("addr add 2001:db8:99::10/128 dev lo");
            router.ip("link set lan0 up");
        }
        lan
    }

    /// A cable between a device of one end and a port of the switch; the device stays down.
    pub fn plug(&self, end: &Namespace, device: &str, mac: [u8; 6], port: &str) {
        end.ip(&format!(
            "link add {device} address {} type veth peer name {port} netns {}",
            mac_text(mac),
            self.switch.name()
        ));
        self.switch.ip(&format!("link set {port} master br0 up"));
    }
}
