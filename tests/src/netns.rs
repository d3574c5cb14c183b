//! Two network namespaces joined by a veth pair, removed on drop.
//!
//! ```text
//!   left                                right
//!   left0 192.0.2.1/24  ──── veth ────  right0 192.0.2.2/24
//!         2001:db8::1/64                       2001:db8::2/64
//! ```
//!
//! Needs root and iproute2. Nothing outside of the namespaces is touched. It
//! panics where a step fails: a test has no use for half a network.

use std::fs::File;
use std::io::Write as _;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use netconsole_agent::egress::xdp;
use rustix::system::uname;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// MTU of both devices in bytes.
pub const MTU_BYTES: u32 = 1500;
/// IPv4 address of the left device.
pub const LEFT_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// IPv4 address of the right device.
pub const RIGHT_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
/// MAC of the left device.
pub const LEFT_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x01];
/// MAC of the right device.
pub const RIGHT_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x02];

/// Whether this process may make namespaces. If not, says on standard output
/// that the test is skipped, except under `CI=true`, where it fails.
#[must_use]
pub fn root_or_skip(test: &str) -> bool {
    if rustix::process::geteuid().is_root() {
        return true;
    }
    let reason = "needs root for network namespaces";
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{test}: {reason}");
    println!("SKIPPED: {test}: {reason}");
    false
}

/// The same, and whether AF_XDP sockets may be opened on this kernel.
#[must_use]
pub fn xdp_or_skip(test: &str) -> bool {
    if let Some(defect) = xdp::kernel_defect(&uname().release().to_string_lossy()) {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "{test}: {defect}");
        println!("SKIPPED: {test}: {defect}");
        return false;
    }
    root_or_skip(test)
}

/// One network namespace; deleted, with its devices, on drop.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes an empty one; `side` becomes part of its name.
    #[must_use]
    pub fn new(side: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("nca-{}-{count}-{side}", std::process::id());
        ip(&["netns", "add", &name]);
        Self { name }
    }

    /// Name of the namespace, as `ip netns` lists it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `ip -n <namespace> …`; words are separated by blanks.
    pub fn ip(&self, arguments: &str) {
        let mut words = vec!["-n", &self.name];
        words.extend(arguments.split_whitespace());
        ip(&words);
    }

    /// Runs many commands of `ip`, one per line, in one process.
    pub fn batch(&self, commands: &str) {
        let mut child = Command::new("ip")
            .args(["-n", &self.name, "-batch", "-"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("run ip");
        let mut stdin = child.stdin.take().expect("its input");
        stdin.write_all(commands.as_bytes()).expect("write to ip");
        drop(stdin);
        let output = child.wait_with_output().expect("wait for ip");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{commands}{said}");
    }

    /// Sets a sysctl of the namespace, such as `net/ipv4/conf/all/arp_notify`.
    pub fn sysctl(&self, name: &str, value: &str) {
        self.run(|| {
            let path = format!("/proc/sys/{name}");
            std::fs::write(&path, value).unwrap_or_else(|error| panic!("{path}: {error}"));
        });
    }

    /// Takes and throws away what comes to a port: a closed one would be answered by ICMP
    /// errors, for which this end would ask for the sender's address.
    #[must_use]
    pub fn sink(&self, port: u16) -> Sink {
        Sink { _socket: self.run(|| UdpSocket::bind(("::", port)).expect("bind")) }
    }

    /// Runs `work` on a thread inside of the namespace and waits for it. Sockets
    /// that are opened there stay there, whoever uses them.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let path = format!("/var/run/netns/{}", self.name);
        std::thread::scope(|scope| {
            let inside = scope.spawn(move || {
                let file = File::open(path).expect("open the namespace");
                move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                    .expect("enter the namespace");
                work()
            });
            match inside.join() {
                Ok(value) => value,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// Index of a device in the namespace.
    #[must_use]
    pub fn ifindex(&self, device: &str) -> u32 {
        self.run(|| {
            let socket = std::net::UdpSocket::bind("0.0.0.0:0").expect("a socket to ask with");
            rustix::net::netdevice::name_to_index(socket, device).expect("the device's index")
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Not `ip`: a panic while panicking would abort.
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

/// An open port whose receive buffer may run over.
#[derive(Debug)]
pub struct Sink {
    _socket: UdpSocket,
}

/// The two namespaces.
#[derive(Debug)]
pub struct Pair {
    /// Where the sender lives, with device `left0`.
    pub left: Namespace,
    /// Where the receiver lives, with device `right0`.
    pub right: Namespace,
}

impl Pair {
    /// Makes namespaces, devices and addresses, and waits for nothing: the
    /// carrier is there as soon as both ends are up.
    #[must_use]
    #[allow(clippy::new_without_default, reason = "it makes devices; that should be visible")]
    pub fn new() -> Self {
        let pair = Self { left: Namespace::new("l"), right: Namespace::new("r") };
        pair.left.ip(&format!(
            "link add left0 address {} type veth peer name right0 address {} netns {}",
            mac_text(LEFT_MAC),
            mac_text(RIGHT_MAC),
            pair.right.name()
        ));
        for (namespace, device, address) in
            [(&pair.left, "left0", LEFT_V4), (&pair.right, "right0", RIGHT_V4)]
        {
            let host = address.octets()[3];
            namespace.ip("link set lo up");
            namespace.ip(&format!("addr add {address}/24 dev {device}"));
            namespace.ip(&format!("addr add 2001:db8::{host}/64 dev {device} nodad"));
            namespace.ip(&format!("link set {device} mtu {MTU_BYTES} up"));
        }
        pair
    }
}

/// A MAC as `ip` takes it.
#[must_use]
pub fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

fn ip(arguments: &[&str]) {
    let output = Command::new("ip").args(arguments).output().expect("run ip");
    assert!(
        output.status.success(),
        "ip {}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
}
