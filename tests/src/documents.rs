//! The documents, taken apart: fences, and the commands in lines of shell. Which documents there are
//! stands here; what is checked of them, and what is run, in `tests/documents.rs` and
//! `tests/examples.rs`.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Folders whose documents are checked, from the repository's top.
const FOLDERS: [&str; 3] = ["", "agent", "configs/receivers"];
/// The repository's top.
#[must_use]
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A document.
pub struct Document {
    /// Its file's name.
    pub name: String,
    /// Where the file is.
    pub folder: PathBuf,
    /// All of it.
    pub text: String,
}

/// All documents.
///
/// # Panics
/// If one cannot be read, or is missing.
#[must_use]
pub fn documents() -> Vec<Document> {
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
pub struct Block {
    /// What stands behind the first fence.
    pub kind: String,
    /// The lines between.
    pub text: String,
    /// For people.
    pub place: String,
}

impl Document {
    /// The blocks, and the text beside them.
    ///
    /// # Panics
    /// If a fence is not closed.
    #[must_use]
    pub fn split(&self) -> (Vec<Block>, String) {
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
///
/// # Panics
/// Never.
#[must_use]
pub fn commands(line: &str) -> Vec<Vec<String>> {
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

/// Lines, with those that go on in the next one joined.
#[must_use]
pub fn joined(text: &str) -> String {
    text.replace("\\\n", " ")
}
