//! `netconsole-agent completions`: made from the definition of the command line, and kept nowhere.

use clap::{Args, CommandFactory as _, ValueEnum};
use clap_complete::Shell;

use super::{Cli, print};

/// Arguments of `completions`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
                  netconsole-agent completions bash > /usr/share/bash-completion/completions/netconsole-agent\n  \
                  netconsole-agent completions zsh > /usr/local/share/zsh/site-functions/_netconsole-agent\n  \
                  netconsole-agent completions fish > /usr/share/fish/vendor_completions.d/netconsole-agent.fish\n\n\
                  Needs neither root nor a configuration.")]
pub(super) struct CompletionsArgs {
    /// The shell.
    shell: Known,
}

/// The shells that are known here: those of servers.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Known {
    Bash,
    Zsh,
    Fish,
}

pub(super) fn run(args: &CompletionsArgs) -> anyhow::Result<()> {
    print(&String::from_utf8(script(args.shell))?)
}

/// What the shell reads.
pub(super) fn script(shell: Known) -> Vec<u8> {
    let shell = match shell {
        Known::Bash => Shell::Bash,
        Known::Zsh => Shell::Zsh,
        Known::Fish => Shell::Fish,
    };
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "netconsole-agent", &mut text);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_is_told_of_every_command() {
        for shell in Known::value_variants() {
            let text = String::from_utf8(script(*shell)).expect("UTF-8");
            for command in Cli::command().get_subcommands() {
                assert!(text.contains(command.get_name()), "{shell:?}: {}", command.get_name());
            }
            for words in ["resolve", "--kernel-log", "--socket"] {
                assert!(text.contains(words.trim_start_matches("--")), "{shell:?}: {words}");
            }
        }
    }
}
