//! The targets' settings as the pump uses them: made from the configuration and from what
//! the host says of itself.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::{
    checkpoint::Checkpoint,
    config,
    extradata::{HostValues, template},
    ledger::SharedLedger,
    netconsole::{Format, FormatKind, Sysdata, SysdataKey, format::userdata},
    pump::{PumpTarget, TARGETS_MAX, TargetSeed},
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

    /// Release of the kernel.
    #[must_use]
    pub fn release(&self) -> &[u8] {
        &self.release
    }

    fn format(&self, target: &config::Target, host: &HostValues, userdata: Box<[u8]>) -> Format {
        let mut format = match target.format {
            FormatKind::Extended => Format::extended(&self.release),
            FormatKind::Basic => Format::basic(&self.release),
        };
        format.release_prefix = target.release;
        format.sysdata = target.sysdata;
        format.basic.time = self.time;
        format.basic.caller = self.shows_caller;
        format.basic.syslog_prefix = self.syslog_prefix;
        format.userdata = userdata;
        format.host = host.lines(target.sysdata);
        format
    }
}

/// The keys of all targets that are read from the host.
pub(super) fn wanted_of<'a>(targets: impl Iterator<Item = &'a config::Target>) -> Sysdata {
    targets.flat_map(|target| target.sysdata.keys()).collect()
}

/// Why a target's settings cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// A filter that cannot be had.
    #[error("target {target}: {source}")]
    Filter {
        /// Name of the target.
        target: String,
        /// What is wrong with it.
        source: FilterError,
    },
    /// More targets than the pump holds.
    #[error("{targets} targets are more than the {TARGETS_MAX} that an agent holds")]
    TooMany {
        /// So many.
        targets: usize,
    },
}

/// Makes the settings of all targets of one configuration.
pub(super) struct SettingsMaker<'a> {
    format: &'a HostFormat,
    values: &'a HostValues,
    /// What was compiled so far: many targets have the same rules.
    filters: Vec<Arc<Filter>>,
    /// What is left out of the extra data, and why.
    pub(super) warnings: Vec<String>,
}

impl<'a> SettingsMaker<'a> {
    pub(super) fn new(format: &'a HostFormat, values: &'a HostValues) -> Self {
        Self { format, values, filters: Vec::new(), warnings: Vec::new() }
    }

    /// The settings of one target. A filter that stays the same keeps what it remembers.
    pub(super) fn settings(
        &mut self,
        target: &config::Target,
        before: Option<&Arc<Filter>>,
    ) -> Result<TargetSettings, SettingsError> {
        let userdata = self.userdata(target);
        let filter = self.filter(target, before)?;
        let names_cgroups = filter.needs_cgroup_path()
            || target.sysdata.contains(SysdataKey::Cgroup)
            || target.sysdata.contains(SysdataKey::Unit);
        Ok(TargetSettings {
            name: target.name.clone(),
            format: self.format.format(target, self.values, userdata),
            filter,
            names_cgroups,
            copies: target.copies,
            pace: target.pace.map(|per_second| Pace { per_second, ..Pace::default() }),
        })
    }

    /// The lines of userdata, templates filled in. What has no value now is left out.
    fn userdata(&mut self, target: &config::Target) -> Box<[u8]> {
        let mut entries: Vec<(&str, String)> = Vec::new();
        for (key, value) in &target.userdata {
            let filled = template::expand(value).map_err(|error| error.to_string());
            let checked =
                filled.and_then(|value| match userdata([(key.as_str(), value.as_str())]) {
                    Ok(_) => Ok(value),
                    Err(error) => Err(error.to_string()),
                });
            match checked {
                Ok(value) => entries.push((key, value)),
                Err(error) => self.warnings.push(format!(
                    "target {}: userdata key `{key}` is left out: {error}",
                    target.name
                )),
            }
        }
        let entries = entries.iter().map(|(key, value)| (*key, value.as_str()));
        // The number of keys was checked with the configuration.
        userdata(entries).unwrap_or_default()
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
        let failed = |source| SettingsError::Filter { target: target.name.clone(), source };
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
    pub fn for_the_pump(
        &self,
        first_seq: Option<u64>,
        checkpoint: Option<Checkpoint>,
    ) -> Box<PumpTarget> {
        PumpTarget::new(TargetSeed {
            settings: Arc::clone(&self.settings),
            ledger: Arc::clone(&self.ledger),
            first_seq,
            checkpoint,
        })
    }
}
