//! Why a filter decides as it does, for people.

use std::fmt;

use super::{
    Decision, FilterSpec,
    spec::{Action, Rate},
};

/// What the data path finds out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) decision: Decision,
    pub(super) reason: Reason,
}

impl Verdict {
    pub(super) fn filter(reason: Reason) -> Self {
        Self { decision: Decision::Filter, reason }
    }

    pub(super) fn explain(self, spec: &FilterSpec) -> Explanation {
        let action = match self.reason {
            Reason::Rule { index, .. } => spec.rules.get(index).map(|rule| rule.action),
            _ => None,
        };
        Explanation {
            decision: self.decision,
            reason: self.reason,
            max_level: spec.max_level,
            action,
            target_rate: spec.rate,
        }
    }
}

/// What decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It is less severe than `max_level`.
    Level {
        /// Its level.
        level: u8,
    },
    /// Its facility is not among the target's.
    Facility {
        /// Its facility.
        facility: u8,
    },
    /// A rule, by its action.
    Rule {
        /// Index of the rule, from 0 (the text counts from 1).
        index: usize,
        /// The record does not say all that the rule asks for, so it was taken to match.
        guessed: bool,
    },
    /// The target's rate is used up.
    TargetRate,
    /// No rule matches, so it is sent.
    Default,
}

/// What becomes of a record, and why. Its text is for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// What becomes of it.
    pub decision: Decision,
    /// What decided that.
    pub reason: Reason,
    max_level: u8,
    action: Option<Action>,
    target_rate: Option<Rate>,
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.decision {
            Decision::Send => "sent: ",
            Decision::Filter => "left out: ",
        })?;
        match self.reason {
            Reason::Level { level } => {
                write!(f, "level {level} is less severe than max_level {}", self.max_level)
            }
            Reason::Facility { facility } => {
                write!(f, "facility {facility} is not among the target's facilities")
            }
            Reason::Rule { index, guessed } => {
                write!(f, "filter rule {}", index + 1)?;
                match (self.action, self.decision) {
                    (Some(Action::Rate(rate)), Decision::Filter) => {
                        write!(f, " (rate {rate} is used up)")?;
                    }
                    (Some(Action::Rate(rate)), Decision::Send) => write!(f, " (rate {rate})")?,
                    (Some(Action::Send), _) => f.write_str(" (send)")?,
                    (Some(Action::Drop), _) => f.write_str(" (drop)")?,
                    (None, _) => {}
                }
                f.write_str(if guessed {
                    ", though the record does not say all it asks for"
                } else {
                    ""
                })
            }
            Reason::TargetRate => match self.target_rate {
                Some(rate) => write!(f, "rate {rate} of the target is used up"),
                None => f.write_str("the rate of the target is used up"),
            },
            Reason::Default => f.write_str("no filter rule matches"),
        }
    }
}
