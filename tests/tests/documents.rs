//! The documents' examples, each checked with what it is for. A fence says what it has:
//!
//! | fence     | what is checked                                                                  |
//! |-----------|----------------------------------------------------------------------------------|
//! | `toml`    | a configuration, by the agent's own parser; without a `remote` it is the body of a file that has `[target.fleet]` with one before it |
//! | `sh`      | the shell takes it; the arguments of each command, see [`command`]. `examples.rs` runs it |
//! | `console` | lines with `$ ` likewise; `import` is run, and prints what stands below it. For another command [`SHOWN`] has the test that runs and compares it |
//! | `json`    | it is JSON, as a whole or each line; [`SHOWN`] has the test that compares it     |
//! | `ini`     | a part of a unit: the arguments of what its `Exec…=` lines run, which `examples.rs` does |
//! | `text`    | [`SHOWN`] has the test that compares it with what is printed, or why there is none |
//!
//! Any other fence fails. Beside fences, `netconsole-agent …` in backticks must have good arguments,
//! and each path and link to a file must lead to one. What `cargo xtask …` is given is checked by xtask's own
//! tests. Nothing here needs root.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use agent_tests::{
    agent::binary,
    documents::{Block, commands, documents, joined, root},
};
use netconsole_agent::{
    cli, config,
    privileges::{KEPT, NEEDS},
};

/// What a fragment of a configuration is the rest of.
const COMPLETION: &str = "[target.fleet]\nremote = \"192.0.2.10:6666\"\n";
/// Who sees that what a block shows is what comes out.
#[derive(Clone, Copy, Debug)]
enum By {
    /// This test, in this file.
    Test(&'static str, &'static str),
    /// Nobody, for this reason.
    Nobody(&'static str),
}

/// What blocks of `text`, `json` and (beside `import`) `console` begin with, and who compares them.
const SHOWN: [(&str, By); 12] = [
    (
        "seen 100000 = ",
        By::Test("agent/src/control/status/ledger.rs", "the_readme_shows_what_is_printed"),
    ),
    (
        "fleet (seq 100 ",
        By::Test("agent/src/control/status/ledger.rs", "the_readme_shows_what_is_printed"),
    ),
    (
        "netconsole-agent, after-crash: ",
        By::Test("agent/src/after_crash/piece.rs", "the_readme_shows_what_is_sent"),
    ),
    (
        "netconsole-agent, notice: ",
        By::Test("agent/src/pump/gap.rs", "gaps_before_the_line_leaves_are_one"),
    ),
    ("target fleet\n", By::Test("agent/src/doctor/way_tests.rs", "the_readme_shows_what_is_found")),
    (
        "$ netconsole-agent receive --netoops ",
        By::Test("tests/tests/examples.rs", "the_receiver_of_dumps_says_what_is_shown"),
    ),
    ("{\"source\"", By::Test("tests/tests/receivers.rs", "a_record_looks_as_it_is_shown")),
    ("{\"gap\"", By::Test("tests/tests/receivers.rs", "gaps_and_restarts_look_as_they_are_shown")),
    (
        "make netconsd ",
        By::Nobody("netconsd's source is not here, and a test does not fetch and build it"),
    ),
    (" printk() ", By::Nobody("a picture")),
    ("            enable ", By::Nobody("a picture")),
    (" panicking CPU ", By::Nobody("a picture")),
];

/// Programs of the examples that are not ours: their arguments are not checked.
const FOREIGN: &[&str] = &[
    "apt-get",
    "cd",
    "cp",
    "echo",
    "editor",
    "grubby",
    "install",
    "jq",
    "mkdir",
    "modprobe",
    "rm",
    "rmdir",
    "rsyslogd",
    "sed",
    "systemctl",
    "systemd-sysusers",
    "tar",
    "update-grub",
    "update-initramfs",
];

/// Checks one command: ours by its arguments, cargo's by the names that it is given, others by being
/// known at all. Files of the repository must be there.
fn command(words: &[String], place: &str) {
    let (program, arguments) = words.split_first().expect("a program");
    match program.rsplit('/').next().unwrap_or_default() {
        "netconsole-agent" => {
            if let Err(error) = cli::parses(arguments) {
                panic!("{place}: {words:?}: {error}");
            }
        }
        "cargo" => cargo(arguments, place),
        name => assert!(FOREIGN.contains(&name), "{place}: nobody knows {name:?}"),
    }
    for word in words.iter().filter(|word| word.starts_with("configs/")) {
        assert!(root().join(word).exists(), "{place}: there is no {word}");
    }
}

fn cargo(arguments: &[String], place: &str) {
    for pair in arguments.windows(2) {
        let (option, name) = (pair[0].as_str(), pair[1].as_str());
        let folder = |package: &str| match package {
            "netconsole-agent" => "agent".to_owned(),
            "agent-tests" => "tests".to_owned(),
            other => other.to_owned(),
        };
        let package = arguments.iter().skip_while(|word| *word != "-p").nth(1);
        let file = match option {
            "-p" => folder(name) + "/Cargo.toml",
            "--test" => format!("tests/tests/{name}.rs"),
            "--bench" => {
                format!("{}/benches/{name}.rs", folder(package.expect("the bench's package")))
            }
            _ => continue,
        };
        assert!(root().join(&file).exists(), "{place}: {option} {name}: there is no {file}");
    }
}

/// Whether [`SHOWN`] has the block, and the test that it names is there; its place in there.
fn check_shown(block: &Block) -> usize {
    let found = SHOWN.iter().position(|(begin, _)| block.text.starts_with(begin));
    let found = found.unwrap_or_else(|| panic!("{}: who compares this? See SHOWN", block.place));
    match SHOWN[found].1 {
        By::Test(file, name) => {
            let text = fs::read_to_string(root().join(file)).expect(file);
            let head = format!("#[test]\nfn {name}()");
            let is_there = text.lines().map(str::trim_start).collect::<Vec<_>>().join("\n");
            assert!(is_there.contains(&head), "{}: no test {name} in {file}", block.place);
        }
        By::Nobody(reason) => println!("{} is compared with nothing: {reason}", block.place),
    }
    found
}

/// Whether the shell takes it.
fn shell(text: &str, place: &str) {
    let status = Command::new("sh").args(["-n", "-c", text]).status().expect("run sh");
    assert!(status.success(), "{place}: the shell does not take\n{text}");
}

fn check_shell(block: &Block) {
    shell(&block.text, &block.place);
    for line in joined(&block.text).lines() {
        commands(line).iter().for_each(|words| command(words, &block.place));
    }
}

fn check_console(block: &Block, tree: &Path) {
    let mut ran: Option<Ran> = None;
    for line in block.text.lines() {
        if let Some(line) = line.strip_prefix("$ ") {
            if let Some(ran) = ran.take() {
                ran.end(&block.place);
            }
            shell(line, &block.place);
            let commands = commands(line);
            commands.iter().for_each(|words| command(words, &block.place));
            let first = commands.first().expect("a command");
            if first.get(1).is_some_and(|word| word == "import") {
                ran = Some(Ran::new(&first[1..], tree));
            }
        } else if let Some(ran) = &mut ran {
            ran.printed(line, &block.place);
        }
    }
    if let Some(ran) = ran {
        ran.end(&block.place);
    }
}

/// A command that was run, to be compared with what the document says that it prints: all of
/// standard output, and as much as one likes of standard error. `…` stands for the rest of a line.
struct Ran {
    out: std::vec::IntoIter<String>,
    err: Vec<String>,
}

impl Ran {
    /// Without a string it imports `tree` in the place of the kernel's.
    fn new(arguments: &[String], tree: &Path) -> Self {
        let mut command = Command::new(binary());
        command.args(arguments).stdin(Stdio::null());
        if arguments.len() == 1 {
            command.arg("--configfs").arg(tree);
        }
        let output = command.output().expect("run it");
        let lines = |bytes: &[u8]| -> Vec<String> {
            String::from_utf8_lossy(bytes).lines().map(str::to_owned).collect()
        };
        Self { out: lines(&output.stdout).into_iter(), err: lines(&output.stderr) }
    }

    fn printed(&mut self, line: &str, place: &str) {
        let is_it = |real: &String| match line.strip_suffix('…') {
            Some(begin) => real.starts_with(begin),
            None => real == line,
        };
        if self.out.as_slice().first().is_some_and(is_it) {
            self.out.next();
        } else {
            assert!(
                self.err.iter().any(is_it),
                "{place}: {line:?}; {:?}, {:?}",
                self.out,
                self.err
            );
        }
    }

    fn end(self, place: &str) {
        assert_eq!(self.out.as_slice(), [""; 0], "{place}: that is printed, too");
    }
}

fn check_toml(block: &Block) {
    let whole = if block.text.contains("remote") {
        block.text.clone()
    } else {
        format!("{COMPLETION}{}", block.text)
    };
    if let Err(error) = config::parse(&whole, &block.place) {
        panic!("{error}");
    }
}

fn check_json(block: &Block) {
    let is_json = |text: &str| serde_json::from_str::<serde_json::Value>(text).is_ok();
    assert!(is_json(&block.text) || block.text.lines().all(is_json), "{}: no JSON", block.place);
}

fn check_unit(block: &Block) {
    for line in block.text.lines().filter(|line| line.starts_with("Exec")) {
        let (_, run) = line.split_once('=').expect("a setting");
        let run = run.trim_start_matches(['-', '+', '!', '@', ':']);
        commands(run).iter().for_each(|words| command(words, &block.place));
    }
}

/// A tree like configfs', made by what the documents say to the kernel's.
fn tree(blocks: &[Block], folder: &Path) -> PathBuf {
    const CONFIGFS: &str = "/sys/kernel/config";
    let script = blocks.iter().find(|block| block.text.starts_with(&format!("mkdir {CONFIGFS}")));
    if let Some(block) = script {
        let folder = folder.to_str().expect("UTF-8");
        fs::create_dir(format!("{folder}/netconsole")).expect("a folder");
        let script = format!("set -e\n{}", block.text.replace(CONFIGFS, folder));
        assert!(!script.contains("/sys/") && !script.contains("/proc/"), "{script}");
        let status = Command::new("sh").args(["-c", &script]).status().expect("run sh");
        assert!(status.success(), "{}", block.place);
    }
    folder.join("netconsole")
}

#[test]
fn every_example_is_good() {
    let mut kinds = Vec::new();
    let mut shown = vec![false; SHOWN.len()];
    for document in documents() {
        let (blocks, _) = document.split();
        let folder = tempfile::tempdir().expect("a folder");
        let tree = tree(&blocks, folder.path());
        for block in &blocks {
            match block.kind.as_str() {
                "toml" => check_toml(block),
                "sh" => check_shell(block),
                "console" => {
                    check_console(block, &tree);
                    if !block.text.starts_with("$ netconsole-agent import") {
                        shown[check_shown(block)] = true;
                    }
                }
                "json" => {
                    check_json(block);
                    shown[check_shown(block)] = true;
                }
                "ini" => check_unit(block),
                "text" => shown[check_shown(block)] = true,
                other => panic!("{}: what is {other:?}? See tests/tests/documents.rs", block.place),
            }
            kinds.push(block.kind.clone());
        }
    }
    // None of the checks is there in vain.
    for kind in ["toml", "sh", "console", "json", "ini", "text"] {
        assert!(kinds.iter().any(|known| known == kind), "no example is {kind}");
    }
    for ((begin, _), seen) in SHOWN.iter().zip(shown) {
        assert!(seen, "no block begins with {begin:?}");
    }
}

#[test]
fn commands_within_sentences_are_good() {
    let mut count = 0;
    for document in documents() {
        let (_, beside) = document.split();
        // Every second part is within backticks; a span does not go over a paragraph.
        for paragraph in beside.split("\n\n").flat_map(|paragraph| paragraph.split("\n|")) {
            for span in paragraph.split('`').skip(1).step_by(2) {
                if span.starts_with("netconsole-agent ") {
                    let line = span.replace('\n', " ");
                    commands(&line).iter().for_each(|words| command(words, &document.name));
                    count += 1;
                }
                let is_path = ["agent/src/", "configs/", "tests/", "xtask/src/"]
                    .iter()
                    .any(|folder| span.starts_with(folder));
                if is_path && !span.contains("NAME") {
                    assert!(root().join(span).exists(), "{}: there is no {span}", document.name);
                }
            }
        }
    }
    assert!(count > 5, "only {count} were found");
}

/// The README's table of capabilities against what is asked for, what is kept, and what the unit gives.
#[test]
fn the_table_of_capabilities_is_true() {
    let readme = fs::read_to_string(root().join("README.md")).expect("the README");
    let (_, table) =
        readme.split_once("| capability | for | kept after the start |\n").expect("it");
    let rows: Vec<Vec<&str>> = table
        .lines()
        .skip(1)
        .take_while(|line| line.starts_with('|'))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    let row = |name: &str| {
        let cell = format!("`{name}`");
        let found = rows.iter().find(|row| row[0] == cell);
        found.unwrap_or_else(|| panic!("{name} is not in the table: {rows:?}"))
    };
    for need in NEEDS {
        let told = row(need.name)[1].replace('`', "");
        let purpose = need.purpose.replace('`', "");
        assert!(told.contains(&purpose), "{}: {told:?}, not {purpose:?}", need.name);
    }
    let kept = KEPT.map(|capability| capability.to_string());
    for row in &rows {
        let is_kept = kept.iter().any(|name| row[0] == format!("`{name}`"));
        assert_eq!(row[2], if is_kept { "yes" } else { "no" }, "{row:?}");
    }
    let unit = fs::read_to_string(root().join("configs/netconsole-agent.service")).expect("it");
    let given = unit.lines().find_map(|line| line.strip_prefix("AmbientCapabilities="));
    let mut given: Vec<String> =
        given.expect("a line").split(' ').map(|name| format!("`{name}`")).collect();
    let mut told: Vec<String> = rows.iter().map(|row| row[0].to_owned()).collect();
    given.sort_unstable();
    told.sort_unstable();
    assert_eq!(told, given, "the unit gives others");
}

#[test]
fn links_lead_to_files() {
    for document in documents() {
        let (_, beside) = document.split();
        for link in beside.split("](").skip(1) {
            let target = link.split(')').next().unwrap_or_default();
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            if target.starts_with("http") {
                continue;
            }
            let path = document.folder.join(file);
            assert!(file.is_empty() || path.exists(), "{}: {target}", document.name);
            if !anchor.is_empty() {
                let text = if file.is_empty() {
                    document.text.clone()
                } else {
                    fs::read_to_string(path).expect("a document")
                };
                let found = text.lines().filter(|line| line.starts_with('#')).map(heading_anchor);
                assert!(found.into_iter().any(|it| it == anchor), "{}: {target}", document.name);
            }
        }
    }
}

/// The anchor of a heading: small letters, hyphens for blanks, no punctuation.
fn heading_anchor(line: &str) -> String {
    let text = line.trim_start_matches('#').trim().to_lowercase();
    let kept = text.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// The checks themselves refuse what they should.
#[test]
fn what_is_wrong_is_seen() {
    let words = |line: &str| commands(line);
    assert_eq!(
        words("A=1 netconsole-agent send fleet \"a b\" 2>/dev/null | jq -c '.x | .y' >> out # end"),
        [vec!["netconsole-agent", "send", "fleet", "a b"], vec!["jq", "-c", ".x | .y"]]
    );
    assert_eq!(words("a& b ; c 2>&1 x"), [vec!["a"], vec!["b"], vec!["c", "x"]]);
    assert!(words("# all of it").is_empty());
    let is_refused = |check: &dyn Fn(&Block), text: &str| {
        let block = Block { kind: String::new(), text: text.to_owned(), place: "it".to_owned() };
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| check(&block))).is_err()
    };
    assert!(is_refused(&check_toml, "[target.fleet]\nremote = \"192.0.2.10\"\nremoet = 1\n"));
    assert!(is_refused(&check_toml, "[target.fleet.sysdata]\ncpux = true\n"));
    assert!(!is_refused(&check_toml, "[target.fleet.sysdata]\ncpu = true\n"));
    assert!(is_refused(&check_shell, "netconsole-agent check --no-such-option\n"));
    assert!(is_refused(&check_shell, "echo 'no end\n"));
    assert!(is_refused(&check_shell, "unheard-of\n"));
    assert!(is_refused(&check_shell, "cargo test -p agent-tests --test no_such_test\n"));
    assert!(is_refused(&check_json, "{\"a\":1}\n{\n"));
    assert!(is_refused(&|block| assert!(check_shown(block) < SHOWN.len()), "nobody knows this\n"));
    assert!(is_refused(&check_unit, "ExecStart=-/usr/bin/netconsole-agent sned x\n"));
    let console = |block: &Block| check_console(block, Path::new("/nonexistent"));
    let import = "$ netconsole-agent import '+@/eth0,@192.0.2.10/'\n[target.target1]\n";
    assert!(is_refused(&console, import), "output is missing");
    let rest = "remote = \"192.0.2.10:6666\"\ndevice = \"eth0\"\n";
    assert!(!is_refused(&console, &format!("{import}{rest}")));
    assert!(is_refused(&console, &format!("{import}{rest}more\n")), "nobody prints that");
}
