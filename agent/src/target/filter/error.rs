//! Why a filter cannot be had.

use super::compile::{AUTOMATA_MAX_BYTES, AUTOMATON_MAX_BYTES, PATTERN_MAX_BYTES, RULES_MAX};

/// What the filter of a target asks for cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}`{condition}` {cause}", prefix(*.rule))]
pub struct FilterError {
    /// Index of the rule, from 0 (the text counts from 1); `None` for the target's own.
    pub rule: Option<usize>,
    /// Which of its conditions, by the name of the key: `regex`, `cgroup`, …
    pub condition: &'static str,
    /// Why, and what helps.
    pub cause: Cause,
}

/// Why a condition cannot be had. The text names the remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Cause {
    /// The regular expression is not one.
    #[error(
        "is not a regular expression: {0}; the syntax is that of the Rust crate `regex`, on bytes \
         and without Unicode classes"
    )]
    Regex(String),
    /// The glob is not one.
    #[error("is not a glob: {0}; write \\ before *, ?, [ or \\ to mean the character itself")]
    Glob(&'static str),
    /// One automaton is too large.
    #[error(
        "needs an automaton of more than {} KiB; make it simpler: fewer or smaller repetitions \
         such as {{1,1000}}, or `text` instead of `regex`", AUTOMATON_MAX_BYTES >> 10
    )]
    TooLarge,
    /// All automata together are too large.
    #[error(
        "brings the automata of all rules to more than {} MiB; use fewer or simpler patterns",
        AUTOMATA_MAX_BYTES >> 20
    )]
    AllTooLarge,
    /// The pattern is too long.
    #[error("has {bytes} bytes and at most {PATTERN_MAX_BYTES} are taken; shorten it")]
    TooLong {
        /// Its length in bytes.
        bytes: usize,
    },
    /// There are too many rules.
    #[error("has {rules} rules and at most {RULES_MAX} are taken; join or remove some")]
    TooManyRules {
        /// How many there are.
        rules: usize,
    },
    /// A rate lets nothing through or has no period.
    #[error("lets nothing through; give at least one record and a period, as in \"10/5s\"")]
    Rate,
}

fn prefix(rule: Option<usize>) -> String {
    rule.map_or_else(String::new, |index| format!("filter rule {}: ", index + 1))
}
