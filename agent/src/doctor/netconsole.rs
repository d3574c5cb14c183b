//! The kernel's own netconsole: whether it runs beside the agent, and whether it could instead.
//!
//! Rules: `netcons_netpoll_setup` (drivers/net/netconsole.c; before 6.19 `netpoll_setup`),
//! `__netpoll_setup` (net/core/netpoll.c). Whether a driver can be polled is not shown to programs, so
//! the answer for a device is an estimate.

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
};

use super::{Finding, device, host::Version, kernel_config::KernelConfig, read_trimmed};

const CONFIGFS: &str = "/sys/kernel/config/netconsole";
/// veth refuses netpoll since (45160cebd6ac).
const VETH_WITHOUT_NETPOLL: Version = (6, 12);
/// Kinds of devices that refuse netpoll (`IFF_DISABLE_NETPOLL`) on every kernel that has them.
const KINDS_WITHOUT_NETPOLL: [&str; 2] = ["netkit", "hsr"];

/// What is there of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    /// Loaded or built in.
    active: bool,
    available: Option<bool>,
    targets: Vec<KernelTarget>,
}

#[derive(Clone, Debug, Default)]
struct KernelTarget {
    name: String,
    enabled: bool,
    remote: Option<IpAddr>,
    port: Option<u16>,
}

impl Facts {
    pub(super) fn gather(kernel_config: &KernelConfig) -> Self {
        let active = Path::new("/sys/module/netconsole").exists();
        let available = active || kernel_config.has_module("netconsole");
        let folders = std::fs::read_dir(CONFIGFS).into_iter().flatten().flatten();
        let targets = folders.filter(|entry| entry.path().is_dir()).map(|entry| {
            let read = |name| read_trimmed(entry.path().join(name)).unwrap_or_default();
            KernelTarget {
                name: entry.file_name().to_string_lossy().into_owned(),
                enabled: matches!(read("enabled").as_str(), "1" | "Y" | "y"),
                remote: read("remote_ip").parse().ok(),
                port: read("remote_port").parse().ok(),
            }
        });
        Self {
            active,
            available: available.then_some(true).or(kernel_config.has("NETCONSOLE")),
            targets: targets.collect(),
        }
    }
}

/// `own`: where the agent's targets send to.
pub(super) fn judge(facts: &Facts, own: &[SocketAddr]) -> Vec<Finding> {
    let object = "netconsole";
    if !facts.active {
        return vec![Finding::ok(object, "the kernel's own is not loaded")];
    }
    let enabled: Vec<_> = facts.targets.iter().filter(|target| target.enabled).collect();
    let twice: Vec<_> = enabled
        .iter()
        .filter(|theirs| {
            own.iter().any(|own| {
                theirs.remote == Some(own.ip().to_canonical()) && theirs.port == Some(own.port())
            })
        })
        .collect();
    let mut findings: Vec<_> = twice
        .iter()
        .map(|target| {
            Finding::warn(
                object,
                format!(
                    "the kernel's own target {} sends to the same receiver: every line arrives twice",
                    target.name
                ),
                format!("echo 0 > {CONFIGFS}/{}/enabled, or use another port", target.name),
            )
        })
        .collect();
    if findings.is_empty() {
        let names: Vec<_> = enabled.iter().map(|target| target.name.as_str()).collect();
        findings.push(Finding::ok(
            object,
            if names.is_empty() {
                "the kernel's own is loaded; no enabled target is shown (configfs)".to_owned()
            } else {
                format!("the kernel's own runs, to other receivers: {}", names.join(", "))
            },
        ));
    }
    findings
}

/// Whether the kernel's own netconsole could send by a device.
pub(super) fn estimate(facts: &Facts, device: &device::Facts, version: Version) -> Finding {
    let built = match facts.available {
        Some(true) => "",
        Some(false) => "; besides, this kernel is built without CONFIG_NETCONSOLE",
        None => "; whether this kernel has CONFIG_NETCONSOLE is not known",
    };
    Finding::ok("netpoll", format!("{}{built}", driver_estimate(device, version)))
}

fn driver_estimate(device: &device::Facts, version: Version) -> String {
    let no = "the kernel's own netconsole cannot run here";
    let driver = device.driver.as_deref().or(device.kind.as_deref()).unwrap_or("unknown");
    if let Some(master) = &device.master {
        format!("{no}: {} is a port of {master}", device.name)
    } else if device.name == "lo" || device.loopback {
        format!("{no}: the loopback device reaches no other host")
    } else if KINDS_WITHOUT_NETPOLL.contains(&driver)
        || (driver == "veth" && version >= VETH_WITHOUT_NETPOLL)
    {
        format!("{no}: {driver} refuses netpoll")
    } else if !device.ethernet {
        format!("{no}: it is no Ethernet device")
    } else if device.wireless {
        "the kernel's own netconsole can hardly run here: wireless drivers do not poll (an estimate)"
            .to_owned()
    } else if matches!(driver, "bond" | "bridge" | "team" | "vlan" | "macvlan") {
        format!(
            "the kernel's own netconsole can run here if the devices below {} can be polled \
             (an estimate)",
            device.name
        )
    } else {
        format!(
            "the kernel's own netconsole can run here if driver {driver} can be polled: most wired PCI \
             ones can, many USB ones cannot (an estimate)"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    fn own(remote: &str) -> Vec<SocketAddr> {
        vec![remote.parse().unwrap()]
    }

    fn theirs(remote: &str) -> Facts {
        let target = KernelTarget {
            name: "old".to_owned(),
            enabled: true,
            remote: remote.parse().ok(),
            port: Some(6666),
        };
        Facts { active: true, available: Some(true), targets: vec![target] }
    }

    #[test]
    fn the_same_receiver_twice_is_told() {
        let findings = judge(&theirs("192.0.2.2"), &own("192.0.2.2:6666"));
        assert_eq!(findings[0].level, Level::Warn);
        assert!(findings[0].finding.contains("target old"), "{findings:?}");
        assert!(findings[0].remedy.as_ref().unwrap().contains("netconsole/old/enabled"));
        for other in [own("192.0.2.2:1514"), own("192.0.2.3:6666")] {
            assert_eq!(judge(&theirs("192.0.2.2"), &other)[0].level, Level::Ok);
        }
        let mut disabled = theirs("192.0.2.2");
        disabled.targets[0].enabled = false;
        assert_eq!(judge(&disabled, &own("192.0.2.2:6666"))[0].level, Level::Ok);
        assert!(judge(&Facts::default(), &[])[0].finding.contains("not loaded"));
    }

    #[test]
    fn the_estimate_goes_by_kind_and_kernel() {
        let facts = Facts { available: Some(false), ..Facts::default() };
        let of = |device: device::Facts, version| estimate(&facts, &device, version).finding;
        let device = device::tests::ethernet;
        let veth = device::Facts { kind: Some("veth".to_owned()), driver: None, ..device() };
        assert!(of(veth.clone(), (6, 12)).contains("veth refuses netpoll"));
        assert!(of(veth, (6, 11)).contains("can run here if driver veth"));
        let port = device::Facts { master: Some("br0".to_owned()), ..device() };
        assert!(of(port, (6, 1)).contains("is a port of br0"));
        let wireless = device::Facts { wireless: true, ..device() };
        assert!(of(wireless, (6, 1)).contains("hardly"));
        assert!(of(device(), (6, 1)).contains("without CONFIG_NETCONSOLE"));
    }
}
