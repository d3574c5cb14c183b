//! The targets' settings as the pump uses them: made from the configuration and from what
//! the host says of itself.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::{
    config,
    ledger::SharedLedger,
    netconsole::{Format, FormatKind, format::userdata},
    pump::{PumpTarget, TargetSeed},
    target::{
        Pace, TargetSettings,
        filter::{Filter, FilterError, FilterSpec},
    },
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

    fn format(&self, target: &config::Target) -> Format {
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
        format
    }
}

/// Why a target's settings cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("target {target}: {source}")]
pub struct SettingsError {
    /// Name of the target.
    pub target: String,
    /// What is wrong with its filter.
    #[source]
    pub source: FilterError,
}

/// Makes the settings of all targets of one configuration.
pub(super) struct SettingsMaker<'a> {
    host: &'a HostFormat,
    /// What was compiled so far: many targets have the same rules.
    filters: Vec<Arc<Filter>>,
}

impl<'a> SettingsMaker<'a> {
    pub(super) fn new(host: &'a HostFormat) -> Self {
        Self { host, filters: Vec::new() }
    }

    /// The settings of one target. A filter that stays the same keeps what it remembers.
    pub(super) fn settings(
        &mut self,
        target: &config::Target,
        before: Option<&Arc<Filter>>,
    ) -> Result<TargetSettings, SettingsError> {
        Ok(TargetSettings {
            name: target.name.clone(),
            format: self.host.format(target),
            filter: self.filter(target, before)?,
            pace: target.pace.map(|per_second| Pace { per_second, ..Pace::default() }),
        })
    }

    fn filter(
        &mut self,
        target: &config::Target,
        before: Option<&Arc<Filter>>,
    ) -> Result<Arc<Filter>, SettingsError> {
        let spec = FilterSpec {
            max_level: target.max_level,
            facilities: target.facilities.clone(),
            rules: target.filter.clone(),
            rate: target.rate,
        };
        if let Some(same) = before.filter(|filter| *filter.spec() == spec) {
            return Ok(Arc::clone(same));
        }
        if let Some(like) = self.filters.iter().find(|filter| *filter.spec() == spec) {
            return Ok(Arc::new(like.for_another_target()));
        }
        let failed = |source| SettingsError { target: target.name.clone(), source };
        let filter = Arc::new(Filter::compile(spec).map_err(failed)?);
        self.filters.push(Arc::clone(&filter));
        Ok(filter)
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
    pub(super) fn new(settings: TargetSettings) -> Self {
        Self {
            settings: Arc::new(ArcSwap::from_pointee(settings)),
            ledger: Arc::new(SharedLedger::default()),
        }
    }

    /// The target, to be lent to the pump.
    #[must_use]
    pub fn for_the_pump(&self) -> Box<PumpTarget> {
        PumpTarget::new(TargetSeed {
            settings: Arc::clone(&self.settings),
            ledger: Arc::clone(&self.ledger),
        })
    }
}
