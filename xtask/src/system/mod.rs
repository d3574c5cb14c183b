//! `cargo xtask system`: the package in a stock Debian under its own systemd: installed,
//! configured, run with the unit's restrictions, upgraded, removed and purged.
//!
//! `machine` is the system, `receiver` what listens at the other end of its cable, `scenes` what is
//! tried, in one go: each scene begins where the one before ended. This machine's kernel is shared, its
//! files, settings and network are not.

mod machine;
mod receiver;
mod scenes;

use anyhow::{Result, ensure};

use self::machine::Machine;
use self::receiver::Receiver;
use self::scenes::Stage;
use crate::dist;
use crate::setup::{self, Need};
use crate::signals::Interrupt;
use crate::summary::Count;
use crate::toolchain::Toolchain;

/// The service under test.
const SERVICE: &str = "netconsole-agent.service";
/// Where the receiver listens.
const PORT: u16 = 6666;

/// Runs the command.
pub(crate) fn run() -> Result<()> {
    let toolchain = setup::ensure(Need::Vms)?;
    let count = test(&toolchain, &Interrupt::watch()?)?;
    println!("{count}");
    ensure!(count.failed == 0, "the package does not work");
    Ok(())
}

/// Makes the packages and tries them.
pub(crate) fn test(toolchain: &Toolchain, interrupt: &Interrupt) -> Result<Count> {
    let packages = dist::make(toolchain)?;
    let files = machine::debian()?;
    let machine = Machine::boot(&files, interrupt)?;
    let receiver = Receiver::start(&machine, &packages.binary, PORT)?;
    let mut stage = Stage { machine, receiver, packages };
    let mut count = Count::default();
    for (name, scene) in scenes::ALL {
        let result = scene(&mut stage);
        let word = if result.is_ok() { "ok" } else { "FAILED" };
        println!("system test {name} ... {word}");
        *(if result.is_ok() { &mut count.passed } else { &mut count.failed }) += 1;
        if let Err(error) = result {
            println!("    {error:#}\n{}", stage.service_log());
            // What follows begins where this should have ended.
            break;
        }
    }
    Ok(count)
}
