//! `netconsole-agent config`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::print;
use crate::config::{self, Place, Sources};

/// Arguments of `config`.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  netconsole-agent config show")]
pub(super) struct ConfigArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Print the merged configuration, and where each value comes from.
    #[command(after_help = "Example:\n  netconsole-agent config show\n  \
                      netconsole-agent config show --json | jq '.targets.fleet.max_level'\n\n\
                      The output is a configuration that means the same. What was changed on a running agent is\n\
                      in `status`, not here.")]
    Show {
        /// The configuration, with targets.d/*.toml beside it [default: agent.toml and
        /// targets.d/*.toml in /usr/lib/, /run/ and /etc/netconsole-agent].
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Print JSON: {agent, targets}, each value as {value, source, line}.
        #[arg(long)]
        json: bool,
    },
    /// Print a commented configuration with every key.
    #[command(
        after_help = "Example:\n  netconsole-agent config example > /etc/netconsole-agent/agent.toml"
    )]
    Example,
    /// Print the JSON Schema of the configuration, for editors.
    #[command(after_help = "Example:\n  \
                            netconsole-agent config schema > /etc/netconsole-agent/agent.schema.json\n\n\
                            Editors with the TOML language server (taplo) use it for a file that begins with\n\
                            #:schema ./agent.schema.json")]
    Schema,
}

pub(super) fn run(args: &ConfigArgs) -> anyhow::Result<()> {
    match &args.action {
        Action::Show { config, json } => {
            let shown = Sources::read(&Place::of(config.as_deref()))?.show()?;
            if *json {
                print(&(serde_json::to_string_pretty(&shown.to_json())? + "\n"))
            } else {
                print(&shown.to_toml())
            }
        }
        Action::Example => print(&config::example()),
        Action::Schema => print(&(serde_json::to_string_pretty(&config::schema())? + "\n")),
    }
}
