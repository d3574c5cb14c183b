//! What the format of the packets takes from the host, and the targets' settings
//! that follow from it.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::{
    config,
    ledger::SharedLedger,
    netconsole::{Format, FormatKind, format::userdata},
    pump::{PumpTarget, TargetSeed},
    target::{Pace, TargetSettings},
};

/// What the format of the packets takes from the host.
#[derive(Clone, Debug)]
pub struct HostFormat {
    release: Vec<u8>,
    shows_caller: bool,
    time: bool,
    syslog_prefix: bool,
}

impl HostFormat {
    /// Looks the kernel's own settings up, so that the basic format equals what its
    /// consoles show (`printk.time`, `console_msg_format`).
    #[must_use]
    pub fn of_this_host(shows_caller: bool) -> Self {
        let time = std::fs::read_to_string("/sys/module/printk/parameters/time");
        let cmdline = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
        Self {
            release: rustix::system::uname().release().to_bytes().to_vec(),
            shows_caller,
            time: time.map_or(true, |text| text.trim() != "N"),
            syslog_prefix: cmdline
                .split_whitespace()
                .any(|word| word == "console_msg_format=syslog"),
        }
    }

    pub(super) fn settings(&self, target: &config::Target) -> TargetSettings {
        let mut format = match target.format {
            FormatKind::Extended => Format::extended(&self.release),
            FormatKind::Basic => Format::basic(&self.release),
        };
        format.release_prefix = target.release;
        format.sysdata = target.sysdata;
        format.basic.time = self.time;
        format.basic.caller = self.shows_caller;
        format.basic.syslog_prefix = self.syslog_prefix;
        let entries = target.userdata.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        // The configuration was checked by the same function.
        format.userdata = userdata(entries).unwrap_or_default();
        TargetSettings {
            name: target.name.clone(),
            format,
            max_level: target.max_level,
            pace: target.pace.map(|per_second| Pace { per_second, ..Pace::default() }),
        }
    }

    /// Prepares a target for the pump.
    #[must_use]
    pub fn prepare(&self, target: &config::Target) -> Prepared {
        Prepared {
            settings: Arc::new(ArcSwap::from_pointee(self.settings(target))),
            ledger: Arc::new(SharedLedger::default()),
        }
    }
}

/// What the control thread shares with the pump about one target.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// The settings; swapped, never changed.
    pub settings: Arc<ArcSwap<TargetSettings>>,
    /// The account, as the pump publishes it.
    pub ledger: Arc<SharedLedger>,
}

impl Prepared {
    /// The target, to be lent to the pump.
    #[must_use]
    pub fn for_the_pump(&self) -> Box<PumpTarget> {
        PumpTarget::new(TargetSeed {
            settings: Arc::clone(&self.settings),
            ledger: Arc::clone(&self.ledger),
        })
    }
}
