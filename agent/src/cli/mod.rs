//! The command line: one file per subcommand.
//!
//! Exit codes: 0 done, 1 failed, 2 wrong usage (clap's), 77 capabilities are missing, 78 bad
//! configuration (`EX_NOPERM`, `EX_CONFIG`, sysexits.h).

mod bugreport;
mod check;
mod completions;
mod config;
mod doctor;
mod dump;
mod filter;
mod import;
pub mod logging;
mod loglevel;
mod man;
mod ping;
mod receive;
mod reload;
mod run;
mod send;
mod settings;
mod status;
mod tail;
mod target;
mod userdata;

use std::{borrow::Cow, path::Path, path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};

use crate::{
    config::{ConfigError, Place, Sources},
    control::{agent::AgentError, protocol, socket},
};

/// Where the configuration is, unless `--config` says otherwise.
pub const DEFAULT_CONFIG: &str = "/etc/netconsole-agent/agent.toml";
/// Where the control socket is, unless `--socket` or the configuration say otherwise.
pub const DEFAULT_SOCKET: &str = "/run/netconsole-agent/control.sock";

const EXIT_BAD_CONFIG: u8 = 78;
/// The same configuration fails again until somebody grants what is missing.
const EXIT_UNPRIVILEGED: u8 = 77;
const EXIT_USAGE: u8 = 2;

/// Sends kernel log records as netconsole packets.
#[derive(Debug, Parser)]
#[command(
    name = "netconsole-agent",
    version,
    max_term_width = 100,
    after_help = "Examples:\n  netconsole-agent check && netconsole-agent doctor\n  \
                  netconsole-agent run --config /etc/netconsole-agent/agent.toml\n  \
                  netconsole-agent status --watch\n\n\
                  Exit code: 0 done, 1 failed, 2 wrong usage, 77 capabilities are missing,\n\
                  78 bad configuration."
)]
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
    /// Show the configuration, or an example of one.
    Config(config::ConfigArgs),
    /// Tell what this host can do for the agent, and what is in the way.
    Doctor(doctor::DoctorArgs),
    /// Show what a running agent does.
    Status(status::StatusArgs),
    /// Act on the targets of a running agent.
    Target(target::TargetArgs),
    /// Change the userdata of a running agent's targets.
    Userdata(userdata::UserdataArgs),
    /// Send a message to receivers, without touching the kernel log.
    Send(send::SendArgs),
    /// Send a marked message, to be looked for at the receiver.
    Ping(ping::PingArgs),
    /// Look at what a target's filter does.
    Filter(filter::FilterArgs),
    /// Show a copy of what is sent to a target.
    Tail(tail::TailArgs),
    /// Have a running agent send the end of the kernel log.
    Dump(dump::DumpArgs),
    /// Change the level of a running agent's own log.
    Loglevel(loglevel::LoglevelArgs),
    /// Have a running agent read its configuration anew.
    Reload(reload::ReloadArgs),
    /// Turn the kernel's netconsole targets into a configuration.
    Import(import::ImportArgs),
    /// Receive netconsole packets and print them, or netoops dumps and keep them.
    Receive(receive::ReceiveArgs),
    /// Put everything that a report of a bug needs into one archive.
    Bugreport(bugreport::BugreportArgs),
    /// Print what lets a shell complete these commands.
    Completions(completions::CompletionsArgs),
    /// Write the manual pages.
    Man(man::ManArgs),
}

/// How a subcommand finds the running agent.
#[derive(Args, Debug)]
struct SocketArgs {
    /// Control socket of the agent [default: as the configuration says].
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
}

impl SocketArgs {
    /// The socket: as named, else as the configuration says, right or wrong in the rest, else the usual
    /// one, also for those who may not read the configuration.
    fn path(&self) -> Cow<'_, Path> {
        if let Some(named) = &self.socket {
            return named.into();
        }
        let configured = Sources::read(&Place::Default).ok().and_then(|it| it.control_socket());
        configured.map_or(Path::new(DEFAULT_SOCKET).into(), Cow::Owned)
    }

    /// Asks the agent; a refusal is an error.
    fn ask(&self, request: &protocol::Request) -> anyhow::Result<protocol::Reply> {
        accepted(Some(socket::ask(&self.path(), request)?))
    }

    /// Asks the agent to do something; what it has to say about it are warnings.
    fn order(&self, request: &protocol::Request) -> anyhow::Result<()> {
        for warning in self.ask(request)?.lines {
            eprintln!("{}", plain(&warning));
        }
        Ok(())
    }
}

fn accepted(reply: Option<protocol::Reply>) -> anyhow::Result<protocol::Reply> {
    match reply {
        Some(reply) if reply.ok => Ok(reply),
        Some(protocol::Reply { error: Some(error), .. }) => {
            let error: Vec<_> = error.split('\n').map(plain).collect();
            Err(anyhow::anyhow!("the agent refused: {}", error.join("\n")))
        }
        _ => Err(anyhow::anyhow!("the agent hung up; it may be stopping")),
    }
}

/// Parses the command line and carries it out.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        Command::Run(args) => run::run(&args).map(done),
        Command::Check(args) => check::run(&args),
        Command::Config(args) => config::run(&args).map(done),
        Command::Doctor(args) => doctor::run(&args),
        Command::Status(args) => status::run(&args).map(done),
        Command::Target(args) => target::run(args).map(done),
        Command::Userdata(args) => userdata::run(args).map(done),
        Command::Send(args) => send::run(args).map(done),
        Command::Ping(args) => ping::run(args).map(done),
        Command::Filter(args) => filter::run(args).map(done),
        Command::Tail(args) => tail::run(args).map(done),
        Command::Dump(args) => dump::run(&args).map(done),
        Command::Loglevel(args) => loglevel::run(args).map(done),
        Command::Reload(args) => reload::run(&args).map(done),
        Command::Import(args) => import::run(&args),
        Command::Receive(args) => receive::run(args).map(done),
        Command::Bugreport(args) => bugreport::run(&args).map(done),
        Command::Completions(args) => completions::run(&args).map(done),
        Command::Man(args) => man::run(&args).map(done),
    };
    result.unwrap_or_else(|error| report(&error))
}

/// Whether the command line takes these arguments (without the program's name); nothing is run.
///
/// # Errors
/// What the user would be told.
pub fn parses<A: Into<std::ffi::OsString> + Clone>(arguments: &[A]) -> Result<(), clap::Error> {
    let name = std::iter::once("netconsole-agent".into());
    match Cli::try_parse_from(name.chain(arguments.iter().cloned().map(Into::into))) {
        // `--help` and `--version` come as errors that are none.
        Err(error) if error.use_stderr() => Err(error),
        _ => Ok(()),
    }
}

fn done((): ()) -> ExitCode {
    ExitCode::SUCCESS
}

fn report(error: &anyhow::Error) -> ExitCode {
    if let Some(config) = error.downcast_ref::<ConfigError>() {
        eprintln!("{config}");
        return ExitCode::from(EXIT_BAD_CONFIG);
    }
    if let Some(usage) = error.downcast_ref::<clap::Error>() {
        // Standard error that is closed has no reader to tell.
        let _ = usage.print();
        return ExitCode::from(EXIT_USAGE);
    }
    if let Some(AgentError::Unprivileged(missing)) = error.downcast_ref() {
        eprintln!("error: {missing}");
        return ExitCode::from(EXIT_UNPRIVILEGED);
    }
    eprintln!("error: {error:#}");
    ExitCode::FAILURE
}

/// Writes to standard output; a reader that has gone away is no failure.
fn print(text: &str) -> anyhow::Result<()> {
    write_out(text).map(drop)
}

/// Writes lines that came from elsewhere to standard output.
fn print_lines(lines: &[String]) -> anyhow::Result<()> {
    print(&lines.iter().map(|line| plain(line) + "\n").collect::<String>())
}

/// Writes to standard output; false if its reader has gone away.
fn write_out(text: &str) -> anyhow::Result<bool> {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        result => Ok(result.map(|()| true)?),
    }
}

/// Text without control characters, which could steer the terminal; tabs stay.
fn plain(text: &str) -> String {
    crate::receive::render::printable(text.as_bytes())
}

#[cfg(test)]
mod tests;
