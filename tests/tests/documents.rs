//! The documents' examples, each checked with what it is for. A fence says what it has:
//!
//! | fence     | what is checked                                                                  |
//! |-----------|----------------------------------------------------------------------------------|
//! | `toml`    | a configuration, by the agent's own parser; without a `remote` it is the body of a file that has `[target.fleet]` with one before it |
//! | `sh`      | the shell takes it; the arguments of each command, see [`command`]               |
//! | `console` | lines with `$ ` likewise; `import` is run, and prints what stands below it       |
//! | `json`    | it is JSON, as a whole or each line                                              |
//! | `ini`     | a part of a unit: the arguments of what its `Exec…=` lines run                   |
//! | `text`    | nothing: pictures, and output that differs on each host                          |
//!
//! Any other fence fails. Beside fences, `netconsole-agent …` in backticks must have good arguments,
//! and each path and link to a file must lead to one. What `cargo xtask …` is given is checked by xtask's own
//! tests. Nothing here needs root.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use agent_tests::agent::binary;
use netconsole_agent::{cli, config};

/// Folders whose documents are checked, from the repository's top.
const FOLDERS: [&str; 3] = ["", "agent", "configs/receivers"];
/// What a fragment of a configuration is the rest of.
const COMPLETION: &str = "[target.fleet]\nremote = \"192.0.2.10:6666\"\n";
/// Programs of the examples that are not ours: their arguments are not checked.
const FOREIGN: &[&str] = &[
    "apt-get",
    "cd",
    "cp",
    "dmesg",
    "echo",
    "editor",
    "grubby",
    "install",
    "ip",
    "jq",
    "ls",
    "mkdir",
    "modprobe",
    "rm",
    "rmdir",
    "rmmod",
    "rsyslogd",
    "sed",
    "sleep",
    "systemctl",
    "systemd-sysusers",
    "tar",
    "update-grub",
    "update-initramfs",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

struct Document {
    name: String,
    folder: PathBuf,
    text: String,
}

fn documents() -> Vec<Document> {
    let mut documents = Vec::new();
    for name in FOLDERS {
        let folder = root().join(name);
        for entry in fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.extension().is_some_and(|extension| extension == "md") {
                let text = fs::read_to_string(&path).expect("a document");
                let name = path.file_name().expect("a name").to_string_lossy().into_owned();
                documents.push(Document { name, folder: folder.clone(), text });
            }
        }
    }
    for wanted in ["README.md", "MIGRATION.md", "CONTRIBUTING.md", "ARCHITECTURE.md"] {
        assert!(documents.iter().any(|document| document.name == wanted), "{wanted}");
    }
    documents
}

/// What stands between two fences.
#[derive(Debug)]
struct Block {
    kind: String,
    text: String,
    /// For people.
    place: String,
}

impl Document {
    /// The blocks, and the text beside them.
    fn split(&self) -> (Vec<Block>, String) {
        let mut blocks: Vec<Block> = Vec::new();
        let mut beside = String::new();
        let mut open = false;
        for (index, line) in self.text.lines().enumerate() {
            match (line.strip_prefix("```"), open) {
                (Some(kind), false) => {
                    let place = format!("{}:{}", self.name, index + 1);
                    blocks.push(Block { kind: kind.to_owned(), text: String::new(), place });
                    open = true;
                }
                (Some(rest), true) => {
                    assert_eq!(rest, "", "{}:{}", self.name, index + 1);
                    open = false;
                }
                (None, true) => {
                    let block = blocks.last_mut().expect("it is open");
                    block.text += line;
                    block.text.push('\n');
                }
                (None, false) => {
                    beside += line;
                    beside.push('\n');
                }
            }
        }
        assert!(!open, "{}: a fence is not closed", self.name);
        (blocks, beside)
    }
}

/// The simple commands of a line, as words; redirections, variables before the command and comments
/// are left out.
fn commands(line: &str) -> Vec<Vec<String>> {
    let mut commands = vec![Vec::new()];
    let mut word: Option<String> = None;
    let mut skip = false;
    let mut chars = line.chars().peekable();
    let end = |word: &mut Option<String>, skip: &mut bool, commands: &mut Vec<Vec<String>>| {
        if let Some(word) = word.take()
            && !std::mem::take(skip)
        {
            commands.last_mut().expect("one").push(word);
        }
    };
    while let Some(c) = chars.next() {
        match c {
            '\'' | '"' => {
                let inner = chars.by_ref().take_while(|inner| *inner != c);
                word.get_or_insert_default().extend(inner);
            }
            '\\' => word.get_or_insert_default().extend(chars.next()),
            ' ' | '\t' => end(&mut word, &mut skip, &mut commands),
            '#' if word.is_none() => break,
            '>' | '<' => {
                // The number of a descriptor is no word.
                if word.as_deref().is_some_and(|word| word.bytes().all(|b| b.is_ascii_digit())) {
                    word = None;
                }
                end(&mut word, &mut skip, &mut commands);
                while chars.next_if(|next| matches!(next, '>' | '&')).is_some() {}
                skip = true;
            }
            '|' | '&' | ';' => {
                end(&mut word, &mut skip, &mut commands);
                commands.push(Vec::new());
            }
            _ => word.get_or_insert_default().push(c),
        }
    }
    end(&mut word, &mut skip, &mut commands);
    for command in &mut commands {
        let is_variable = |word: &String| {
            let name = word.split('=').next().unwrap_or_default();
            name.len() < word.len() && name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_')
        };
        let variables = command.iter().take_while(|word| is_variable(word)).count();
        command.drain(..variables);
    }
    commands.retain(|command| !command.is_empty());
    commands
}

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

/// Whether the shell takes it.
fn shell(text: &str, place: &str) {
    let status = Command::new("sh").args(["-n", "-c", text]).status().expect("run sh");
    assert!(status.success(), "{place}: the shell does not take\n{text}");
}

/// Lines, with those that go on in the next one joined.
fn joined(text: &str) -> String {
    text.replace("\\\n", " ")
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
    for document in documents() {
        let (blocks, _) = document.split();
        let folder = tempfile::tempdir().expect("a folder");
        let tree = tree(&blocks, folder.path());
        for block in &blocks {
            match block.kind.as_str() {
                "toml" => check_toml(block),
                "sh" => check_shell(block),
                "console" => check_console(block, &tree),
                "json" => check_json(block),
                "ini" => check_unit(block),
                "text" => {}
                other => panic!("{}: what is {other:?}? See tests/tests/documents.rs", block.place),
            }
            kinds.push(block.kind.clone());
        }
    }
    // None of the checks is there in vain.
    for kind in ["toml", "sh", "console", "json", "ini", "text"] {
        assert!(kinds.iter().any(|known| known == kind), "no example is {kind}");
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
    assert!(is_refused(&check_unit, "ExecStart=-/usr/bin/netconsole-agent sned x\n"));
    let console = |block: &Block| check_console(block, Path::new("/nonexistent"));
    let import = "$ netconsole-agent import '+@/eth0,@192.0.2.10/'\n[target.target1]\n";
    assert!(is_refused(&console, import), "output is missing");
    let rest = "remote = \"192.0.2.10:6666\"\ndevice = \"eth0\"\n";
    assert!(!is_refused(&console, &format!("{import}{rest}")));
    assert!(is_refused(&console, &format!("{import}{rest}more\n")), "nobody prints that");
}
