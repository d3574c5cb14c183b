//! Whether a rule matches a record, also when the record does not say everything.

use memchr::memmem::Finder;

use super::{compile::Dfa, glob::Glob, spec::Rate};
use crate::record::{CGROUP_MAX_BYTES, Record};

/// One rule, ready to run.
#[derive(Debug)]
pub(super) struct CompiledRule {
    pub(super) text: Option<Text>,
    pub(super) subsystem: Option<Glob>,
    pub(super) device: Option<Glob>,
    pub(super) task: Option<Glob>,
    pub(super) cgroup: Option<Glob>,
    /// Sorted; any if empty.
    pub(super) cpus: Box<[u32]>,
    pub(super) action: CompiledAction,
}

/// The condition on the text.
#[derive(Debug)]
pub(super) enum Text {
    Contains(Box<Finder<'static>>),
    Regex(Dfa),
}

/// What becomes of the record.
#[derive(Clone, Copy, Debug)]
pub(super) enum CompiledAction {
    Send,
    Drop,
    /// `limit` is the place among the filter's limits.
    Rate {
        rate: Rate,
        limit: usize,
    },
}

/// Whether a condition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holds {
    Yes,
    No,
    /// The record does not say.
    Unknown,
}

impl From<bool> for Holds {
    fn from(holds: bool) -> Self {
        if holds { Self::Yes } else { Self::No }
    }
}

impl Holds {
    /// `None` if it does not hold, else whether that is a guess.
    fn or_guess(self, may_guess: bool) -> Option<bool> {
        match self {
            Self::Yes => Some(false),
            Self::No => None,
            Self::Unknown => may_guess.then_some(true),
        }
    }
}

impl CompiledRule {
    /// `None`: it does not match. Else whether that is a guess, because the record does
    /// not say everything that the rule asks for: only a rule that sends matches then.
    pub(super) fn matches(&self, record: &Record<'_>, path: Option<&[u8]>) -> Option<bool> {
        let may_guess = matches!(self.action, CompiledAction::Send);
        // From the cheapest to the dearest.
        let mut guessed = self.cpu(record).or_guess(may_guess)?;
        for (wanted, field) in [
            (&self.subsystem, dictionary(record, record.subsystem)),
            (&self.device, dictionary(record, record.device)),
            (&self.task, record.context.map(|context| context.task)),
        ] {
            guessed |= glob(wanted.as_ref(), field).or_guess(may_guess)?;
        }
        guessed |= self.cgroup(record, path).or_guess(may_guess)?;
        guessed |= self.text(record).or_guess(may_guess)?;
        Some(guessed)
    }

    fn cpu(&self, record: &Record<'_>) -> Holds {
        match record.context {
            _ if self.cpus.is_empty() => Holds::Yes,
            Some(context) => self.cpus.binary_search(&context.cpu).is_ok().into(),
            None => Holds::Unknown,
        }
    }

    fn text(&self, record: &Record<'_>) -> Holds {
        match &self.text {
            None => Holds::Yes,
            Some(Text::Contains(finder)) => finder.find(record.text).is_some().into(),
            Some(Text::Regex(dfa)) => dfa.is_match(record.text).into(),
        }
    }

    /// Without the path the leaf may still say that it is another cgroup.
    fn cgroup(&self, record: &Record<'_>, path: Option<&[u8]>) -> Holds {
        let Some(glob) = &self.cgroup else { return Holds::Yes };
        if let Some(path) = path {
            return glob.is_match(path).into();
        }
        match record.context {
            // As long as that it may have been cut.
            Some(context) if context.cgroup.len() >= CGROUP_MAX_BYTES => Holds::Unknown,
            Some(context) if !context.cgroup.is_empty() && !glob.may_end_in(context.cgroup) => {
                Holds::No
            }
            _ => Holds::Unknown,
        }
    }
}

/// A field of the dictionary, unless it is an estimate.
fn dictionary<'a>(record: &Record<'_>, field: &'a [u8]) -> Option<&'a [u8]> {
    (!record.approximated).then_some(field)
}

fn glob(glob: Option<&Glob>, bytes: Option<&[u8]>) -> Holds {
    match (glob, bytes) {
        (None, _) => Holds::Yes,
        (Some(glob), Some(bytes)) => glob.is_match(bytes).into(),
        (Some(_), None) => Holds::Unknown,
    }
}
