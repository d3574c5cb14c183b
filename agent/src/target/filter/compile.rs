//! From rules as text to automata, with limits on all that could grow.
//!
//! Patterns are over bytes, as records are: the crate's Unicode mode is off, so `.` is
//! any byte but a newline, `\w` and `(?i)` are ASCII, and `\xFF` is a byte. A dense
//! automaton takes one step per byte, whatever the pattern.

use std::fmt;

use memchr::memmem;
use regex_automata::{
    Anchored, Input,
    dfa::{Automaton, StartKind, dense},
    nfa::thompson::{self, NFA, WhichCaptures},
    util::syntax,
};

use super::{
    FilterSpec,
    error::{Cause, FilterError},
    glob::{Glob, Scope},
    rule::{CompiledAction, CompiledRule, Text},
    spec::{Action, Rate, Rule, TextMatch},
};

/// Most rules of one filter.
pub const RULES_MAX: usize = 1024;
/// Longest pattern (`text`, `regex` or glob) in bytes; a record's text is no longer.
pub const PATTERN_MAX_BYTES: usize = 1024;
/// Largest automaton of one pattern in bytes, also while it is made.
pub const AUTOMATON_MAX_BYTES: usize = 1 << 20;
/// Largest sum of the automata of one filter in bytes.
pub const AUTOMATA_MAX_BYTES: usize = 8 << 20;

/// One pattern, ready to run.
pub(super) struct Dfa {
    dfa: Box<dense::DFA<Vec<u32>>>,
    anchored: Anchored,
}

/// The crate's own would print every state.
impl fmt::Debug for Dfa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Dfa({} bytes)", self.dfa.memory_usage())
    }
}

impl Dfa {
    /// Whether it matches, in time linear in the bytes.
    pub(super) fn is_match(&self, bytes: &[u8]) -> bool {
        let input = Input::new(bytes).anchored(self.anchored).earliest(true);
        // It fails for bytes that make the automaton quit, of which there are none
        // without Unicode word boundaries, and for a kind of start that was not built.
        self.dfa.try_search_fwd(&input).is_ok_and(|end| end.is_some())
    }
}

/// Makes the automata of one filter.
pub(super) struct Compiler {
    /// Bytes that all automata may still take.
    left_bytes: usize,
}

impl Compiler {
    pub(super) fn new() -> Self {
        Self { left_bytes: AUTOMATA_MAX_BYTES }
    }

    /// `anchored`: it has to match from the first byte on.
    pub(super) fn dfa(&mut self, regex: &str, anchored: bool) -> Result<Dfa, Cause> {
        let syntax = syntax::Config::new().unicode(false).utf8(false);
        let hir = syntax::parse_with(regex, &syntax).map_err(|error| {
            let text = error.to_string();
            // The error of the crate draws the pattern with a caret; its last line says why.
            let why = text.lines().last().unwrap_or_default();
            Cause::Regex(why.strip_prefix("error: ").unwrap_or(why).to_owned())
        })?;
        let nfa = NFA::compiler()
            .configure(
                thompson::Config::new()
                    .utf8(false)
                    .which_captures(WhichCaptures::None)
                    .nfa_size_limit(Some(AUTOMATON_MAX_BYTES)),
            )
            .build_from_hir(&hir)
            .map_err(|error| match error.size_limit() {
                Some(_) => Cause::TooLarge,
                None => Cause::Regex(error.to_string()),
            })?;
        let start = if anchored { StartKind::Anchored } else { StartKind::Unanchored };
        let dfa = dense::Builder::new()
            .configure(
                dense::Config::new()
                    .start_kind(start)
                    .prefilter(None)
                    .specialize_start_states(false)
                    .dfa_size_limit(Some(AUTOMATON_MAX_BYTES))
                    .determinize_size_limit(Some(AUTOMATON_MAX_BYTES)),
            )
            .build_from_nfa(&nfa)
            .map_err(|error| {
                if error.is_size_limit_exceeded() {
                    Cause::TooLarge
                } else {
                    Cause::Regex(error.to_string())
                }
            })?;
        self.left_bytes =
            self.left_bytes.checked_sub(dfa.memory_usage()).ok_or(Cause::AllTooLarge)?;
        Ok(Dfa {
            dfa: Box::new(dfa),
            anchored: if anchored { Anchored::Yes } else { Anchored::No },
        })
    }

    fn text(&mut self, text: &TextMatch) -> Result<Text, Cause> {
        match text {
            TextMatch::Contains(text) => {
                short_enough(text)?;
                Ok(Text::Contains(Box::new(memmem::Finder::new(text).into_owned())))
            }
            TextMatch::Regex(regex) => {
                short_enough(regex)?;
                self.dfa(regex, false).map(Text::Regex)
            }
        }
    }

    fn glob(&mut self, glob: Option<&String>, scope: Scope) -> Result<Option<Glob>, Cause> {
        glob.map(|glob| {
            short_enough(glob)?;
            Glob::new(glob, scope, self)
        })
        .transpose()
    }

    /// `limit` is the place of the rule's rate, if it has one.
    fn rule(&mut self, rule: &Rule, limit: usize) -> Result<CompiledRule, (&'static str, Cause)> {
        let name = |name: &'static str| move |cause| (name, cause);
        let text_name = match rule.text {
            Some(TextMatch::Regex(_)) => "regex",
            _ => "text",
        };
        let mut cpus = rule.cpus.clone();
        cpus.sort_unstable();
        Ok(CompiledRule {
            text: rule
                .text
                .as_ref()
                .map(|text| self.text(text))
                .transpose()
                .map_err(name(text_name))?,
            subsystem: self
                .glob(rule.subsystem.as_ref(), Scope::Name)
                .map_err(name("subsystem"))?,
            device: self.glob(rule.device.as_ref(), Scope::Name).map_err(name("device"))?,
            task: self.glob(rule.task.as_ref(), Scope::Name).map_err(name("task"))?,
            cgroup: self.glob(rule.cgroup.as_ref(), Scope::Path).map_err(name("cgroup"))?,
            cpus: cpus.into(),
            action: match rule.action {
                Action::Send => CompiledAction::Send,
                Action::Drop => CompiledAction::Drop,
                Action::Rate(rate) => {
                    CompiledAction::Rate { rate: checked(rate).map_err(name("rate"))?, limit }
                }
            },
        })
    }
}

/// The rules of a filter; what they do not take of it is checked as well.
pub(super) fn rules(spec: &FilterSpec) -> Result<Box<[CompiledRule]>, FilterError> {
    let of_target = |condition| move |cause| FilterError { rule: None, condition, cause };
    if let Some(rate) = spec.rate {
        checked(rate).map_err(of_target("rate"))?;
    }
    let rules = spec.rules.len();
    if rules > RULES_MAX {
        return Err(of_target("filter")(Cause::TooManyRules { rules }));
    }
    let mut compiler = Compiler::new();
    let mut limits = 0;
    let compiled =
        spec.rules.iter().enumerate().map(|(index, rule)| {
            let compiled = compiler.rule(rule, limits).map_err(|(condition, cause)| {
                FilterError { rule: Some(index), condition, cause }
            })?;
            limits += usize::from(matches!(compiled.action, CompiledAction::Rate { .. }));
            Ok(compiled)
        });
    compiled.collect()
}

fn checked(rate: Rate) -> Result<Rate, Cause> {
    if rate.count == 0 || rate.period.is_zero() { Err(Cause::Rate) } else { Ok(rate) }
}

fn short_enough(pattern: &str) -> Result<(), Cause> {
    let bytes = pattern.len();
    if bytes > PATTERN_MAX_BYTES { Err(Cause::TooLong { bytes }) } else { Ok(()) }
}
