//! `cargo xtask test`: everything that must hold before a change is taken in,
//! in the order of what fails fastest. It changes nothing in the tree.

use std::process::Command;

use anyhow::{Context, Result};

use crate::build;
use crate::fuzz;
use crate::run::{execute, run_watched};
use crate::setup::{self, Need};
use crate::signals::Interrupt;
use crate::summary::{CargoTest, Count, Steps};
use crate::supply;
use crate::system;
use crate::vm;

/// Arguments of the command.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Leave out the fuzz targets, the package and the VM tests, and make storm and soak short ones
    #[arg(long)]
    quick: bool,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<()> {
    let toolchain = setup::ensure(if args.quick { Need::Tests } else { Need::Vms })?;
    let cargo = |args: &[&'static str]| toolchain.cargo(args.iter().copied());
    let mut steps = Steps::default();
    steps.run("format", |_| execute(&mut cargo(&["fmt", "--all", "--check"])));
    steps.run("clippy", |_| {
        let args = ["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"];
        execute(&mut cargo(&args))
    });
    steps.run("documentation", |_| {
        let args = ["doc", "--workspace", "--no-deps", "--locked", "--document-private-items"];
        execute(cargo(&args).env("RUSTDOCFLAGS", "-D warnings"))
    });
    steps.run("licences, sources, advisories", supply::deny);
    steps.run("unused dependencies", |_| supply::machete());
    steps.run("oldest compiler", |_| supply::msrv(&toolchain));
    let mut binary = None;
    steps.run("build", |_| {
        binary = Some(build::release(&toolchain)?);
        Ok(())
    });
    // All of the same packages, or their dependencies get other features and are built again.
    let of_all = |kinds: &[&'static str]| {
        let mut command = cargo(&["test", "--workspace", "--exclude", "agent-ebpf", "--locked"]);
        command.arg("--no-fail-fast").args(kinds).args(["--", "--show-output"]);
        command
    };
    steps.run("unit tests", |count| {
        tests(&mut of_all(&["--lib", "--bins"]), count)?;
        tests(&mut of_all(&["--doc"]), count)
    });
    steps.run("integration tests", |count| {
        // They make namespaces and read the one kernel log: one at a time.
        let mut command = of_all(&["--test", "*"]);
        command.arg("--test-threads=1");
        // What is tested is what is installed, also where speed matters.
        command.env("NETCONSOLE_AGENT_BIN", binary.as_ref().context("there is no binary")?);
        if args.quick {
            command.env("NETCONSOLE_AGENT_QUICK", "1");
        }
        tests(&mut command, count)
    });
    if !args.quick {
        steps.run("fuzz targets", |count| fuzz::run(&toolchain, count));
        let interrupt = Interrupt::watch()?;
        steps.run("package in a Debian system", |count| {
            *count += system::test(&toolchain, &interrupt)?;
            Ok(())
        });
        for series in vm::TESTED {
            steps.run(&format!("VM, kernel {series}"), |count| {
                *count += vm::test(series, &toolchain, &interrupt, false, false)?;
                Ok(())
            });
        }
        steps.run(&format!("last words, kernel {}", vm::CRASHED), |count| {
            *count += vm::last_words::short(vm::CRASHED, &toolchain, &interrupt)?;
            Ok(())
        });
    }
    steps.finish()
}

fn tests(command: &mut Command, count: &mut Count) -> Result<()> {
    let mut output = CargoTest::default();
    let result = run_watched(command, |line| output.read_line(line));
    *count += output.count();
    result
}
