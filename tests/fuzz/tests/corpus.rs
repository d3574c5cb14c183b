//! The checked-in corpora hold without libFuzzer, and there is one for every target.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use agent_fuzz::TARGETS;

fn entries(dir: &str) -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join(dir);
    let list = fs::read_dir(&dir)
        .and_then(|list| list.map(|entry| Ok(entry?.path())).collect::<Result<_, _>>());
    list.unwrap_or_else(|error| panic!("{}: {error}", dir.display()))
}

fn names(dir: &str) -> BTreeSet<String> {
    let name = |path: PathBuf| Some(path.file_stem()?.to_string_lossy().into_owned());
    entries(dir).into_iter().filter_map(name).collect()
}

#[test]
fn the_corpora_hold() {
    for (name, target) in TARGETS {
        let inputs = entries(&format!("corpus/{name}"));
        assert!(!inputs.is_empty(), "{name} has no corpus");
        for path in inputs {
            println!("{}", path.display());
            target(&fs::read(path).expect("a readable input"));
        }
    }
}

#[test]
fn every_target_has_a_fuzzer_and_a_corpus() {
    let targets: BTreeSet<_> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names("fuzz_targets"), targets);
    assert_eq!(names("corpus"), targets);
}
