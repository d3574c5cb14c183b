//! The definition of the command line: every command has an example, and every example is one.

mod faces;

use clap::CommandFactory as _;

use super::*;

/// Every command with the words that call it, the program's own first.
fn commands() -> Vec<(String, clap::Command)> {
    fn walk(command: &clap::Command, above: &str, all: &mut Vec<(String, clap::Command)>) {
        let words = format!("{above} {}", command.get_name()).trim().to_owned();
        for inner in command.get_subcommands() {
            walk(inner, &words, all);
        }
        all.push((words, command.clone()));
    }
    let mut all = Vec::new();
    walk(&Cli::command(), "", &mut all);
    all
}

fn after_help(command: &clap::Command) -> String {
    let text = command.get_after_long_help().or(command.get_after_help());
    text.map(ToString::to_string).unwrap_or_default()
}

/// The lines of a help's examples; what is indented further explains the one before.
fn examples(help: &str) -> impl Iterator<Item = &str> {
    let list = help.lines().skip_while(|line| !matches!(*line, "Example:" | "Examples:")).skip(1);
    let list = list.take_while(|line| line.starts_with("  "));
    list.filter_map(|line| line.strip_prefix("  ").filter(|line| !line.starts_with(' ')))
}

/// The words of the agent's commands in a line of shell, as far as our examples use it: quotes,
/// and what ends a command.
fn commands_in(line: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let mut rest = line;
    while let Some(at) = rest.find("netconsole-agent ") {
        let (words, length) = first_command(&rest[at..]);
        found.push(words);
        rest = &rest[at + length..];
    }
    found
}

/// The words up to the command's end, and its length in bytes.
fn first_command(text: &str) -> (Vec<String>, usize) {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    let mut end = text.len();
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), c) => word.get_or_insert_default().push(c),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, '|' | '&' | ';' | '>' | ')') => {
                end = at;
                break;
            }
            (None, ' ') => words.extend(word.take()),
            (None, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    (words, end.max(1))
}

#[test]
fn the_definition_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn every_command_has_an_example_of_itself() {
    for (words, command) in commands() {
        let help = after_help(&command);
        let mine = examples(&help)
            .flat_map(commands_in)
            .any(|example| example.join(" ").starts_with(&words));
        assert!(mine, "`{words} --help` ends without an example of it:\n{help}");
    }
}

#[test]
fn every_example_is_understood() {
    let mut count = 0;
    for (command, definition) in commands() {
        for line in after_help(&definition).lines().filter(|line| line.starts_with("  ")) {
            for words in commands_in(line) {
                count += 1;
                let parsed = Cli::try_parse_from(&words);
                let cli =
                    parsed.unwrap_or_else(|error| panic!("`{command} --help`: {line}\n{error}"));
                check_settings(cli.command, line);
            }
        }
    }
    assert!(count > 40, "only {count} examples were found");
}

/// What clap does not know: whether there are such settings.
fn check_settings(command: Command, line: &str) {
    let Command::Target(args) = command else { return };
    let Some(settings) = args.settings() else { return };
    let remote = if settings.contains("remote = ") { "" } else { "remote = \"192.0.2.1\"\n" };
    let text = format!("[target.x]\n{remote}{settings}");
    if let Err(error) = crate::config::parse(&text, "the example") {
        panic!("{line}: {error}");
    }
}

#[test]
fn lines_of_shell_are_taken_apart() {
    let words = |line: &str| {
        let commands = commands_in(line);
        commands.iter().map(|words| words.join(",")).collect::<Vec<_>>()
    };
    assert_eq!(
        words("netconsole-agent a 'b c' \"d | e\" | jq 'x'"),
        ["netconsole-agent,a,b c,d | e"]
    );
    assert_eq!(
        words("n=$(netconsole-agent ping x) && netconsole-agent b > f"),
        ["netconsole-agent,ping,x", "netconsole-agent,b"]
    );
    assert_eq!(words("jq ."), Vec::<String>::new());
}
