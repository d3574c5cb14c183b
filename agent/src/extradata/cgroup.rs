//! Path and workload of a cgroup by the id that is in the record.
//!
//! The data path looks an id up in [`CgroupNames`], an immutable table behind an [`ArcSwap`]:
//! no lock, no allocation, and never the last reference, so that it frees nothing. An id that is
//! not there is told to [`CgroupResolver`], which lives on the control thread and makes a new
//! table by a walk over the tree (`cgroup_walk`), on a thread that may block. No record
//! waits for that; until then it has the leaf name alone.
//!
//! Bounds: a walk at most once a second and for at most a twentieth of the time; `GROUPS_MAX`
//! groups; of those that are gone the last [`GONE_MAX`], for an hour, because
//! their records may still be under way. An id is the same group for the whole boot (kernfs
//! counts on), and groups of this hierarchy cannot be renamed, so what was right once stays right.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;

use super::{
    cgroup_names::{Builder, CgroupNames},
    cgroup_walk::{GROUPS_MAX, WalkError, walk},
    unit::unit_of,
};

/// Most groups that are remembered after they are gone.
pub const GONE_MAX: usize = 4096;
const GONE_KEPT: Duration = Duration::from_secs(3600);
const WALK_EVERY: Duration = Duration::from_secs(1);
/// A walk is followed by a rest of so many times its own length.
const WALK_REST: u32 = 19;
/// Where there is nothing to walk, there will be nothing soon.
const FAILED_REST: Duration = Duration::from_secs(30);
/// Most ids that are remembered as asked for, and as not to be found.
const IDS_MAX: usize = 1024;

/// A walk that is due; to be run where it may block, and given back to
/// [`CgroupResolver::finish`].
#[derive(Debug)]
#[must_use]
pub struct Walk {
    known: Arc<CgroupNames>,
    gone: HashMap<u64, Instant>,
    asked: HashSet<u64>,
    groups_max: usize,
}

/// What a [`Walk`] has found.
#[derive(Debug)]
#[must_use]
pub struct Walked {
    outcome: Result<(CgroupNames, WalkStats), WalkError>,
    gone: HashMap<u64, Instant>,
    asked: HashSet<u64>,
    took: Duration,
}

/// The size of a walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalkStats {
    /// Groups that exist.
    pub groups: usize,
    /// There are more, and their records get the leaf name alone.
    pub truncated: bool,
    /// How long it took.
    pub took: Duration,
}

impl Walk {
    /// Walks the tree, which takes some microseconds per group.
    pub fn run(mut self) -> Walked {
        let started = Instant::now();
        let mut builder = Builder::default();
        let walked = walk(self.groups_max, |id, path| match self.known.get(id) {
            Some((_, unit)) => builder.push(id, path, unit),
            None => {
                let unit = unit_of(&String::from_utf8_lossy(path)).unwrap_or_default();
                builder.push(id, path, unit.as_bytes());
            }
        });
        let took = started.elapsed();
        let outcome = walked.map(|is_all| {
            let groups = builder.len();
            self.keep_gone(started, &mut builder);
            (builder.build(), WalkStats { groups, truncated: !is_all, took })
        });
        Walked { outcome, gone: self.gone, asked: self.asked, took }
    }

    /// Adds the groups that are not there any more, as far as they are kept.
    fn keep_gone(&mut self, now: Instant, builder: &mut Builder) {
        let alive: HashSet<u64> = builder.ids().collect();
        let mut gone: Vec<(u64, Instant)> = self
            .known
            .ids()
            .filter(|id| !alive.contains(id))
            .map(|id| (id, self.gone.get(&id).copied().unwrap_or(now)))
            .filter(|(_, since)| now.saturating_duration_since(*since) < GONE_KEPT)
            .collect();
        gone.sort_by_key(|(_, since)| std::cmp::Reverse(*since));
        gone.truncate(GONE_MAX);
        for (id, _) in &gone {
            if let Some((path, unit)) = self.known.get(*id) {
                builder.push(*id, path, unit);
            }
        }
        self.gone = gone.into_iter().collect();
    }
}

/// Keeps the table of the data path up to date; lives on the control thread.
#[derive(Debug)]
pub struct CgroupResolver {
    names: Arc<ArcSwap<CgroupNames>>,
    /// Tables that the data path may still read.
    retired: Vec<Arc<CgroupNames>>,
    gone: HashMap<u64, Instant>,
    asked: HashSet<u64>,
    /// Were looked for in vain: gone before, or not to be seen from here.
    not_found: HashSet<u64>,
    is_wanted: bool,
    is_walking: bool,
    not_before: Option<Instant>,
    groups_max: usize,
}

impl Default for CgroupResolver {
    fn default() -> Self {
        Self::new()
    }
}

impl CgroupResolver {
    /// With an empty table; the first walk is due at once.
    #[must_use]
    pub fn new() -> Self {
        Self {
            names: Arc::new(ArcSwap::from_pointee(CgroupNames::default())),
            retired: Vec::new(),
            gone: HashMap::new(),
            asked: HashSet::new(),
            not_found: HashSet::new(),
            is_wanted: true,
            is_walking: false,
            not_before: None,
            groups_max: GROUPS_MAX,
        }
    }

    /// The table, for an `arc_swap::Cache` of the data path.
    #[must_use]
    pub fn names(&self) -> Arc<ArcSwap<CgroupNames>> {
        Arc::clone(&self.names)
    }

    /// The data path met a group that it does not know. 0 is no group.
    pub fn missing(&mut self, id: u64) {
        if id == 0 || self.not_found.contains(&id) || self.names.load().get(id).is_some() {
            return;
        }
        self.is_wanted = true;
        if self.asked.len() < IDS_MAX {
            self.asked.insert(id);
        }
    }

    /// The next walk, if one is wanted and may be made now; no other is given out before it
    /// came back to [`CgroupResolver::finish`]. Also drops the tables that nobody reads any more.
    #[must_use]
    pub fn due(&mut self, now: Instant) -> Option<Walk> {
        self.drop_retired();
        let is_early = self.not_before.is_some_and(|time| now < time);
        if !self.is_wanted || self.is_walking || is_early {
            return None;
        }
        self.is_wanted = false;
        self.is_walking = true;
        Some(Walk {
            known: self.names.load_full(),
            gone: std::mem::take(&mut self.gone),
            asked: std::mem::take(&mut self.asked),
            groups_max: self.groups_max,
        })
    }

    /// Publishes what a walk has found.
    ///
    /// # Errors
    /// [`WalkError`] if there was nothing to walk; what is known stays, and the next walk may be
    /// made in half a minute.
    pub fn finish(&mut self, walked: Walked, now: Instant) -> Result<WalkStats, WalkError> {
        self.is_walking = false;
        self.gone = walked.gone;
        let (names, stats) = match walked.outcome {
            Ok(found) => found,
            Err(error) => {
                self.not_before = Some(now + FAILED_REST);
                return Err(error);
            }
        };
        self.not_before = Some(now + WALK_EVERY.max(walked.took * WALK_REST));
        for id in walked.asked.into_iter().filter(|id| names.get(*id).is_none()) {
            if self.not_found.len() >= IDS_MAX {
                self.not_found.clear();
            }
            self.not_found.insert(id);
        }
        if names != **self.names.load() {
            self.retired.push(self.names.swap(Arc::new(names)));
        }
        self.drop_retired();
        Ok(stats)
    }

    /// After a swap nobody can get hold of an old table anew, so the last reference stays here
    /// until it is the only one.
    fn drop_retired(&mut self) {
        self.retired.retain(|names| Arc::strong_count(names) > 1);
    }
}

#[cfg(test)]
#[path = "cgroup_tests.rs"]
mod tests;
