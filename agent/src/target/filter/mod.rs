//! Which records a target gets: level, facility, ordered rules and rates.
//!
//! [`spec`] is what the configuration says; [`Filter::compile`] makes it into automata
//! on the control thread, and the pump asks [`Filter::decide`] for every record, once
//! and in their order. It is *not* where loss is counted, and it reads no clock.
//!
//! What a filter wants is immutable and shared. What it remembers (rates, the kernel
//! report that is under way) lies inside as relaxed atomics that only the pump writes:
//! a target whose filter a reload leaves alone keeps both by keeping its `Arc`, and
//! [`Filter::explain`] may look on from the control thread.
//!
//! [`Filter::decide`] allocates nothing, and its time is linear in the text: one dense
//! automaton or one substring search per condition. That is by measurement: one
//! automaton for all patterns is hardly faster on ordinary text, but grows with their
//! product (five patterns with two `.*` each: 6 MiB and half a second).

mod compile;
mod error;
mod explain;
mod glob;
mod rate;
pub(crate) mod report;
mod rule;
pub mod spec;
#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use self::{
    compile::{AUTOMATA_MAX_BYTES, AUTOMATON_MAX_BYTES, PATTERN_MAX_BYTES, RULES_MAX},
    error::{Cause, FilterError},
    explain::{Explanation, Reason},
    rate::{NOTICE_MAX_BYTES, Notice},
};
use self::{
    explain::Verdict,
    rate::Limit,
    report::Reports,
    rule::{CompiledAction, CompiledRule},
    spec::{Rate, Rule},
};
use crate::record::Record;

/// The filter of one target, as the configuration says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterSpec {
    /// Least severe level that is sent, 0 to 7.
    pub max_level: u8,
    /// Facilities that are sent; all if `None`.
    pub facilities: Option<Vec<u8>>,
    /// Rules, of which the first that matches decides.
    pub rules: Vec<Rule>,
    /// How many records are sent at most, kernel reports (oops, BUG, panic) not counted.
    pub rate: Option<Rate>,
}

/// What becomes of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It is sent.
    Send,
    /// It is left out, on purpose.
    Filter,
}

/// The filter of one target.
#[derive(Debug)]
pub struct Filter {
    compiled: Arc<Compiled>,
    /// Of the rules with a rate, in their order.
    limits: Box<[Limit]>,
    target: Option<TargetLimit>,
}

/// What never changes.
#[derive(Debug)]
struct Compiled {
    spec: FilterSpec,
    /// A bit for each facility.
    facilities: [u64; 4],
    rules: Box<[CompiledRule]>,
}

/// The rate of the whole target.
#[derive(Debug)]
struct TargetLimit {
    limit: Limit,
    reports: Reports,
}

impl Filter {
    /// Prepares what the configuration says. It may take milliseconds: for the control
    /// thread.
    ///
    /// # Errors
    /// With the first rule and condition that cannot be had, and why.
    pub fn compile(spec: FilterSpec) -> Result<Self, FilterError> {
        let rules = compile::rules(&spec)?;
        let mut facilities = [if spec.facilities.is_some() { 0 } else { u64::MAX }; 4];
        for facility in spec.facilities.iter().flatten() {
            facilities[usize::from(facility >> 6)] |= 1 << (facility & 63);
        }
        Ok(Self::fresh(Arc::new(Compiled { spec, facilities, rules })))
    }

    /// A filter for another target that wants the same: shares all that never changes,
    /// remembers nothing yet.
    #[must_use]
    pub fn for_another_target(&self) -> Self {
        Self::fresh(Arc::clone(&self.compiled))
    }

    fn fresh(compiled: Arc<Compiled>) -> Self {
        let limits = compiled.rules.iter().enumerate().filter_map(|(index, rule)| {
            let CompiledAction::Rate { rate, .. } = rule.action else { return None };
            Some(Limit::new(Some(index), rate))
        });
        let limits = limits.collect();
        let target = compiled
            .spec
            .rate
            .map(|rate| TargetLimit { limit: Limit::new(None, rate), reports: Reports::default() });
        Self { compiled, limits, target }
    }

    /// What it was compiled from.
    #[must_use]
    pub fn spec(&self) -> &FilterSpec {
        &self.compiled.spec
    }

    /// Whether any rule asks for the path of a cgroup.
    #[must_use]
    pub fn needs_cgroup_path(&self) -> bool {
        self.compiled.spec.rules.iter().any(|rule| rule.cgroup.is_some())
    }

    /// What becomes of the record. To be asked once per record, in their order, by one
    /// thread.
    ///
    /// `cgroup_path` is the path of the cgroup that printed it, if known; `now_ns` is
    /// the clock of [`Self::notice_due_ns`]. Rates are counted by the records' own
    /// time, so that a backlog is treated as it would have been live.
    ///
    /// A record whose level is not known passes level and facility. A rule that the
    /// record does not say enough for matches if it sends and does not if it holds
    /// back: better one too many than a lost warning.
    #[must_use]
    pub fn decide(&self, record: &Record<'_>, cgroup_path: Option<&[u8]>, now_ns: u64) -> Decision {
        self.judge(record, cgroup_path, Some(now_ns)).decision
    }

    /// What [`Self::decide`] would say now, and why. Changes nothing, so it may be asked
    /// at any time, by any thread.
    #[must_use]
    pub fn explain(&self, record: &Record<'_>, cgroup_path: Option<&[u8]>) -> Explanation {
        self.judge(record, cgroup_path, None).explain(&self.compiled.spec)
    }

    /// What becomes of a record while the kernel panics: level, facility and rules decide, rates
    /// do not. Changes nothing, so it may be asked by any thread.
    #[must_use]
    pub fn decide_without_rates(&self, record: &Record<'_>, path: Option<&[u8]>) -> Decision {
        if let Err(verdict) = self.judge_kind(record) {
            return verdict.decision;
        }
        let matching = self.compiled.rules.iter().find(|rule| rule.matches(record, path).is_some());
        match matching.map(|rule| &rule.action) {
            Some(CompiledAction::Drop) => Decision::Filter,
            Some(CompiledAction::Send | CompiledAction::Rate { .. }) | None => Decision::Send,
        }
    }

    /// What level and facility say.
    fn judge_kind(&self, record: &Record<'_>) -> Result<(), Verdict> {
        let compiled = &*self.compiled;
        if record.approximated {
            return Ok(());
        }
        if record.level > compiled.spec.max_level {
            return Err(Verdict::filter(Reason::Level { level: record.level }));
        }
        let word = compiled.facilities[usize::from(record.facility >> 6)];
        if word & (1 << (record.facility & 63)) == 0 {
            return Err(Verdict::filter(Reason::Facility { facility: record.facility }));
        }
        Ok(())
    }

    /// Without a time nothing is remembered.
    fn judge(&self, record: &Record<'_>, path: Option<&[u8]>, now_ns: Option<u64>) -> Verdict {
        let compiled = &*self.compiled;
        // It has to see every record, to know which belong together.
        let in_report =
            self.target.as_ref().is_some_and(|target| target.reports.follow(record, now_ns));
        if let Err(verdict) = self.judge_kind(record) {
            return verdict;
        }
        let mut reason = Reason::Default;
        for (index, rule) in compiled.rules.iter().enumerate() {
            let Some(guessed) = rule.matches(record, path) else { continue };
            reason = Reason::Rule { index, guessed };
            match rule.action {
                CompiledAction::Send => {}
                CompiledAction::Drop => return Verdict::filter(reason),
                CompiledAction::Rate { limit, .. } => {
                    if !self.limits[limit].admit(record.ts_ns, now_ns) {
                        return Verdict::filter(reason);
                    }
                }
            }
            break;
        }
        match &self.target {
            Some(target) if !in_report && !target.limit.admit(record.ts_ns, now_ns) => {
                Verdict::filter(Reason::TargetRate)
            }
            _ => Verdict { decision: Decision::Send, reason },
        }
    }

    /// Says, once, that a period is over in which records were suppressed. To be asked
    /// again until it says nothing, by the thread that decides.
    ///
    /// A period is over when a record of a later one was decided upon or, if none comes,
    /// when the rest of it has passed on the clock of `now_ns`.
    #[must_use]
    pub fn take_notice(&self, now_ns: u64) -> Option<Notice> {
        self.all_limits().find_map(|limit| limit.take_notice(now_ns))
    }

    /// When to ask [`Self::take_notice`] at the latest; 0 for at once.
    #[must_use]
    pub fn notice_due_ns(&self) -> Option<u64> {
        self.all_limits().filter_map(Limit::notice_due_ns).min()
    }

    fn all_limits(&self) -> impl Iterator<Item = &Limit> {
        self.limits.iter().chain(self.target.as_ref().map(|target| &target.limit))
    }
}
