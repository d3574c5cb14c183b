//! One boot of an arm64 machine under software emulation, and what it told on its console.
//!
//! The lines for the host begin with `ARM`, then what they are about (a source of records, or `host`),
//! what it is, and the rest: see `tests/vm/arm-init`. The console has nothing else but what the firmware
//! and a dying kernel say.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::emulator;
use crate::signals::Interrupt;
use crate::vm::kernel::Kernel;
use crate::vm::qemu::run_to_end;

/// A run takes less than a minute; on a machine that has much else to do, many.
const BOOT_LIMIT: Duration = Duration::from_secs(900);

/// What is to be booted, and the directory for what comes of it.
pub(super) struct Boot<'a> {
    pub(super) kernel: &'a Kernel,
    pub(super) initramfs: &'a Path,
    pub(super) dir: &'a Path,
}

impl Boot<'_> {
    /// Where everything that the machine says is written to.
    pub(super) fn console(&self) -> PathBuf {
        self.dir.join("console.log")
    }

    /// Boots, waits until the machine is off, and reads what it told.
    ///
    /// # Errors
    /// One that hung, was not started at all, or did not come to the end of its init script.
    pub(super) fn run(&self, interrupt: &Interrupt) -> Result<Said> {
        let console = self.console();
        if console.exists() {
            fs::remove_file(&console).with_context(|| format!("remove {}", console.display()))?;
        }
        let mut command = emulator::ARM.command(self.arguments());
        let log = self.dir.join("qemu.log");
        let (status, stderr) = run_to_end(&mut command, &log, BOOT_LIMIT, interrupt)?;
        ensure!(status.success(), "QEMU ended with {status}: {}", stderr.trim());
        let text = fs::read(&console).with_context(|| format!("read {}", console.display()))?;
        Said::parse(&String::from_utf8_lossy(&text))
    }

    fn arguments(&self) -> Vec<OsString> {
        // The real pointer authentication would take half of the time.
        let fixed = "-M virt -cpu max,pauth-impdef=on -accel tcg,thread=multi,tb-size=256 -smp 2 -m 768 -nodefaults \
                     -display none -no-reboot";
        let append = "console=ttyAMA0 quiet panic=-1 log_buf_len=1M";
        let mut arguments: Vec<OsString> = fixed.split_whitespace().map(OsString::from).collect();
        let mut serial = OsString::from("file:");
        serial.push(self.console());
        arguments.extend(["-append".into(), append.into(), "-serial".into(), serial]);
        arguments.extend(["-kernel".into(), self.kernel.image.clone().into()]);
        arguments.extend(["-initrd".into(), self.initramfs.into()]);
        arguments
    }
}

/// What became of one run of the agent.
#[derive(Debug, Default)]
pub(super) struct Run {
    /// The records that the receiver printed, in the order of their arrival.
    pub(super) received: Vec<Value>,
    /// `status --json` after that.
    pub(super) status: Value,
    /// The agent's exit code.
    pub(super) ended: String,
}

/// What the machine told.
#[derive(Debug, Default)]
pub(super) struct Said {
    /// Release and architecture.
    pub(super) uname: String,
    /// `doctor --json`.
    pub(super) doctor: Value,
    /// By the configured source.
    pub(super) runs: BTreeMap<String, Run>,
    /// What agent and receiver wrote to their logs, and the console's other lines.
    pub(super) log: Vec<String>,
}

impl Said {
    /// Reads a console.
    ///
    /// # Errors
    /// One that does not end with `done`: the machine died, or hung.
    pub(super) fn parse(console: &str) -> Result<Self> {
        let mut said = Self::default();
        let mut done = false;
        for line in console.lines().map(str::trim_end).filter(|line| !line.is_empty()) {
            let Some(fact) = line.strip_prefix("ARM ") else {
                said.log.push(line.to_owned());
                continue;
            };
            let mut words = fact.splitn(3, ' ');
            let (about, what) =
                (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            let rest = words.next().unwrap_or_default();
            // What is no JSON is what a program said instead; the judge shows it.
            let json = || serde_json::from_str(rest).unwrap_or_else(|_| Value::from(rest));
            match (about, what) {
                ("host", "uname") => rest.clone_into(&mut said.uname),
                ("host", "doctor") => said.doctor = json(),
                ("host", "done") => done = true,
                (_, "log") => said.log.push(format!("{about}: {rest}")),
                (source, what) => {
                    let run = said.runs.entry(source.to_owned()).or_default();
                    match what {
                        "received" => run.received.push(json()),
                        "status" => run.status = json(),
                        "ended" => rest.clone_into(&mut run.ended),
                        _ => said.log.push(line.to_owned()),
                    }
                }
            }
        }
        let last = said.log.last().map_or("nothing", String::as_str);
        ensure!(done, "the guest did not come to its end; its last words: {last}");
        Ok(said)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_told_from_the_rest() {
        let console = "[    0.0] Booting\r\nARM host uname 6.1.0-50-arm64 aarch64\r\n\
                       ARM auto status {\"pid\": 1}\r\n\r\nARM auto received {\"text\":\"a b\"}\r\n\
                       ARM auto log WARN x\r\nARM auto ended 0\r\nARM host doctor not found\r\n\
                       ARM host done\r\n";
        let said = Said::parse(console).unwrap();
        assert_eq!(said.uname, "6.1.0-50-arm64 aarch64");
        let run = &said.runs["auto"];
        assert_eq!((run.status["pid"].as_u64(), run.ended.as_str()), (Some(1), "0"));
        assert_eq!(run.received[0]["text"], "a b");
        assert_eq!(said.doctor, "not found");
        assert_eq!(said.log, ["[    0.0] Booting", "auto: WARN x"]);
        let error = Said::parse("ARM host uname x\nKernel panic\n").unwrap_err();
        assert!(error.to_string().contains("Kernel panic"), "{error}");
    }
}
