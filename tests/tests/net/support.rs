//! Namespaces and questions that the tests of this directory share.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use netconsole_agent::net::{NextHop, ResolveError, Resolver, Wanted};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

pub(crate) const MAC_A: [u8; 6] = [2, 0, 0, 0, 0x0a, 1];
pub(crate) const MAC_B: [u8; 6] = [2, 0, 0, 0, 0x0b, 1];
pub(crate) const NOBODY: [u8; 6] = [2, 0, 0, 0, 0x0e, 0x0e];

/// A network namespace that goes with its owner.
pub(crate) struct Namespace {
    pub(crate) name: String,
}

impl Namespace {
    pub(crate) fn new(label: &str) -> Option<Self> {
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
    pub(crate) fn ip(&self, args: &str) -> String {
        self.try_ip(args).unwrap_or_else(|error| panic!("ip {args}: {error}"))
    }

    pub(crate) fn try_ip(&self, args: &str) -> Result<String, String> {
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

    /// `ip -n NAME -batch -`, which must succeed.
    pub(crate) fn batch(&self, script: &str) {
        let mut file = tempfile::NamedTempFile::new().expect("a file for the script");
        file.write_all(script.as_bytes()).expect("the script is written");
        let path = file.path().to_string_lossy().into_owned();
        self.ip(&format!("-batch {path}"));
    }

    pub(crate) fn ifindex(&self, device: &str) -> u32 {
        let shown = self.ip(&format!("-o link show dev {device}"));
        let index = shown.split(':').next().and_then(|index| index.parse().ok());
        index.unwrap_or_else(|| panic!("{shown}"))
    }

    /// Gives a device of `a` the addresses of up0 and sets it up.
    pub(crate) fn restore(&self, device: &str) {
        self.ip(&format!("addr replace 10.77.0.1/24 brd + dev {device}"));
        self.ip(&format!("link set {device} up"));
        self.ip(&format!("addr replace 2001:db8:77::1/64 dev {device} nodad"));
        self.wait_for_carrier(device);
    }

    /// The kernel notices the carrier up to a second later, and drops until then.
    pub(crate) fn wait_for_carrier(&self, device: &str) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !self.ip(&format!("link show dev {device}")).contains("state UP") {
            assert!(Instant::now() < deadline, "{device} stays down");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn is_ready(&self) -> bool {
        let addresses = self.ip("-6 addr show dev up0 scope link");
        self.ip("link show up0").contains("state UP")
            && addresses.contains("fe80::")
            && !addresses.contains("tentative")
    }

    pub(crate) fn shell(&self, script: &str) {
        let status =
            Command::new("ip").args(["netns", "exec", &self.name, "sh", "-c", script]).status();
        assert!(status.expect("ip runs").success(), "{script}");
    }

    /// Runs `work` in this namespace, on a thread and a runtime of its own.
    pub(crate) fn run<T: Send>(&self, work: impl AsyncFnOnce() -> T + Send) -> T {
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

    pub(crate) fn resolve(&self, wanted: &Wanted) -> Result<NextHop, ResolveError> {
        self.run(async || Resolver::new().expect("netlink").resolve(wanted).await)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

/// Says that this kernel lacks what the test is about; others have it.
pub(crate) fn lacks(what: &str) {
    println!("SKIPPED: this kernel lacks {}", what.trim());
}

pub(crate) fn skip(reason: &str) {
    println!("SKIPPED: {}", reason.trim());
    assert!(std::env::var("CI").as_deref() != Ok("true"), "skipped where CI=true: {reason}");
}

/// The two ends of a cable.
pub(crate) struct Lan {
    pub(crate) a: Namespace,
    pub(crate) b: Namespace,
}

impl Lan {
    pub(crate) fn new() -> Option<Self> {
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

    /// Makes the cable again after it went, under another name on a's end.
    pub(crate) fn plug(&self, name: &str) {
        self.a.ip(&format!(
            "link add {name} address 02:00:00:00:0a:01 type veth peer name up0 address 02:00:00:00:0b:01 netns {}",
            self.b.name
        ));
        self.b.ip("addr add 10.77.0.2/24 brd + dev up0");
        self.b.ip("addr add 2001:db8:77::2/64 dev up0 nodad");
        self.b.ip("link set up0 up");
        self.a.restore(name);
    }
}

pub(crate) fn wanted(remote: &str) -> Wanted {
    Wanted {
        remote: remote.parse().expect("an address"),
        device: None,
        known: None,
        local: None,
        remote_mac: None,
        patience: Duration::from_secs(3),
    }
}

pub(crate) fn by(device: &str, remote: &str) -> Wanted {
    Wanted { device: Some(device.to_owned()), ..wanted(remote) }
}

pub(crate) fn remote(host: &str) -> String {
    std::net::SocketAddr::new(host.parse().expect("an address"), 6666).to_string()
}
