//! Values of the host and names of cgroups, kept up to date while targets send them.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use rtrb::{Consumer, Producer, RingBuffer};

use super::{Input, Manager};
use crate::{
    config,
    control::settings::wanted_of,
    extradata::{CgroupNames, CgroupResolver, HostValues, cgroup::Walked},
    netconsole::Sysdata,
};

/// Ids of cgroups that wait to be looked for.
const UNNAMED_MAX: usize = 256;
const REFRESH_EVERY: Duration = Duration::from_secs(1);

/// See the module's description.
pub(in crate::control) struct ExtraData {
    pub(super) wanted: Sysdata,
    pub(super) values: HostValues,
    cgroups: CgroupResolver,
    unnamed: Consumer<u64>,
    refresh_at: Instant,
    /// What was said last about a walk that did not go well.
    trouble: Option<String>,
}

/// What the pump needs of it.
pub(in crate::control) type ForThePump = (Arc<ArcSwap<CgroupNames>>, Producer<u64>);

impl ExtraData {
    /// Reads what these targets want to send of the host.
    pub(in crate::control) fn new(targets: &[config::Target]) -> (Self, ForThePump) {
        let wanted = wanted_of(targets.iter());
        let cgroups = CgroupResolver::new();
        let (producer, unnamed) = RingBuffer::new(UNNAMED_MAX);
        let names = cgroups.names();
        let values = HostValues::read(wanted);
        let extradata =
            Self { wanted, values, cgroups, unnamed, refresh_at: Instant::now(), trouble: None };
        (extradata, (names, producer))
    }

    /// The names that are known.
    pub(super) fn cgroup_names(&self) -> Arc<CgroupNames> {
        self.cgroups.names().load_full()
    }

    pub(in crate::control) fn values(&self) -> &HostValues {
        &self.values
    }
}

impl Manager {
    /// Reads again what may have changed; once a second.
    pub(super) fn refresh_extradata(&mut self, now: Instant) {
        if now < self.extradata.refresh_at {
            return;
        }
        self.extradata.refresh_at = now + REFRESH_EVERY;
        let values = HostValues::read(self.extradata.wanted);
        if values != self.extradata.values {
            self.extradata.values = values;
            for life in self.lives.values_mut() {
                let host = self.extradata.values.lines(life.config.sysdata);
                life.store_host_lines(host);
            }
        }
        if self.lives.values().any(|life| life.names_cgroups()) {
            self.name_cgroups(now);
        }
    }

    fn name_cgroups(&mut self, now: Instant) {
        while let Ok(id) = self.extradata.unnamed.pop() {
            self.extradata.cgroups.missing(id);
        }
        if let Some(walk) = self.extradata.cgroups.due(now) {
            let sender = self.sender.clone();
            tokio::task::spawn_blocking(move || {
                // Nobody listens any more only when the agent ends.
                let _ = sender.send(Input::Walked(walk.run()));
            });
        }
    }

    pub(super) fn walked(&mut self, walked: Walked) {
        let trouble = match self.extradata.cgroups.finish(walked, Instant::now()) {
            Ok(stats) if stats.truncated => {
                Some(format!("there are more than {} cgroups; the rest has no path", stats.groups))
            }
            Ok(_) => None,
            Err(error) => Some(error.to_string()),
        };
        if trouble != self.extradata.trouble {
            if let Some(error) = &trouble {
                tracing::warn!(
                    error,
                    "Paths of cgroups are not known; records have the leaf name."
                );
            }
            self.extradata.trouble = trouble;
        }
    }
}
