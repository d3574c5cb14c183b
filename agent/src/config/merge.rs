//! Several sources become one tree. The values keep their places, so that what is read from
//! the tree is reported where it was written.
//!
//! A target has the keys of `[defaults]` that fit it and that it does not have itself, with
//! its live settings over both. `userdata` and `sysdata` are merged key by key; a `filter`
//! replaces the default one as a whole, for rules depend on their order. What only means
//! something for another format or egress than the target's is not taken from `[defaults]`.

use std::ops::Range;

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    diagnostic::Findings,
    duplicate,
    keys::{self, REMOTE, SYSDATA, USERDATA},
    live::{Effect, Layer, key_names, userdata_key},
    places::{self, Texts},
    source::{Role, Source},
    table::Table,
};
use crate::netconsole::SysdataKey;

/// A table and where it is.
pub(super) type Placed<'t> = (DeTable<'t>, Range<usize>);

/// All sources as one.
#[derive(Debug, Default)]
pub(super) struct Merged<'t> {
    pub(super) agent: Option<Placed<'t>>,
    pub(super) last_words: Option<Placed<'t>>,
    pub(super) defaults: Option<Placed<'t>>,
    pub(super) targets: Vec<MergedTarget<'t>>,
    /// Targets of files that were removed live.
    pub(super) removed: Vec<String>,
    /// The files that were looked at.
    pub(super) files: Vec<String>,
}

/// One target with its defaults and live settings.
#[derive(Debug)]
pub(super) struct MergedTarget<'t> {
    pub(super) name: String,
    /// Its header.
    pub(super) span: Range<usize>,
    pub(super) table: DeTable<'t>,
    /// Keys that were changed live.
    pub(super) live: Vec<String>,
    /// Userdata keys that were removed live.
    unset: Vec<String>,
}

/// Merges all texts; those of `layers` are the last ones.
pub(super) fn merge<'t>(
    texts: &Texts<'t>,
    layers: &[Layer],
    findings: &mut Findings,
) -> Merged<'t> {
    let mut merged = Merged::default();
    let mut layers = layers.iter();
    for (base, source) in texts.iter() {
        if let Role::Unreadable(reason) = &source.role {
            let message = format!("cannot read the configuration {}: {reason}", source.name);
            findings.without_line(base..base, message);
            continue;
        }
        let (root, errors) = places::parse(&source.text, base);
        let first = |second: &Range<usize>| duplicate::first_place(&source.text, second);
        findings.syntax(&source.text, base, &errors, &first);
        match source.role {
            Role::Live => {
                if let Some(layer) = layers.next() {
                    merged.apply(layer, root, base);
                }
            }
            _ => merged.add_file(source, root, base, findings),
        }
    }
    merged.inherit(findings);
    merged
}

impl<'t> Merged<'t> {
    fn add_file(
        &mut self,
        source: &Source,
        mut root: DeTable<'t>,
        base: usize,
        findings: &mut Findings,
    ) {
        self.files.push(source.name.clone());
        let span = base..base + source.text.len().min(1);
        let is_main = source.role == Role::Main;
        let known =
            if is_main { keys::MAIN.iter().map(|key| key.name).collect() } else { vec!["target"] };
        // What a drop-in may not say is told in a better way.
        let mut top = Table::new(&root, "the file".to_owned(), span, keys::MAIN, findings);
        for key in ["agent", keys::LAST_WORDS, "defaults"] {
            if let Some((_, span)) = top.table(key).filter(|_| !is_main) {
                let message = format!("[{key}] is in a drop-in, which can only have targets");
                top.problem(span, message, "write it into agent.toml".to_owned());
            }
        }
        top.table("target");
        top.finish_naming(known);
        let mut section = |key: &str| match root.remove_entry(key) {
            Some((_, value)) => {
                let span = value.span();
                if let DeValue::Table(table) = value.into_inner() {
                    Some((table, span))
                } else {
                    None
                }
            }
            None => None,
        };
        if is_main {
            [self.agent, self.last_words, self.defaults] =
                [section("agent"), section(keys::LAST_WORDS), section("defaults")];
        }
        let targets = section("target");
        match targets {
            Some((targets, span)) if targets.is_empty() => {
                let message = "[target] needs a name: [target.fleet]".to_owned();
                findings.problem(span, message, None);
            }
            Some((targets, _)) => {
                for (name, value) in targets {
                    self.add_target(name, value, findings);
                }
            }
            None => {}
        }
    }

    fn add_target(
        &mut self,
        name: Spanned<toml::de::DeString<'t>>,
        value: Spanned<DeValue<'t>>,
        findings: &mut Findings,
    ) {
        let span = name.span();
        let name = name.into_inner().into_owned();
        let DeValue::Table(table) = value.into_inner() else {
            findings.problem(
                span,
                format!("`{name}` must be a table: [target.{name}]"),
                Some("a target has a name: [target.fleet]".to_owned()),
            );
            return;
        };
        if let Some(twin) = self.targets.iter().find(|target| target.name == name) {
            findings.problem_with(
                span,
                format!("there are two targets with the name `{name}`"),
                Some(
                    "a file in targets.d cannot add to a target of another file; to replace a \
                     whole file, give the new one the same name in a later folder"
                        .to_owned(),
                ),
                vec![(twin.span.clone(), "it is here first".to_owned())],
            );
            return;
        }
        self.targets.push(MergedTarget { name, span, table, live: Vec::new(), unset: Vec::new() });
    }

    fn apply(&mut self, layer: &Layer, table: DeTable<'t>, base: usize) {
        let place = self.targets.iter().position(|target| target.name == layer.target);
        match (&layer.effect, place) {
            (Effect::Remove, Some(place)) => {
                let target = self.targets.remove(place);
                self.removed.push(target.name);
            }
            (Effect::Define, None) => {
                self.removed.retain(|name| *name != layer.target);
                self.targets.push(MergedTarget {
                    name: layer.target.clone(),
                    span: base..base,
                    live: key_names(&table).collect(),
                    table,
                    unset: Vec::new(),
                });
            }
            (Effect::Define | Effect::Change, Some(place)) => {
                self.targets[place].change(table);
            }
            (Effect::Unset(key), Some(place)) => self.targets[place].unset(key),
            (Effect::Remove | Effect::Change | Effect::Unset(_), None) => {}
        }
    }

    /// Puts `[defaults]` under each target.
    fn inherit(&mut self, findings: &mut Findings) {
        if let Some((defaults, _)) = &self.defaults
            && let Some((key, _)) = defaults.get_key_value(REMOTE)
        {
            findings.problem(
                key.span(),
                "`remote` cannot be a default: all targets would send to one receiver".to_owned(),
                Some("each target has its own `remote`".to_owned()),
            );
        }
        for target in &mut self.targets {
            if let Some((defaults, _)) = &self.defaults {
                let own = std::mem::take(&mut target.table);
                target.table = overlay(fitting(defaults, &own), own);
            }
            for key in target.unset.clone() {
                target.remove_userdata(&key);
            }
        }
    }
}

impl<'t> MergedTarget<'t> {
    fn change(&mut self, table: DeTable<'t>) {
        for key in key_names(&table) {
            self.unset.retain(|unset| userdata_key(unset) != key);
            if !self.live.contains(&key) {
                self.live.push(key);
            }
        }
        self.table = overlay(std::mem::take(&mut self.table), table);
    }

    fn unset(&mut self, key: &str) {
        self.remove_userdata(key);
        self.unset.push(key.to_owned());
        let name = userdata_key(key);
        if !self.live.contains(&name) {
            self.live.push(name);
        }
    }

    fn remove_userdata(&mut self, key: &str) {
        if let Some(DeValue::Table(userdata)) = self.table.get_mut(USERDATA).map(Spanned::get_mut) {
            let kept = std::mem::take(userdata).into_iter();
            *userdata = kept.filter(|(name, _)| name.get_ref() != key).collect();
        }
    }
}

/// `over` over `base`, in the order of `base`; tables of lines are merged key by key.
fn overlay<'t>(base: DeTable<'t>, mut over: DeTable<'t>) -> DeTable<'t> {
    let mut result = DeTable::new();
    for (key, value) in base {
        let Some((new_key, new_value)) = over.remove_entry(key.get_ref().as_ref()) else {
            result.insert(key, value);
            continue;
        };
        let is_merged = [USERDATA, SYSDATA].contains(&key.get_ref().as_ref());
        let (span, new_span) = (value.span(), new_value.span());
        match (value.into_inner(), new_value.into_inner()) {
            (DeValue::Table(old), DeValue::Table(new)) if is_merged => {
                // An empty table over another one says nothing.
                let span = if new.is_empty() { span } else { new_span };
                result.insert(new_key, Spanned::new(span, DeValue::Table(overlay(old, new))));
            }
            (_, new) => {
                result.insert(new_key, Spanned::new(new_span, new));
            }
        }
    }
    result.extend(over);
    result
}

/// What a target takes from `[defaults]`.
fn fitting<'t>(defaults: &DeTable<'t>, own: &DeTable<'t>) -> DeTable<'t> {
    let text = |key: &str| own.get(key).or_else(|| defaults.get(key))?.get_ref().as_str();
    let (egress, format) = (text("egress"), text("format"));
    let is_sysdata = |name: &str| SysdataKey::ALL.iter().any(|key| key.name() == name);
    let mut taken = DeTable::new();
    for (key, value) in defaults {
        let name = key.get_ref().as_ref();
        // The others are told at their place.
        if name == REMOTE || keys::target_key(name).is_none() || !fits(name, egress, format) {
            continue;
        }
        let value = match value.get_ref() {
            DeValue::Table(lines) if name == SYSDATA => {
                let known = lines.iter().filter(|(key, _)| is_sysdata(key.get_ref()));
                let known = known.map(|(key, value)| (key.clone(), value.clone())).collect();
                Spanned::new(value.span(), DeValue::Table(known))
            }
            _ => value.clone(),
        };
        taken.insert(key.clone(), value);
    }
    taken
}

/// Whether a key means something with this egress and format.
pub(super) fn fits(key: &str, egress: Option<&str>, format: Option<&str>) -> bool {
    match key {
        "queue" => matches!(egress, None | Some("auto" | "xdp")),
        "remote_mac" => egress != Some("udp"),
        "pcap" => egress == Some("pcap"),
        "release" | USERDATA | SYSDATA => format != Some("basic"),
        _ => true,
    }
}
