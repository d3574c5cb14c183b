//! Developer commands of netconsole-agent, run as `cargo xtask <command>`.
//!
//! Each command lives in a file of its own. The ordinary build needs none of
//! this: `agent/build.rs` compiles the eBPF crate by itself; `xtask` brings the
//! tools that it calls for, and runs what is larger than one `cargo` command.

mod arm;
mod bench;
mod build;
mod children;
mod demo;
mod dist;
mod emulator;
mod fuzz;
mod run;
mod setup;
mod signals;
mod soak;
mod summary;
mod supply;
mod system;
mod test;
mod toolchain;
mod vm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(
    name = "xtask",
    bin_name = "cargo xtask",
    about = "Developer commands of netconsole-agent"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install what the build, the tests and the VMs need (needs root only if something is missing)
    Setup,
    /// Set up the tool chain and build the release binary
    Build,
    /// Format check, lints, documentation, tests and VM tests
    Test(test::Args),
    /// Send real kernel records between two namespaces and show them arrive (needs root)
    Demo,
    /// Compare the agent with the kernel's own netconsole in VMs with stock Debian kernels
    Vm(vm::Args),
    /// Let the agent run under random faults for some minutes and account for every record (needs root)
    Soak(soak::Args),
    /// Make the Debian package and the tarball
    Dist(dist::Args),
    /// Try the agent on emulated arm64 machines with stock Debian kernels (not part of `test`: too long)
    Arm(arm::Args),
    /// Install, run, upgrade and remove the package in a Debian of its own, with systemd (needs root)
    System,
    /// Run every benchmark
    Bench(bench::Args),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Setup => setup::run(),
        Command::Build => build::run(),
        Command::Test(args) => test::run(&args),
        Command::Demo => demo::run(),
        Command::Vm(args) => vm::run(&args),
        Command::Soak(args) => soak::run(&args),
        Command::Dist(args) => dist::run(&args),
        Command::Arm(args) => arm::run(&args),
        Command::System => system::run(),
        Command::Bench(args) => bench::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser as _};

    /// Where examples are; the others of theirs are checked by `tests/tests/documents.rs`.
    const DOCUMENTS: [&str; 5] = [
        "README.md",
        "MIGRATION.md",
        "CONTRIBUTING.md",
        "agent/ARCHITECTURE.md",
        "configs/receivers/README.md",
    ];

    #[test]
    fn the_documents_name_commands_that_there_are() {
        let mut count = 0;
        for name in DOCUMENTS {
            let text = std::fs::read_to_string(crate::run::root().join(name)).unwrap();
            for rest in text.split("cargo xtask ").skip(1) {
                let line = rest.split(['`', '#', '\n', '|']).next().unwrap_or_default();
                let words = std::iter::once("xtask").chain(line.split_whitespace());
                if let Err(error) = super::Cli::try_parse_from(words) {
                    panic!("{name}: cargo xtask {line}: {error}");
                }
                count += 1;
            }
        }
        assert!(count > 5, "only {count} were found");
    }

    #[test]
    fn the_arguments_fit_together() {
        super::Cli::command().debug_assert();
    }
}
