//! The set of targets: what the configuration says of it, and what operators ask of it.

use std::{sync::Arc, time::Instant};

use tokio::sync::oneshot;

use super::{Asked, Manager, RESOLVE_PATIENCE, messages::random};
use crate::{
    checkpoint::{Checkpoint, Checkpoints},
    clock, config,
    control::{
        life::Life,
        protocol::Reply,
        settings::{Prepared, SettingsError, SettingsMaker, wanted_of},
    },
    extradata::HostValues,
    pump::{Command, TARGETS_MAX},
    target::{
        TargetSettings,
        state::{Event, Reason, State, WaitKind},
    },
};

/// A target's checkpoint, and how far an earlier run came with it. Without one it works all the
/// same; only the start after this one does not know where it ended.
pub(in crate::control) fn open_checkpoint(
    checkpoints: Option<&Checkpoints>,
    target: &str,
) -> (Option<Checkpoint>, Option<u64>) {
    match checkpoints.map(|checkpoints| checkpoints.of(target)) {
        Some(Ok((checkpoint, ended_at))) => (Some(checkpoint), ended_at),
        Some(Err(error)) => {
            let why = "After the next start some records may come twice.";
            tracing::warn!(target_name = target, %error, "{why}");
            (None, None)
        }
        None => (None, None),
    }
}

impl Manager {
    /// Takes charge of targets that the pump already has, at the indices of their order.
    pub(in crate::control) fn adopt(&mut self, targets: Vec<(config::Target, Prepared)>) {
        for (place, (target, prepared)) in targets.into_iter().enumerate() {
            self.places[place] = true;
            self.live(place, place, target, prepared);
        }
    }

    /// Makes the targets those of another configuration. Who stays keeps its socket, sequence,
    /// counters and place in the record store. Returns what is odd.
    ///
    /// # Errors
    /// If some settings cannot be made; then nothing is changed.
    pub(in crate::control) fn apply(
        &mut self,
        targets: &[config::Target],
    ) -> Result<Vec<String>, SettingsError> {
        let wanted = wanted_of(targets.iter());
        let values = HostValues::read(wanted);
        let host_format = self.host_format.clone();
        let mut maker = SettingsMaker::new(&host_format, &values);
        let mut all = Vec::new();
        for wanted in targets {
            let id = self.id_of(&wanted.name);
            let before = id.and_then(|id| self.lives.get(&id)).map(Life::filter);
            all.push((id, wanted, maker.settings(wanted, before.as_ref())?));
        }
        if all.len() > TARGETS_MAX {
            return Err(SettingsError::TooMany { targets: all.len() });
        }
        for target in self.ids() {
            let is_wanted = all.iter().any(|(id, ..)| *id == Some(target));
            if let Some(life) = self.lives.get_mut(&target)
                && !is_wanted
                && !life.removing
            {
                life.removing = true;
                if let Some(checkpoints) = &self.checkpoints
                    && let Err(error) = checkpoints.forget(&life.config.name)
                {
                    tracing::warn!(%error, "A later target of that name may begin too early.");
                }
                self.handle(target, Event::Disable);
            }
        }
        for (order, (id, wanted, settings)) in all.into_iter().enumerate() {
            match id {
                Some(id) => self.update(id, order, wanted, settings),
                None => self.add(order, wanted, settings),
            }
        }
        self.remove_ended();
        self.plan_is_old = true;
        let warnings = maker.warnings;
        (self.extradata.wanted, self.extradata.values) = (wanted, values);
        Ok(warnings)
    }

    fn add(&mut self, order: usize, wanted: &config::Target, settings: TargetSettings) {
        let Some(place) = self.places.iter().position(|taken| !taken) else {
            // The configuration was checked; those that are on their way out are in the way.
            tracing::error!(
                target_name = wanted.name.as_str(),
                most = TARGETS_MAX,
                "The target cannot be added: too many targets; reload again."
            );
            return;
        };
        self.places[place] = true;
        let prepared = Prepared::new(settings);
        let (checkpoint, _) = open_checkpoint(self.checkpoints.as_ref(), &wanted.name);
        let target = prepared.for_the_pump(None, checkpoint);
        self.link.send(Command::Add { index: place, target });
        self.live(place, order, wanted.clone(), prepared);
    }

    fn live(&mut self, place: usize, order: usize, target: config::Target, prepared: Prepared) {
        self.last_id += 1;
        let (id, enabled) = (self.last_id, target.enabled);
        self.lives.insert(id, Life::new(place, order, target, prepared));
        if enabled {
            self.handle(id, Event::Enable);
        }
    }

    fn update(
        &mut self,
        id: usize,
        order: usize,
        wanted: &config::Target,
        settings: TargetSettings,
    ) {
        let Some(life) = self.lives.get_mut(&id) else { return };
        life.order = order;
        life.store_settings(settings);
        let same = config::Target { live: life.config.live.clone(), ..wanted.clone() };
        if *life.config == same {
            life.config = Arc::new(wanted.clone());
            return;
        }
        let was_enabled = life.config.enabled;
        let same_way = life.config.has_same_way(wanted);
        if life.config.keepalive != wanted.keepalive {
            life.keepalives.begin(wanted.keepalive, clock::since_boot(), random());
        }
        life.configure(wanted.clone());
        // What an operator switched stays so, unless the configuration now says otherwise.
        if was_enabled != wanted.enabled {
            self.handle(id, if wanted.enabled { Event::Enable } else { Event::Disable });
        }
        if !same_way {
            // From now on nothing may go where it went before.
            let text = "its settings were changed".to_owned();
            let was_active = self.lives.get(&id).is_some_and(Life::is_active);
            self.handle(id, Event::Lost(Reason { kind: WaitKind::Starting, text }));
            // One that it was in before is an outage all the same.
            if let Some(life) = self.lives.get_mut(&id).filter(|_| was_active) {
                life.heals.is_wanted();
            }
        }
    }

    /// Takes the targets out of the pump whose sockets are given up.
    pub(super) fn remove_ended(&mut self) {
        for target in self.ids() {
            let ended = |life: &Life| life.removing && *life.machine.state() == State::Disabled;
            if self.lives.get(&target).is_some_and(ended)
                && let Some(life) = self.lives.remove(&target)
            {
                self.link.send(Command::Remove { index: life.place });
                self.leaving.insert(life.place, life);
                // The pump gives it back in a moment.
                self.tick_at = Instant::now();
            }
        }
    }

    fn id_of(&self, name: &str) -> Option<usize> {
        let is_it = |life: &Life| !life.removing && life.config.name == name;
        self.lives.iter().find(|(_, life)| is_it(life)).map(|(id, _)| *id)
    }

    /// Finds the way of one target, or of all, anew, and answers when that is done.
    pub(in crate::control) fn resolve(
        &mut self,
        name: Option<&str>,
        answer: oneshot::Sender<Reply>,
    ) {
        match self.named(name) {
            Ok(targets) => {
                self.hurry_names();
                for target in &targets {
                    self.handle(*target, Event::Changed);
                }
                let until = Instant::now() + RESOLVE_PATIENCE;
                self.asked.push(Asked { targets, until, answer });
            }
            // The client may have gone away.
            Err(error) => drop(answer.send(Reply::refused(error))),
        }
    }

    /// Switches a target on or off.
    pub(in crate::control) fn switch(&mut self, name: &str, on: bool) -> Reply {
        match self.named(Some(name)) {
            Ok(targets) => {
                for target in targets {
                    self.handle(target, if on { Event::Enable } else { Event::Disable });
                }
                Reply::done()
            }
            Err(error) => Reply::refused(error),
        }
    }

    /// The names of all targets, in the order of the configuration.
    pub(in crate::control) fn names(&self) -> Vec<String> {
        self.in_order().map(|life| life.config.name.clone()).collect()
    }

    pub(super) fn named(&self, name: Option<&str>) -> Result<Vec<usize>, String> {
        let wanted =
            |life: &Life| !life.removing && name.is_none_or(|name| life.config.name == name);
        let wanted = self.lives.iter().filter(|(_, life)| wanted(life));
        let wanted: Vec<usize> = wanted.map(|(target, _)| *target).collect();
        if wanted.is_empty() {
            return Err(format!("there is no target {:?}", name.unwrap_or_default()));
        }
        Ok(wanted)
    }

    pub(super) fn answer_asked(&mut self) {
        let now = Instant::now();
        let decided = |asked: &Asked| {
            let mut lives = asked.targets.iter().filter_map(|target| self.lives.get(target));
            now >= asked.until || lives.all(|life| life.machine.is_decided())
        };
        let (ready, rest) = std::mem::take(&mut self.asked).into_iter().partition(decided);
        self.asked = rest;
        for Asked { targets, answer, .. } in ready {
            let problems: Vec<String> = targets
                .into_iter()
                .filter_map(|target| {
                    let status = self.lives.get(&target)?.status();
                    let problem = status
                        .waiting_for
                        .or((status.state != "active").then(|| format!("it is {}", status.state)))?;
                    Some(format!("{}: {problem}", status.name))
                })
                .collect();
            // The client may have gone away.
            let _ = answer.send(if problems.is_empty() {
                Reply::done()
            } else {
                Reply::refused(problems.join("; "))
            });
        }
    }
}
