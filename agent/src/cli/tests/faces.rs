//! What is made from the definition of the command line, against what is kept: manual pages,
//! completions and `--help`. `UPDATE_GOLDEN=1` writes it anew; look at the difference. (Of the
//! configuration, `config/tests/schema.rs` keeps page, schema and example.)

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use clap::ValueEnum as _;

use super::super::{completions, man};
use super::*;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cli/tests").join(name)
}

/// A folder's files, and no others, as they are made.
#[track_caller]
fn assert_kept(name: &str, made: &BTreeMap<String, String>) {
    let folder = folder(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).expect("a folder");
        for (name, text) in made {
            fs::write(folder.join(name), text).expect("write it");
        }
    }
    let name_of = |entry: std::io::Result<fs::DirEntry>| {
        entry.expect("an entry").file_name().into_string().expect("UTF-8")
    };
    let mut kept: Vec<String> = fs::read_dir(&folder).expect("the folder").map(name_of).collect();
    kept.sort_unstable();
    assert_eq!(kept, made.keys().cloned().collect::<Vec<_>>(), "UPDATE_GOLDEN=1 makes them anew");
    for (name, made) in made {
        let path = folder.join(name);
        let kept = fs::read_to_string(&path).expect("the file");
        // Not the whole of both, which nobody could compare by eye.
        let other = kept.lines().zip(made.lines()).find(|(kept, made)| kept != made);
        let lines = (kept.lines().count(), made.lines().count());
        assert!(
            kept == *made,
            "{}: kept and made differ, first here: {other:?}; lines {lines:?}. UPDATE_GOLDEN=1 writes it anew",
            path.display()
        );
    }
}

/// So that a release changes nothing here.
fn without_version(text: &str) -> String {
    text.replace(
        concat!("netconsole-agent ", env!("CARGO_PKG_VERSION")),
        "netconsole-agent VERSION",
    )
}

#[test]
fn the_manual_pages_are_what_is_kept() {
    let pages = man::pages().expect("pages");
    // The configuration's page is kept beside its definitions.
    let pages = pages.into_iter().filter(|(name, _)| name.ends_with(".1"));
    assert_kept("man", &pages.map(|(name, text)| (name, without_version(&text))).collect());
}

#[test]
fn the_completions_are_what_is_kept() {
    let script = |shell: &completions::Known| {
        let name = shell.to_possible_value().expect("a name").get_name().to_owned();
        let text = String::from_utf8(completions::script(*shell)).expect("UTF-8");
        (format!("netconsole-agent.{name}"), text)
    };
    assert_kept("completions", &completions::Known::value_variants().iter().map(script).collect());
}

/// On a terminal of 100 columns.
#[test]
fn the_help_is_what_is_kept() {
    fn add(command: &mut clap::Command, file: &str, made: &mut BTreeMap<String, String>) {
        let help = command.render_long_help().to_string();
        made.insert(format!("{file}.txt"), without_version(&help));
        for inner in command.get_subcommands_mut() {
            add(inner, &format!("{file}-{}", inner.get_name()), made);
        }
    }
    let mut root = Cli::command().disable_help_subcommand(true).term_width(100);
    root.build();
    let mut made = BTreeMap::new();
    add(&mut root, "netconsole-agent", &mut made);
    assert_kept("help", &made);
}
