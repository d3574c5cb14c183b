//! The manual page of the configuration, section 5, made from the definitions of the keys.

use clap_mangen::roff::{Roff, bold, italic, roman};

use super::{
    files::FOLDERS,
    keys::{AGENT, FILTER, Key, LAST_WORDS, LAST_WORDS_KEYS, RULE, SYSDATA, TARGET, USERDATA},
    kind::{Kind, TARGET_NAME_MAX_BYTES},
};
use crate::netconsole::SysdataKey;

/// The name of the page, without its section.
pub const PAGE: &str = "netconsole-agent.toml";

/// The page, in the language of man(7).
#[must_use]
pub fn manual() -> String {
    let mut page = Roff::new();
    let version = concat!("netconsole-agent ", env!("CARGO_PKG_VERSION"));
    page.control("TH", [PAGE, "5", "", version, "netconsole-agent"]);
    section(&mut page, "NAME");
    page.text([roman(format!("{PAGE} - configuration of netconsole-agent"))]);
    section(&mut page, "SYNOPSIS");
    for (index, folder) in FOLDERS.iter().rev().enumerate() {
        if index > 0 {
            page.control("br", []);
        }
        page.text([italic(format!("{folder}/agent.toml"))]);
        page.control("br", []);
        page.text([italic(format!("{folder}/targets.d/*.toml"))]);
    }
    description(&mut page);
    tables(&mut page);
    section(&mut page, "EXAMPLE");
    page.control("nf", []);
    for line in EXAMPLE.lines() {
        page.text([roman(line)]);
    }
    page.control("fi", []);
    section(&mut page, "SEE ALSO");
    page.text([roman(
        "netconsole-agent(1), netconsole-agent-check(1), netconsole-agent-config(1), \
         netconsole-agent-import(1), netconsole-agent-reload(1)",
    )]);
    page.render()
}

const EXAMPLE: &str = r#"[target.fleet]
remote = "192.0.2.10:6666"
max_level = "info"

[target.fleet.userdata]
rack = "r12"

[[target.fleet.filter]]
text = "martian source"
action = "drop""#;

fn section(page: &mut Roff, name: &str) {
    page.control("SH", [name]);
}

fn paragraph(page: &mut Roff, text: &str) {
    page.control("PP", []);
    page.text([roman(text)]);
}

fn description(page: &mut Roff) {
    section(page, "DESCRIPTION");
    page.text([roman(
        "The configuration is TOML. Of the files agent.toml in the three folders the first one in the \
         order above counts. The files in targets.d beside it add targets, one or more in each file; \
         they can have nothing else. There, too, a file replaces the one of the same name in a folder \
         further down, also by nothing: an empty file, a link to /dev/null.",
    )]);
    paragraph(
        page,
        "Keys that do not exist are refused, like everything that is not understood, with all other \
         problems at once: netconsole-agent-check(1). What comes out of all files, and where each value \
         is from, netconsole-agent-config(1) prints, and a JSON Schema for editors.",
    );
    paragraph(
        page,
        "A running agent takes a new configuration by netconsole-agent-reload(1), whole or not at all. \
         Settings of [agent] need a restart, which the answer says.",
    );
}

fn tables(page: &mut Roff) {
    section(page, "[agent]");
    keys(page, AGENT);
    section(page, &format!("[{LAST_WORDS}]"));
    page.text([roman("What is done while the kernel panics.")]);
    keys(page, LAST_WORDS_KEYS);
    section(page, "[target.NAME]");
    page.text([roman(format!(
        "One table for each receiver. The name has letters, digits, `_`, `.` and `-`, at most \
         {TARGET_NAME_MAX_BYTES}."
    ))]);
    keys(page, TARGET);
    section(page, &format!("[target.NAME.{SYSDATA}]"));
    page.text([roman(
        "Added to each record by the agent (extended format). Each of these is true or false, which is \
         the default:",
    )]);
    let names: Vec<&str> = SysdataKey::ALL.into_iter().map(SysdataKey::name).collect();
    paragraph(page, &(names.join(", ") + "."));
    section(page, &format!("[target.NAME.{USERDATA}]"));
    page.text([roman(
        "Your own additions to each record, in the order of the file (extended format): any keys, and \
         strings as values. A value can have the text of a file, {file:/etc/role}, or an environment \
         variable, {env:JOB}, in it.",
    )]);
    section(page, &format!("[[target.NAME.{FILTER}]]"));
    page.text([roman(
        "Rules: the first one whose conditions all hold decides; without one the record is sent.",
    )]);
    keys(page, RULE);
    section(page, "[defaults]");
    page.text([roman(format!(
        "Every key of a target but `remote` can have a default for all targets. Lines of `{USERDATA}` \
         and `{SYSDATA}` are merged key by key; a target with rules of its own does not use the \
         default ones. What only fits another egress or format than a target's is not used there."
    ))]);
}

fn keys(page: &mut Roff, keys: &[Key]) {
    for key in keys.iter().filter(|key| !matches!(key.kind, Kind::Table)) {
        page.control("TP", []);
        page.text([bold(key.name)]);
        page.text([roman(key.help.join(" "))]);
        page.control("br", []);
        page.text([roman(format!("Value: {}.", key.kind.in_words()))]);
        page.control("br", []);
        page.text([roman(match (key.default, key.example) {
            (Some(default), _) => format!("Default: {default}"),
            (None, Some(example)) => format!("No default. Example: {example}"),
            (None, None) => "No default.".to_owned(),
        })]);
    }
}
