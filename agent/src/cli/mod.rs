//! The command line: one file per subcommand.
//!
//! Exit codes: 0 done, 1 failed, 2 wrong usage (clap's), 78 bad configuration
//! (`EX_CONFIG`, sysexits.h).

mod check;
mod doctor;
mod import;
pub mod logging;
mod receive;
mod run;
mod status;
mod target;

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};

use crate::{
    config::ConfigError,
    control::{protocol, socket},
};

/// Where the configuration is, unless `--config` says otherwise.
pub const DEFAULT_CONFIG: &str = "/etc/netconsole-agent/agent.toml";
/// Where the control socket is, unless `--socket` or the configuration say otherwise.
pub const DEFAULT_SOCKET: &str = "/run/netconsole-agent/control.sock";

const EXIT_BAD_CONFIG: u8 = 78;

/// Sends kernel log records as netconsole packets.
#[derive(Debug, Parser)]
#[command(name = "netconsole-agent", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the agent in the foreground.
    Run(run::RunArgs),
    /// Check a configuration and do nothing else.
    Check(check::CheckArgs),
    /// Tell what this host can do for the agent, and what is in the way.
    Doctor(doctor::DoctorArgs),
    /// Show what a running agent does.
    Status(status::StatusArgs),
    /// Act on the targets of a running agent.
    Target(target::TargetArgs),
    /// Turn the kernel's netconsole targets into a configuration.
    Import(import::ImportArgs),
    /// Receive netconsole packets and print them.
    Receive(receive::ReceiveArgs),
}

/// How a subcommand finds the running agent.
#[derive(Args, Debug)]
struct SocketArgs {
    /// Control socket of the agent.
    #[arg(long, value_name = "PATH", default_value = DEFAULT_SOCKET)]
    socket: PathBuf,
}

impl SocketArgs {
    /// Asks the agent; a refusal is an error.
    fn ask(&self, request: &protocol::Request) -> anyhow::Result<protocol::Reply> {
        let reply = socket::ask(&self.socket, request)?;
        match &reply.error {
            Some(error) if !reply.ok => Err(anyhow::anyhow!("the agent refused: {error}")),
            _ => Ok(reply),
        }
    }
}

/// Parses the command line and carries it out.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        Command::Run(args) => run::run(&args).map(done),
        Command::Check(args) => check::run(&args).map(done),
        Command::Doctor(args) => doctor::run(&args),
        Command::Status(args) => status::run(&args).map(done),
        Command::Target(args) => target::run(&args).map(done),
        Command::Import(args) => import::run(&args),
        Command::Receive(args) => receive::run(args).map(done),
    };
    result.unwrap_or_else(|error| report(&error))
}

fn done((): ()) -> ExitCode {
    ExitCode::SUCCESS
}

fn report(error: &anyhow::Error) -> ExitCode {
    if let Some(config) = error.downcast_ref::<ConfigError>() {
        eprintln!("{config}");
        return ExitCode::from(EXIT_BAD_CONFIG);
    }
    eprintln!("error: {error:#}");
    ExitCode::FAILURE
}

/// Writes to standard output; a reader that has gone away is no failure.
fn print(text: &str) -> anyhow::Result<()> {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
