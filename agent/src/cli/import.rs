//! `netconsole-agent import`.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;

use super::print;
use crate::import;

/// Arguments of `import`.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  netconsole-agent import '+6665@192.0.2.1/eth0,6666@192.0.2.10/'\n  \
                  netconsole-agent import > /etc/netconsole-agent/agent.toml\n\n\
                  The configuration goes to standard output, what could not be carried over to \
                  standard error.\nExit code: 0 if there is a target, 1 if there is none."
)]
pub(super) struct ImportArgs {
    /// The netconsole= string of the module or the kernel's command line; the live configfs tree
    /// if left out.
    #[arg(value_name = "STRING")]
    string: Option<String>,
    /// Where the configfs tree is.
    #[arg(long, value_name = "PATH", default_value = import::CONFIGFS, conflicts_with = "string")]
    configfs: PathBuf,
}

pub(super) fn run(args: &ImportArgs) -> anyhow::Result<ExitCode> {
    let import = match &args.string {
        Some(string) => import::string(string),
        None => import::configfs(&args.configfs)?,
    };
    for line in import.refusals.iter().chain(&import.notes) {
        eprintln!("{line}");
    }
    print(&import.toml)?;
    if import.targets > 0 {
        return Ok(ExitCode::SUCCESS);
    }
    match &args.string {
        Some(_) => anyhow::bail!("the string has no target that can be imported"),
        None => anyhow::bail!("{} has no target that can be imported", args.configfs.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_imported_is_a_failure() {
        let import = |string: &str| {
            run(&ImportArgs { string: Some(string.to_owned()), configfs: PathBuf::new() })
        };
        assert!(import("@/,@192.0.2.10/;r@/,@192.0.2.11/").is_ok());
        let error = import("r@/,@192.0.2.11/").unwrap_err().to_string();
        assert!(error.contains("has no target that can be imported"), "{error}");
        let dir = tempfile::tempdir().unwrap();
        let tree = |path: PathBuf| run(&ImportArgs { string: None, configfs: path });
        assert!(tree(dir.path().to_owned()).is_err(), "an empty tree");
        let error = tree(dir.path().join("absent")).unwrap_err().to_string();
        assert!(error.contains("modprobe netconsole"), "{error}");
    }
}
