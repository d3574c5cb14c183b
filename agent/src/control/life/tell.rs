//! What a target's life says: to the log, and to `status`.

use std::time::{Instant, SystemTime};

use super::{HISTORY, Life};
use crate::{
    control::{
        metrics::view::TargetScrape,
        status::{
            Account, EgressStatus, NextHopStatus, TargetStatus, TransitionStatus,
            after_crash::AfterCrashTarget,
        },
        way::WayOut,
    },
    egress::EgressKind,
    frame::mac_text,
    names::NameState,
    net::MacSource,
    netconsole::FormatKind,
    target::state::{State, WaitKind},
};

impl Life {
    /// Logs that records may have gone astray.
    pub(in crate::control) fn tell_doubt(&self, records: u64, why: &str) {
        if records > 0 {
            tracing::warn!(
                target_name = self.config.name.as_str(),
                records,
                why,
                "Records may have gone to a wrong MAC address since the neighbour was last confirmed."
            );
        }
    }

    /// Remembers a transition and logs it, if there was one.
    pub(in crate::control) fn note(&mut self, before: &State, cause: &str) {
        let after = self.machine.state();
        self.heals.changed(Instant::now(), before, after);
        if before.name() != after.name() {
            self.since = SystemTime::now();
        }
        let same = match (before, after) {
            (State::Waiting(before), State::Waiting(after)) => before.kind == after.kind,
            (before, after) => before == after,
        };
        if same {
            return;
        }
        let (from, to) = (describe(before), describe(after));
        let cause = match after {
            State::Waiting(reason) => reason.text.clone(),
            _ => cause.to_owned(),
        };
        self.tell(&from, &to, &cause);
        if self.is_in_trouble() {
            self.last_error = Some(cause.clone());
        }
        if self.history.len() == HISTORY {
            self.history.pop_front();
        }
        self.history.push_back(TransitionStatus { unix_ms: unix_ms(), from, to, cause });
    }

    /// Whether it waits for something that does not come by itself in a moment.
    fn is_in_trouble(&self) -> bool {
        matches!(self.machine.state(), State::Waiting(reason)
            if !matches!(reason.kind, WaitKind::Starting | WaitKind::Opening))
    }

    fn tell(&mut self, from: &str, to: &str, cause: &str) {
        let name = self.config.name.as_str();
        let Some(suppressed) = self.log.allow(Instant::now()) else {
            tracing::debug!(target_name = name, from, to, cause, "The target's state changed.");
            return;
        };
        match (self.machine.state(), self.machine.way()) {
            (State::Active, Some(way)) => tracing::info!(
                target_name = name,
                remote = %way.remote,
                egress = way.kind().name(),
                device = way.hop.as_ref().map(|hop| hop.ifname.as_str()),
                reason = %self.fallback_reason.as_ref().unwrap_or(&way.reason),
                from,
                cause,
                suppressed,
                "The target sends."
            ),
            (State::Waiting(_), _) if self.is_in_trouble() => {
                tracing::warn!(
                    target_name = name,
                    from,
                    to,
                    error = cause,
                    suppressed,
                    "The target cannot send."
                );
            }
            _ => tracing::info!(
                target_name = name,
                from,
                to,
                cause,
                suppressed,
                "The target's state changed."
            ),
        }
    }

    /// Logs once if the account was wrong at any time.
    pub(in crate::control) fn tell_imbalance(&mut self) {
        let ledger = &self.shared.ledger;
        if ledger.unbalanced() > 0 && !self.told_imbalance {
            self.told_imbalance = true;
            tracing::error!(
                target_name = self.config.name.as_str(),
                account = Account::from(&**ledger).in_full(),
                "The target's account does not balance: a mistake in the agent, please report it."
            );
        }
    }

    /// What metrics are made of.
    pub(in crate::control) fn scrape(&self) -> TargetScrape {
        TargetScrape {
            name: self.config.name.clone(),
            state: self.machine.state().clone(),
            since: self.since,
            ledger: self.shared.ledger.read(),
            unbalanced: self.shared.ledger.unbalanced(),
            suspected: self.suspicion.records,
            heals: self.heals.clone(),
            after_crash: self.after_crash.as_ref().map(AfterCrashTarget::from).unwrap_or_default(),
        }
    }

    /// Logs what has become of the records.
    pub(in crate::control) fn log_account(&self) {
        tracing::info!(
            target_name = self.config.name.as_str(),
            account = Account::from(&*self.shared.ledger).in_full(),
            "The target's final account."
        );
    }

    pub(in crate::control) fn status(&self) -> TargetStatus {
        let format = match self.config.format {
            FormatKind::Extended => "extended",
            FormatKind::Basic => "basic",
        };
        let (waiting_for, waiting_kind) = match self.machine.state() {
            State::Waiting(reason) => (Some(reason.text.clone()), Some(reason.kind.name())),
            _ => (None, None),
        };
        let mut live = self.config.live.clone();
        let is_on = matches!(self.machine.state(), State::Waiting(_) | State::Active);
        if is_on != self.config.enabled && !live.iter().any(|key| key == "enabled") {
            live.push("enabled".to_owned());
        }
        let way = self.machine.way().filter(|_| self.is_active());
        let found = self.found.as_ref().filter(|_| self.is_active());
        TargetStatus {
            name: self.config.name.clone(),
            remote: self.config.remote.to_string(),
            remote_address: way.map(|way| way.remote.to_string()),
            format: format.to_owned(),
            state: self.machine.state().name().to_owned(),
            waiting_for,
            waiting_kind: waiting_kind.map(str::to_owned),
            egress: way.map(|way| EgressStatus {
                kind: way.kind().name().to_owned(),
                reason: self.fallback_reason.as_ref().unwrap_or(&way.reason).clone(),
                queue: (way.kind() == EgressKind::Xdp).then_some(self.config.queue),
            }),
            next_hop: found.and_then(|way| way.hop.as_ref()).map(|hop| NextHopStatus {
                device: hop.ifname.clone(),
                source: hop.local.to_string(),
                mac: hop.dst_mac.map(mac_text),
                gateway: hop.gateway.map(|gateway| gateway.to_string()),
                confirmed_s: hop.mac_confirmed_ago.map(|ago| ago.as_secs()),
            }),
            warnings: found.map(|way| self.warnings(way)).unwrap_or_default(),
            suspected: self.suspicion.records,
            transitions: self.history.iter().cloned().collect(),
            live,
            last_error: self.last_error.clone(),
            account: Account::from(&*self.shared.ledger),
            after_crash: self.after_crash.as_ref().map(AfterCrashTarget::from),
        }
    }

    /// What works, and yet is probably not meant so.
    fn warnings(&self, way: &WayOut) -> Vec<String> {
        let failure = self.name.as_ref().and_then(NameState::failure);
        let mut warnings: Vec<String> = failure
            .map(|failure| format!("{} (the last known address is used)", failure.error))
            .into_iter()
            .collect();
        let Some(hop) = &way.hop else { return warnings };
        if let Some(route_device) = &hop.route_device {
            warnings.push(format!(
                "wrong port? the route to {} leaves by {route_device}, but the target is configured to use {}",
                way.remote.ip(),
                hop.ifname
            ));
        }
        if let (Some(mac), MacSource::Static, Some(used)) =
            (hop.neighbour_mac, hop.mac_source, hop.dst_mac)
        {
            warnings.push(format!(
                "`remote_mac` is {}, but the neighbour table says {}",
                mac_text(used),
                mac_text(mac)
            ));
        }
        if let Some(port) = &hop.configured_device {
            warnings.push(format!(
                "{port} is a port of {}, which reaches the receiver and is used instead",
                hop.ifname
            ));
        }
        warnings
    }
}

fn describe(state: &State) -> String {
    match state {
        State::Waiting(reason) => format!("waiting ({})", reason.kind.name()),
        other => other.name().to_owned(),
    }
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
