//! Carries out what is asked at the control socket, and keeps the configuration in force.
//!
//! A change is checked whole before anything of it is used: if it is refused, everything
//! stays as it was.

use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::{
    manager::Manager,
    protocol::{Reply, Request},
    socket::{Answer, Asked, Peer},
};
use crate::{
    cli::logging,
    config::{self, LiveChange, Sources},
};

/// See the module's description.
pub(super) struct Desk {
    sources: Sources,
    /// What the agent itself was started with; it stays so until the next start.
    agent: config::Agent,
    /// Changes of the configuration that were taken.
    pub(super) generation: u64,
    /// Why the files are not what is in force.
    pub(super) error: Option<String>,
    /// Targets of the files that were removed live.
    pub(super) removed: Vec<String>,
    /// When the level of the log becomes the one before again, and which that was.
    level_until: Option<(Instant, String)>,
}

impl Desk {
    pub(super) fn new(sources: Sources, agent: config::Agent) -> Self {
        Self { sources, agent, generation: 1, error: None, removed: Vec::new(), level_until: None }
    }

    /// Carries out all requests but `status`.
    pub(super) fn serve(&mut self, asked: Asked, manager: &mut Manager) {
        let Asked { request, by, answer } = asked;
        let reply = match request {
            Request::Status => return,
            Request::Resolve { target } => return resolve(manager, target.as_deref(), answer),
            Request::FilterExplain { target, line, last } => {
                return manager.explain(&target, line.as_deref(), last, answer);
            }
            Request::Dump => return dump(manager, answer),
            Request::Tail { target } => manager.tail(&target),
            Request::List => Reply::told(manager.names()).into(),
            Request::Send { targets, all, text } => manager.message(&targets, all, &text).into(),
            Request::Ping { target } => manager.ping(&target).into(),
            Request::Enable { target } => manager.switch(&target, true).into(),
            Request::Disable { target } => manager.switch(&target, false).into(),
            Request::Set { target, settings } => {
                self.change(manager, by, &LiveChange::Set { target, settings }).into()
            }
            Request::Add { target, settings } => {
                self.change(manager, by, &LiveChange::Add { target, settings }).into()
            }
            Request::Remove { target } => {
                self.change(manager, by, &LiveChange::Remove { target }).into()
            }
            Request::UserdataSet { target, key, value } => {
                self.change(manager, by, &LiveChange::UserdataSet { target, key, value }).into()
            }
            Request::UserdataUnset { target, key } => {
                self.change(manager, by, &LiveChange::UserdataUnset { target, key }).into()
            }
            Request::Reload => self.reload(manager).into(),
            Request::Loglevel { level, for_s } => self.set_level(&level, for_s).into(),
        };
        // The client may have gone away.
        let _ = answer.send(reply);
    }

    /// Reads the files anew and uses them, if they are good.
    pub(super) fn reload(&mut self, manager: &mut Manager) -> Reply {
        let checked = self.sources.reread().and_then(|sources| Ok((sources.check()?, sources)));
        let outcome = checked.map_err(|error| error.to_string()).and_then(|(config, sources)| {
            let mut warnings = self.take(manager, &config)?;
            warnings.extend(needs_restart(&self.agent, &config.agent));
            self.sources = sources;
            Ok(warnings)
        });
        match outcome {
            Ok(warnings) => {
                tracing::info!(
                    generation = self.generation,
                    "The configuration was read anew and is in use."
                );
                warnings
                    .iter()
                    .for_each(|warning| tracing::warn!(warning, "About the configuration."));
                self.error = None;
                Reply::told(warnings)
            }
            Err(error) => {
                tracing::error!(error, "The configuration is not used; the one before stays.");
                self.error = Some(error.clone());
                Reply::refused(error)
            }
        }
    }

    fn change(&mut self, manager: &mut Manager, by: Peer, change: &LiveChange) -> Reply {
        let checked = self.sources.with_live(change);
        let checked = checked.and_then(|sources| Ok((sources.check()?, sources)));
        let outcome = checked.map_err(|error| error.to_string()).and_then(|(config, sources)| {
            let warnings = self.take(manager, &config)?;
            self.sources = sources;
            Ok(warnings)
        });
        match outcome {
            Ok(warnings) => {
                tracing::info!(?change, uid = by.uid, pid = by.pid, "Changed by an operator.");
                Reply::told(warnings)
            }
            Err(error) => Reply::refused(error),
        }
    }

    /// Uses a checked configuration; returns what is odd about it.
    fn take(
        &mut self,
        manager: &mut Manager,
        config: &config::Config,
    ) -> Result<Vec<String>, String> {
        let mut warnings = manager.apply(&config.targets).map_err(|error| error.to_string())?;
        if !config.warnings.report.is_empty() {
            warnings.push(config.warnings.report.clone());
        }
        manager.limit_hold(config.last_words);
        self.removed.clone_from(&config.removed);
        self.generation += 1;
        Ok(warnings)
    }

    fn set_level(&mut self, level: &str, for_s: Option<u64>) -> Reply {
        match logging::set_level(level) {
            Ok(before) => {
                let before = self.level_until.take().map_or(before, |(_, before)| before);
                self.level_until = for_s.map(|for_s| {
                    let for_s = for_s.min(LEVEL_MAX_S);
                    (Instant::now() + Duration::from_secs(for_s), before)
                });
                tracing::info!(level, for_s, "The level of the log was changed.");
                Reply::done()
            }
            Err(error) => Reply::refused(error),
        }
    }

    /// Waits until the level of the log is to be the one before, and sets it.
    pub(super) async fn revert_level(&mut self) {
        let Some((until, before)) = self.level_until.clone() else {
            return std::future::pending().await;
        };
        tokio::time::sleep_until(until.into()).await;
        self.level_until = None;
        // It was in use before.
        let _ = logging::set_level(&before);
        tracing::info!(level = before, "The level of the log is as before.");
    }
}

/// Longest time of another log level: a month.
const LEVEL_MAX_S: u64 = 31 * 86_400;

/// How long a dump may take; mostly it takes milliseconds.
const DUMP_PATIENCE: Duration = Duration::from_secs(3);

fn dump(manager: &mut Manager, answer: oneshot::Sender<Answer>) {
    let asked = match manager.last_words() {
        Some(last_words) => last_words.ask_dump(),
        None => Err("the agent is not ready yet".to_owned()),
    };
    let (before, dumps) = match asked {
        Ok(asked) => asked,
        Err(error) => {
            // The client may have gone away.
            let _ = answer.send(Reply::refused(error).into());
            return;
        }
    };
    tokio::spawn(async move {
        let until = Instant::now() + DUMP_PATIENCE;
        let reply = loop {
            match dumps.dumps() {
                (made, 0) if made > before => {
                    break Reply::refused("no packet of the dump could be sent");
                }
                (made, packets) if made > before => {
                    break Reply::told(vec![format!("packets sent: {packets}")]);
                }
                _ if Instant::now() >= until => {
                    break Reply::refused(
                        "the dump is not sent yet; `status --verbose` counts dumps",
                    );
                }
                _ => tokio::time::sleep(Duration::from_millis(2)).await,
            }
        };
        let _ = answer.send(reply.into());
    });
}

fn resolve(manager: &mut Manager, target: Option<&str>, answer: oneshot::Sender<Answer>) {
    let (sender, receiver) = oneshot::channel();
    manager.resolve(target, sender);
    tokio::spawn(async move {
        if let Ok(reply) = receiver.await {
            // The client may have gone away.
            let _ = answer.send(Answer::Once(reply));
        }
    });
}

/// What a reload cannot change.
fn needs_restart(now: &config::Agent, wanted: &config::Agent) -> Vec<String> {
    let changed = [
        ("control_socket", now.control_socket != wanted.control_socket),
        ("control_group", now.control_group != wanted.control_group),
        ("capture", now.capture != wanted.capture),
        ("replay", now.replay != wanted.replay),
        ("runtime_dir", now.runtime_dir != wanted.runtime_dir),
        ("state_dir", now.state_dir != wanted.state_dir),
        ("store", now.store_bytes != wanted.store_bytes),
        ("metrics", now.metrics != wanted.metrics),
        ("ring", now.ring_bytes != wanted.ring_bytes),
    ];
    let changed = changed.into_iter().filter(|(_, changed)| *changed);
    changed.map(|(key, _)| format!("`{key}` of [agent] changes with a restart only")).collect()
}
