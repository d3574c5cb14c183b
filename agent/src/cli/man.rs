//! `netconsole-agent man`: a page of section 1 for each command, made from the definition of the
//! command line, and the configuration's page of section 5. They are kept nowhere: a package writes
//! them with the binary that it contains.

use std::{fs, io, path::PathBuf};

use anyhow::Context as _;
use clap::{Args, CommandFactory as _};
use clap_mangen::{
    Man,
    roff::{Roff, roman},
};

use super::Cli;
use crate::config;

/// Arguments of `man`.
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  netconsole-agent man --out pages && man -l pages/netconsole-agent.toml.5\n\n\
                  One page for each command, netconsole-agent-status.1 and so on, and netconsole-agent.toml.5 of\n\
                  the configuration. Needs neither root nor a configuration."
)]
pub(super) struct ManArgs {
    /// Folder to write to; made if it is not there.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

pub(super) fn run(args: &ManArgs) -> anyhow::Result<()> {
    let folder = args.out.display();
    fs::create_dir_all(&args.out).with_context(|| format!("cannot make the folder {folder}"))?;
    for (name, text) in pages()? {
        fs::write(args.out.join(&name), text)
            .with_context(|| format!("cannot write {name} in {folder}"))?;
    }
    Ok(())
}

/// Names and texts of all pages.
pub(super) fn pages() -> anyhow::Result<Vec<(String, String)>> {
    let mut root = Cli::command().disable_help_subcommand(true);
    root.build();
    let mut pages = vec![(format!("{}.5", config::PAGE), config::manual())];
    add(&root, None, &mut pages)?;
    Ok(pages)
}

fn add(
    command: &clap::Command,
    above: Option<&str>,
    pages: &mut Vec<(String, String)>,
) -> anyhow::Result<()> {
    let page = Man::new(command.clone())
        .source(concat!("netconsole-agent ", env!("CARGO_PKG_VERSION")))
        .manual("netconsole-agent");
    let name = page.get_filename();
    pages.push((name.clone(), text(command, &page, above)?));
    let this = name.trim_end_matches(".1");
    command.get_subcommands().try_for_each(|inner| add(inner, Some(this), pages))
}

fn text(command: &clap::Command, page: &Man, above: Option<&str>) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    page.render_title(&mut bytes)?;
    page.render_name_section(&mut bytes)?;
    page.render_synopsis_section(&mut bytes)?;
    page.render_description_section(&mut bytes)?;
    page.render_options_section(&mut bytes)?;
    if command.has_subcommands() {
        page.render_subcommands_section(&mut bytes)?;
    }
    rest(command, above).to_writer(&mut bytes)?;
    let text = String::from_utf8(bytes).map_err(|error| io::Error::other(error.utf8_error()))?;
    Ok(with_one_preamble(&text))
}

/// Each section comes with the lines that say how an apostrophe is set; once is enough.
fn with_one_preamble(text: &str) -> String {
    let preamble = Roff::new().render();
    preamble.clone() + &text.replace(&preamble, "")
}

/// What `--help` ends with, and what is the same for all.
fn rest(command: &clap::Command, above: Option<&str>) -> Roff {
    let mut page = Roff::new();
    let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let (examples, notes) = help.split_once("\n\n").unwrap_or((&help, ""));
    page.control("SH", ["EXAMPLES"]);
    page.control("nf", []);
    for line in examples.lines().skip(1) {
        page.text([roman(line.strip_prefix("  ").unwrap_or(line))]);
    }
    page.control("fi", []);
    if !notes.is_empty() {
        page.control("SH", ["NOTES"]);
        write_notes(&mut page, notes);
    }
    page.control("SH", ["SEE ALSO"]);
    let above = above.map(|above| format!("{above}(1), ")).unwrap_or_default();
    page.text([roman(format!("{above}{}(5)", config::PAGE))]);
    page
}

/// Text in paragraphs; what is indented is a line of its own, as are the exit codes.
fn write_notes(page: &mut Roff, notes: &str) {
    for line in notes.lines() {
        if line.is_empty() || line.starts_with("Exit code") {
            page.control("PP", []);
        }
        if line.starts_with("  ") {
            page.control("br", []);
        }
        page.text([roman(line)]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_page_for_every_command() {
        let pages = pages().expect("pages");
        let names: Vec<_> = pages.iter().map(|(name, _)| name.as_str()).collect();
        for name in [
            "netconsole-agent.1",
            "netconsole-agent-status.1",
            "netconsole-agent-target.1",
            "netconsole-agent-target-set.1",
            "netconsole-agent-man.1",
            "netconsole-agent.toml.5",
        ] {
            assert!(names.contains(&name), "{name} is not in {names:?}");
        }
        assert!(!names.iter().any(|name| name.contains("help")), "{names:?}");
        let mut once = names.clone();
        once.sort_unstable();
        once.dedup();
        assert_eq!(once.len(), names.len());
        for (name, text) in &pages {
            let kept = text.lines().filter(|line| line.starts_with(".TH ")).count();
            assert_eq!(kept, 1, "{name}");
            for heading in [".SH NAME\n", ".SH SYNOPSIS\n", ".SH EXAMPLE", ".SH \"SEE ALSO\"\n"] {
                assert!(text.contains(heading), "{name} has no {heading}:\n{text}");
            }
        }
    }

    #[test]
    fn a_page_says_what_help_says() {
        let pages = pages().expect("pages");
        let (_, text) =
            pages.iter().find(|(name, _)| name == "netconsole-agent-status.1").expect("it");
        for part in [
            ".TH netconsole-agent-status 1",
            "netconsole\\-agent\\-status \\- Show what a running agent does",
            "\\fB\\-\\-ledger\\fR",
            "\n.nf\nnetconsole\\-agent status\n",
            "A target marked * was changed live.",
            "netconsole\\-agent(1), netconsole\\-agent.toml(5)",
        ] {
            assert!(text.contains(part), "{part}:\n{text}");
        }
    }
}
