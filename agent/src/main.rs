//! The command `netconsole-agent`: parses, runs, and turns errors into exit codes.

use std::process::ExitCode;

fn main() -> ExitCode {
    netconsole_agent::cli::main()
}
