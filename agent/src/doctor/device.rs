//! The device of a target: driver, queues, and what else rtnetlink and `/sys` tell of it.

use std::path::{Path, PathBuf};

use super::{Finding, read_trimmed, tables::Tables};
use crate::{frame::mac_text, net::Link};

/// A device.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    pub(super) name: String,
    /// As `ip -details link` names it; physical devices have none.
    pub(super) kind: Option<String>,
    pub(super) driver: Option<String>,
    pub(super) ethernet: bool,
    pub(super) loopback: bool,
    pub(super) wireless: bool,
    pub(super) up: bool,
    pub(super) carrier: bool,
    pub(super) mtu_bytes: u32,
    /// Transmit queues in use; `None` if `/sys` shows another network namespace.
    pub(super) tx_queues: Option<u32>,
    /// Transmit queues that were allocated; at least those in use.
    pub(super) allocated_tx_queues: u32,
    /// The device that it is a port of.
    pub(super) master: Option<String>,
    /// Configured qdiscs.
    pub(super) qdiscs: Vec<String>,
}

impl Facts {
    /// `None` if there is no such device.
    pub(super) async fn gather(tables: &Tables, name: &str) -> Option<Self> {
        let link = tables.link_named(name).await?;
        let master = match link.master {
            Some(index) => {
                let master = tables.link_indexed(index).await;
                Some(master.map_or_else(|| format!("device {index}"), |master| master.name))
            }
            None => None,
        };
        let sysfs = sysfs(&link);
        let sysfs = sysfs.as_deref();
        let driver = sysfs.and_then(|folder| {
            let driver = std::fs::read_link(folder.join("device/driver")).ok()?;
            Some(driver.file_name()?.to_string_lossy().into_owned())
        });
        Some(Self {
            qdiscs: tables.configured_qdiscs(link.ifindex).await,
            wireless: sysfs.is_some_and(|folder| folder.join("phy80211").exists()),
            tx_queues: sysfs.and_then(count_tx_queues),
            driver,
            master,
            name: link.name,
            kind: link.kind,
            ethernet: link.mac.is_some(),
            loopback: link.loopback,
            up: link.up,
            carrier: link.carrier,
            mtu_bytes: link.mtu_bytes,
            allocated_tx_queues: link.tx_queues,
        })
    }

    /// What kind of device it is, its state, and whether it can carry anything.
    pub(super) fn judge(&self) -> Finding {
        let kind = match (&self.driver, &self.kind) {
            (Some(driver), _) => format!("driver {driver}"),
            (None, Some(kind)) => format!("virtual, kind {kind}"),
            (None, None) => "driver not shown".to_owned(),
        };
        let text = format!("{} ({kind})", self.name);
        if !self.up {
            Finding::fail(
                "device",
                format!("{text} is down"),
                format!("ip link set {} up", self.name),
            )
        } else if !self.carrier {
            Finding::fail(
                "device",
                format!("{text} is up, but has no carrier"),
                "check the cable and the other end",
            )
        } else {
            Finding::ok("device", format!("{text}, up, with carrier, MTU {}", self.mtu_bytes))
        }
    }

    /// Whether the configured queue exists.
    pub(super) fn judge_queue(&self, queue: u32) -> Finding {
        let known = self.tx_queues.unwrap_or(self.allocated_tx_queues);
        if queue >= known {
            return Finding::fail(
                "queue",
                format!("queue {queue} does not exist: {} has {known}, counted from 0", self.name),
                "set queue = 0, or give the device more (ethtool -L)",
            );
        }
        Finding::ok(
            "queue",
            match self.tx_queues {
                Some(count) => format!("queue {queue} of {count}"),
                None => format!(
                    "queue {queue} of at most {known}; how many are in use is not shown, because /sys \
                     belongs to another network namespace"
                ),
            },
        )
    }
}

/// The device's folder, if `/sys` shows this network namespace: it belongs to the namespace of
/// whoever mounted it.
fn sysfs(link: &Link) -> Option<PathBuf> {
    let folder = Path::new("/sys/class/net").join(&link.name);
    let index: u32 = read_trimmed(folder.join("ifindex")).ok()?.parse().ok()?;
    let address = read_trimmed(folder.join("address")).ok()?;
    let ours = index == link.ifindex
        && link.mac.is_none_or(|mac| address.eq_ignore_ascii_case(&mac_text(mac)));
    ours.then_some(folder)
}

fn count_tx_queues(folder: &Path) -> Option<u32> {
    let queues = std::fs::read_dir(folder.join("queues")).ok()?.flatten();
    let tx = queues.filter(|queue| queue.file_name().as_encoded_bytes().starts_with(b"tx-"));
    u32::try_from(tx.count()).ok().filter(|count| *count > 0)
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::Level;
    use super::*;

    pub(in crate::doctor) fn ethernet() -> Facts {
        Facts {
            name: "eth7".to_owned(),
            kind: None,
            driver: Some("e1000e".to_owned()),
            ethernet: true,
            loopback: false,
            wireless: false,
            up: true,
            carrier: true,
            mtu_bytes: 1500,
            tx_queues: Some(2),
            allocated_tx_queues: 4,
            master: None,
            qdiscs: Vec::new(),
        }
    }

    #[test]
    fn a_device_that_is_down_or_unplugged_cannot_work() {
        assert_eq!(ethernet().judge().level, Level::Ok);
        assert!(ethernet().judge().finding.contains("eth7 (driver e1000e), up"));
        let down = Facts { up: false, carrier: false, ..ethernet() }.judge();
        assert_eq!(
            (down.level, down.remedy.as_deref()),
            (Level::Fail, Some("ip link set eth7 up"))
        );
        let unplugged = Facts { carrier: false, ..ethernet() }.judge();
        assert_eq!(unplugged.level, Level::Fail);
        assert!(unplugged.finding.contains("no carrier"));
    }

    #[test]
    fn queues_are_counted_from_0() {
        assert_eq!(ethernet().judge_queue(1).finding, "queue 1 of 2");
        let missing = ethernet().judge_queue(2);
        assert_eq!(missing.level, Level::Fail);
        assert!(missing.finding.contains("queue 2 does not exist"), "{missing:?}");
        // Where only the allocated ones are known, the benefit of the doubt is given.
        let elsewhere = Facts { tx_queues: None, ..ethernet() };
        assert_eq!(elsewhere.judge_queue(3).level, Level::Ok);
        assert_eq!(elsewhere.judge_queue(4).level, Level::Fail);
    }
}
