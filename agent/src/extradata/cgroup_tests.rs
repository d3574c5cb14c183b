//! Tests of the names of cgroups, on the cgroup2 tree of this host where it has one.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use arc_swap::Cache;

use super::*;

/// Groups that are made under the root of the tree, and removed at the end.
struct Groups {
    point: PathBuf,
    made: Vec<PathBuf>,
}

impl Groups {
    /// `None` if the host has no tree in which groups can be made, which it says.
    fn below_root(name: &str) -> Option<Self> {
        let points = [Path::new("/sys/fs/cgroup/unified"), Path::new("/sys/fs/cgroup")];
        let Some(point) = points.into_iter().find(|p| p.join("cgroup.procs").exists()) else {
            eprintln!("skipped: no cgroup2 file system is mounted at {points:?}");
            return None;
        };
        let mut groups = Self { point: point.to_owned(), made: Vec::new() };
        groups.make(&format!("netconsole-agent-{name}-{}", std::process::id()));
        Some(groups)
    }

    /// Makes a group and returns its id.
    fn make(&mut self, path: &str) -> u64 {
        let directory = self.point.join(path);
        fs::create_dir(&directory).expect("a cgroup, as root");
        let id = fs::metadata(&directory).expect("its id").ino();
        self.made.push(directory);
        id
    }

    fn remove_last(&mut self) {
        fs::remove_dir(self.made.pop().expect("a group")).expect("removed");
    }

    /// The path of the first one, without the slash before it.
    fn top(&self) -> String {
        let top = self.made[0].strip_prefix(&self.point).expect("below the root");
        top.display().to_string()
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        while let Some(directory) = self.made.pop() {
            if let Err(error) = fs::remove_dir(&directory) {
                eprintln!("{}: {error}", directory.display());
            }
        }
    }
}

fn table(groups: &[(u64, &str, &str)]) -> CgroupNames {
    let mut builder = Builder::default();
    for (id, path, unit) in groups {
        builder.push(*id, path.as_bytes(), unit.as_bytes());
    }
    builder.build()
}

fn walked(names: CgroupNames, walk: Walk, took: Duration) -> Walked {
    let stats = WalkStats { groups: names.len(), truncated: false, took };
    Walked { outcome: Ok((names, stats)), gone: walk.gone, asked: walk.asked, took }
}

#[test]
fn a_walk_is_due_when_an_id_is_missing_and_not_too_often() {
    let mut resolver = CgroupResolver::new();
    let start = Instant::now();
    let at = |ms| start + Duration::from_millis(ms);
    let walk = resolver.due(start).expect("the first one");
    resolver.missing(5);
    assert!(resolver.due(at(5000)).is_none(), "one is under way");
    let _ = resolver.finish(walked(table(&[(1, "/", "")]), walk, Duration::ZERO), start);
    assert!(resolver.due(at(999)).is_none(), "too early");
    let walk = resolver.due(at(1000)).expect("5 was missed meanwhile");
    let long = Duration::from_millis(100);
    let _ = resolver.finish(walked(table(&[(1, "/", "")]), walk, long), at(2000));
    for known in [0, 1, 5] {
        resolver.missing(known);
        assert!(resolver.due(at(9000)).is_none(), "{known} is none, known or not to be found");
    }
    resolver.missing(6);
    assert!(resolver.due(at(3800)).is_none(), "the last one took long");
    assert!(resolver.due(at(3900)).is_some());
}

#[test]
fn without_a_tree_what_is_known_stays_and_patience_is_long() {
    let mut resolver = CgroupResolver::new();
    let start = Instant::now();
    let walk = resolver.due(start).expect("the first one");
    let _ = resolver.finish(walked(table(&[(1, "/", "")]), walk, Duration::ZERO), start);
    resolver.missing(2);
    let walk = resolver.due(start + WALK_EVERY).expect("2 is missing");
    let failed = Walked {
        outcome: Err(WalkError::NoMount),
        gone: walk.gone,
        asked: walk.asked,
        took: Duration::ZERO,
    };
    assert!(resolver.finish(failed, start).is_err());
    assert!(resolver.names().load().get(1).is_some());
    resolver.missing(2);
    assert!(resolver.due(start + FAILED_REST - Duration::from_millis(1)).is_none());
    assert!(resolver.due(start + FAILED_REST).is_some());
}

#[test]
fn the_ids_that_are_asked_for_are_bounded() {
    let mut resolver = CgroupResolver::new();
    let mut now = Instant::now();
    for round in 0..3 {
        for id in 1..=10_000 {
            resolver.missing(round * 10_000 + id);
        }
        assert_eq!(resolver.asked.len(), IDS_MAX);
        let walk = resolver.due(now).expect("a walk");
        let _ = resolver.finish(walked(table(&[]), walk, Duration::ZERO), now);
        assert!(resolver.not_found.len() <= IDS_MAX);
        now += WALK_EVERY;
    }
}

#[test]
fn the_data_path_never_has_the_last_reference() {
    let mut resolver = CgroupResolver::new();
    let mut reader = Cache::new(resolver.names());
    let _ = reader.load();
    let mut now = Instant::now();
    for id in 1..=3 {
        resolver.missing(id);
        let walk = resolver.due(now).expect("a walk");
        let _ = resolver.finish(walked(table(&[(id, "/", "")]), walk, Duration::ZERO), now);
        now += WALK_EVERY;
    }
    // The reader still has the first, empty one; those between are gone.
    assert_eq!(resolver.retired.len(), 1);
    assert!(resolver.retired[0].is_empty());
    assert!(reader.load().get(3).is_some());
    assert!(resolver.due(now).is_none());
    assert!(resolver.retired.is_empty());
}

#[test]
fn groups_that_are_gone_are_kept_for_a_while_and_bounded() {
    let mut walk = CgroupResolver::new().due(Instant::now()).expect("a walk");
    let ids: Vec<u64> = (1..=5000).collect();
    let groups: Vec<_> = ids.iter().map(|id| (*id, "/gone", "")).collect();
    walk.known = Arc::new(table(&groups));
    let now = Instant::now() + 2 * GONE_KEPT;
    // Half of them went long ago, one went some time ago.
    walk.gone = (1..=2000).map(|id| (id, now - GONE_KEPT)).collect();
    walk.gone.insert(2001, now - GONE_KEPT / 2);
    let mut builder = Builder::default();
    builder.push(5000, b"/alive", b"");
    walk.keep_gone(now, &mut builder);
    let names = builder.build();
    assert_eq!(names.len(), 1 + 2999);
    assert_eq!(walk.gone.len(), 2999);
    assert!(names.get(2000).is_none() && names.get(2001).is_some());
    assert_eq!(walk.gone[&2001], now - GONE_KEPT / 2);

    let groups: Vec<_> = (1..=9000).map(|id| (id, "/gone", "")).collect();
    walk.known = Arc::new(table(&groups));
    let mut builder = Builder::default();
    walk.keep_gone(now, &mut builder);
    assert_eq!((builder.len(), walk.gone.len()), (GONE_MAX, GONE_MAX));
    assert!(!walk.gone.contains_key(&2001), "the oldest goes first");
}

#[test]
fn groups_of_this_host_are_found_until_some_time_after_their_end() {
    let Some(mut groups) = Groups::below_root("names") else { return };
    let top = groups.top();
    let slice = groups.make(&format!("{top}/a b.slice"));
    let service = groups.make(&format!("{top}/a b.slice/web@1.service"));
    let payload = groups.make(&format!("{top}/a b.slice/web@1.service/payload"));
    let mut resolver = CgroupResolver::new();
    let mut now = Instant::now();
    let walk = resolver.due(now).expect("the first one");
    let stats = resolver.finish(walk.run(), now).expect("a tree");
    assert!(stats.groups >= 5 && !stats.truncated, "{stats:?}");
    let names = resolver.names();
    let text = |id| {
        let names = names.load();
        let (path, unit) = names.get(id)?;
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        Some((text(path), text(unit)))
    };
    let expected = |path: &str, unit: &str| Some((format!("/{top}/a b.slice{path}"), unit.into()));
    assert_eq!(text(slice), expected("", ""));
    assert_eq!(text(service), expected("/web@1.service", "web@1.service"));
    assert_eq!(text(payload), expected("/web@1.service/payload", "web@1.service"));
    let root = fs::metadata(&groups.point).expect("the root").ino();
    assert_eq!(text(root), Some(("/".to_owned(), String::new())));

    // Gone, and another one made: the next walk knows both.
    groups.remove_last();
    let new = groups.make(&format!("{top}/new.scope"));
    assert_eq!(text(new), None);
    resolver.missing(new);
    now += 2 * WALK_EVERY;
    let walk = resolver.due(now).expect("one is missing");
    resolver.finish(walk.run(), now).expect("a tree");
    assert_eq!(text(new).map(|(_, unit)| unit).as_deref(), Some("new.scope"));
    assert_eq!(text(payload), expected("/web@1.service/payload", "web@1.service"));
    assert!(resolver.gone.contains_key(&payload) && !resolver.gone.contains_key(&service));
}

#[test]
fn a_walk_over_many_groups_is_quick_and_bounded() {
    let Some(mut groups) = Groups::below_root("many") else { return };
    let top = groups.top();
    let mut last = 0;
    for slice in 0..20 {
        groups.make(&format!("{top}/{slice}.slice"));
        for service in 0..99 {
            last = groups.make(&format!("{top}/{slice}.slice/{service}.service"));
        }
    }
    let mut resolver = CgroupResolver::new();
    let mut now = Instant::now();
    for round in 1..=3 {
        resolver.missing(u64::MAX - round);
        let walk = resolver.due(now).expect("a walk");
        let stats = resolver.finish(walk.run(), now).expect("a tree");
        println!("{stats:?}");
        assert!(stats.groups >= 2001 && !stats.truncated);
        assert!(stats.took < Duration::from_secs(1), "{stats:?}");
        now += Duration::from_secs(60);
    }
    let names = resolver.names();
    let started = Instant::now();
    let found = (0..100_000).filter(|_| names.load().get(std::hint::black_box(last)).is_some());
    assert_eq!(found.count(), 100_000);
    println!("one look: {:?}", started.elapsed() / 100_000);

    let mut bounded = CgroupResolver { groups_max: 100, ..CgroupResolver::new() };
    let walk = bounded.due(now).expect("a walk");
    let stats = bounded.finish(walk.run(), now).expect("a tree");
    assert_eq!((stats.groups, stats.truncated), (100, true));
}
