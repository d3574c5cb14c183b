//! Changes that are made while the agent runs, as layers over the files.
//!
//! The settings of a layer are the body of a target's table, parsed as a document of its own:
//! whatever header is in it, it stays inside of the target. A layer all of whose keys were set
//! anew is dropped, so that any number of changes needs no more memory than there are keys.

use std::{collections::BTreeSet, fmt};

use toml::de::DeTable;
use toml_writer::{ToTomlKey as _, ToTomlValue as _, TomlStringBuilder};

use super::{
    diagnostic::ConfigError,
    keys::{SYSDATA, USERDATA},
    source::{Role, Source, Sources},
};

/// The name of live settings in reports.
pub(super) const LIVE: &str = "(live)";
/// Most bytes of the settings of one change.
const SETTINGS_MAX_BYTES: usize = 1 << 16;

/// A change while the agent runs. Shown for debugging it has targets and keys only, since a value may
/// be a secret, and the log has many readers.
#[derive(Clone, PartialEq, Eq)]
pub enum LiveChange {
    /// Keys of a target get new values.
    Set {
        /// The target.
        target: String,
        /// The body of its table, as TOML.
        settings: String,
    },
    /// There is a new target.
    Add {
        /// Its name.
        target: String,
        /// The body of its table, as TOML.
        settings: String,
    },
    /// A target goes away.
    Remove {
        /// The target.
        target: String,
    },
    /// A key of the userdata gets a value.
    UserdataSet {
        /// The target.
        target: String,
        /// The key.
        key: String,
        /// The value; may be a template.
        value: String,
    },
    /// A key of the userdata goes away.
    UserdataUnset {
        /// The target.
        target: String,
        /// The key.
        key: String,
    },
}

impl fmt::Debug for LiveChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys = |text: &str| -> BTreeSet<String> {
            key_names(DeTable::parse_recoverable(text).0.get_ref()).collect()
        };
        let (name, target, keys) = match self {
            Self::Set { target, settings } => ("Set", target, keys(settings)),
            Self::Add { target, settings } => ("Add", target, keys(settings)),
            Self::Remove { target } => ("Remove", target, BTreeSet::new()),
            Self::UserdataSet { target, key, .. } => {
                ("UserdataSet", target, BTreeSet::from([userdata_key(key)]))
            }
            Self::UserdataUnset { target, key } => {
                ("UserdataUnset", target, BTreeSet::from([userdata_key(key)]))
            }
        };
        f.debug_struct(name).field("target", target).field("keys", &keys).finish()
    }
}

/// What a layer does to its target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Settings of a new target.
    Define,
    /// Settings over those there are.
    Change,
    /// A userdata key goes away.
    Unset(String),
    /// The target goes away.
    Remove,
}

/// One live change, as it counts now.
#[derive(Clone, Debug)]
pub(super) struct Layer {
    pub(super) target: String,
    pub(super) effect: Effect,
    source: Source,
    /// The keys that it says something about.
    keys: BTreeSet<String>,
}

impl Layer {
    fn new(target: &str, effect: Effect, text: String) -> Self {
        let keys = match &effect {
            Effect::Unset(key) => BTreeSet::from([userdata_key(key)]),
            _ => key_names(DeTable::parse_recoverable(&text).0.get_ref()).collect(),
        };
        let source = Source { name: LIVE.to_owned(), text, role: Role::Live };
        Self { target: target.to_owned(), effect, source, keys }
    }

    pub(super) fn source(&self) -> &Source {
        &self.source
    }
}

/// The name of a userdata key among the keys of its target.
pub(super) fn userdata_key(key: &str) -> String {
    format!("{USERDATA}.{key}")
}

/// The keys of a target's table, one by one for the tables that are merged.
pub(super) fn key_names<'a>(table: &'a DeTable<'_>) -> impl Iterator<Item = String> + 'a {
    table.iter().flat_map(|(name, value)| {
        let name = name.get_ref().as_ref();
        match value.get_ref().as_table().filter(|_| [USERDATA, SYSDATA].contains(&name)) {
            Some(inner) => {
                inner.iter().map(|(key, _)| format!("{name}.{}", key.get_ref())).collect()
            }
            None => vec![name.to_owned()],
        }
    })
}

impl Sources {
    /// These sources with one more change, if it is good; they stay as they are.
    ///
    /// # Errors
    /// If there is no such target or key, if a new target exists already, or with everything
    /// that is wrong in the settings.
    pub fn with_live(&self, change: &LiveChange) -> Result<Self, ConfigError> {
        let mut new = self.clone();
        match change {
            LiveChange::Set { target, settings } => {
                self.expect_target(target)?;
                new.push(target, Effect::Change, bounded(settings)?);
            }
            LiveChange::Add { target, settings } => {
                if self.has_target(target) {
                    let remedy = "change it by `set`, or choose another name";
                    return Err(ConfigError::Live(format!(
                        "there is a target {target:?} already: {remedy}"
                    )));
                }
                new.push(target, Effect::Define, bounded(settings)?);
            }
            LiveChange::Remove { target } => {
                self.expect_target(target)?;
                new.live.retain(|layer| layer.target != *target);
                if new.has_target(target) {
                    new.push(target, Effect::Remove, String::new());
                }
            }
            LiveChange::UserdataSet { target, key, value } => {
                self.expect_target(target)?;
                let value = TomlStringBuilder::new(value).as_basic().to_toml_value();
                let text = format!("{USERDATA}.{} = {value}", key.to_toml_key());
                new.push(target, Effect::Change, bounded(&text)?);
            }
            LiveChange::UserdataUnset { target, key } => {
                self.expect_target(target)?;
                if !self.has_userdata(target, key) {
                    let message = format!("target {target:?} has no userdata key {key:?}");
                    return Err(ConfigError::Live(message));
                }
                let only = BTreeSet::from([userdata_key(key)]);
                new.live.retain(|layer| layer.target != *target || layer.keys != only);
                if new.has_userdata(target, key) {
                    new.push(target, Effect::Unset(key.clone()), String::new());
                }
            }
        }
        new.check()?;
        new.drop_superseded();
        Ok(new)
    }

    /// Takes over changes whose target exists.
    pub(super) fn take_live(&mut self, layers: &[Layer]) {
        let mut existing: BTreeSet<String> =
            self.peek(|merged| merged.targets.iter().map(|target| target.name.clone()).collect());
        for layer in layers {
            let counts = match layer.effect {
                Effect::Define => {
                    existing.insert(layer.target.clone());
                    true
                }
                Effect::Remove => existing.remove(&layer.target),
                Effect::Change | Effect::Unset(_) => existing.contains(&layer.target),
            };
            if counts {
                self.live.push(layer.clone());
            }
        }
    }

    fn push(&mut self, target: &str, effect: Effect, text: String) {
        let layer = Layer::new(target, effect, text);
        let replaceable = |old: &Layer| {
            old.target == layer.target && matches!(old.effect, Effect::Change | Effect::Unset(_))
        };
        // The order of new userdata keys stays when one of them gets another value.
        let twin = |old: &Layer| replaceable(old) && old.keys.len() == 1 && old.keys == layer.keys;
        if replaceable(&layer)
            && let Some(place) = self.live.iter().position(twin)
        {
            self.live[place] = layer;
            return;
        }
        self.live.push(layer);
    }

    /// Drops layers that say nothing any more.
    fn drop_superseded(&mut self) {
        let mut said: BTreeSet<(String, String)> = BTreeSet::new();
        let mut kept: Vec<Layer> = Vec::with_capacity(self.live.len());
        for layer in self.live.drain(..).rev() {
            let counts = match layer.effect {
                Effect::Define | Effect::Remove => true,
                Effect::Change | Effect::Unset(_) => layer
                    .keys
                    .iter()
                    .any(|key| !said.contains(&(layer.target.clone(), key.clone()))),
            };
            if counts {
                said.extend(layer.keys.iter().map(|key| (layer.target.clone(), key.clone())));
                kept.push(layer);
            }
        }
        kept.reverse();
        self.live = kept;
    }

    fn has_target(&self, name: &str) -> bool {
        self.peek(|merged| merged.targets.iter().any(|target| target.name == name))
    }

    fn has_userdata(&self, name: &str, key: &str) -> bool {
        let key = userdata_key(key);
        self.peek(|merged| {
            let target = merged.targets.iter().find(|target| target.name == name);
            target.is_some_and(|target| key_names(&target.table).any(|known| known == key))
        })
    }

    fn expect_target(&self, name: &str) -> Result<(), ConfigError> {
        let known: Vec<String> =
            self.peek(|merged| merged.targets.iter().map(|target| target.name.clone()).collect());
        if known.iter().any(|known| known == name) {
            return Ok(());
        }
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        Err(ConfigError::Live(format!("there is no target {name:?}; there are: {known}")))
    }
}

fn bounded(settings: &str) -> Result<String, ConfigError> {
    if settings.len() > SETTINGS_MAX_BYTES {
        return Err(ConfigError::Live(format!(
            "the settings have {} bytes, and {SETTINGS_MAX_BYTES} is the most",
            settings.len()
        )));
    }
    Ok(settings.to_owned())
}
