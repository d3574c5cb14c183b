//! `netconsole-agent bugreport`: what a report of a bug needs, in one archive.
//!
//! It looks and changes nothing. Each part is had by itself: one that cannot be is in the archive
//! as `<name>.error` with the reason, so a stopped agent, a bad configuration and a user who may
//! see little all make an archive. Values of the userdata leave by no part ([`mask`]).

mod archive;
mod facts;
mod log;
mod mask;
mod programs;
mod scrape;
mod secrets;

use std::{
    path::{Path, PathBuf},
    time::SystemTime,
};

use anyhow::Context as _;
use clap::Args;

use self::{archive::Archive, mask::Mask};
use super::{DEFAULT_CONFIG, DEFAULT_SOCKET, accepted, doctor, plain, print};
use crate::{
    config::{Config, Place, Sources},
    control::{protocol::Request, socket, status::Status},
    doctor::Subject,
};

/// Arguments of `bugreport`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  netconsole-agent bugreport
  netconsole-agent bugreport --kernel-log --out /tmp/report.tar.gz

In it: doctor, status, accounts, programs and their runs, metrics, the merged configuration, the
agent's last 500 log lines, versions; what could not be had is there as NAME.error with the reason.
It works without a running agent and, with less in it, without root. The file is for its owner alone (0600).
Values of `userdata` in the configuration, and what their templates stand for, are masked everywhere;
those that were set live are in none of it. Names of hosts and targets, addresses, paths and filters
stay, so read it before you pass it on. The kernel's log is left out without --kernel-log.
Exit code: 0 if the archive was written, whatever is missing in it.")]
pub(super) struct BugreportArgs {
    /// The archive, which must not exist [default: netconsole-agent-bugreport-TIME.tar.gz].
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// The configuration, with targets.d/*.toml beside it [default: as `run`].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Control socket of the agent [default: as the configuration says].
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Put the last 200 lines of the kernel's log into it, which can hold anything.
    #[arg(long)]
    kernel_log: bool,
}

pub(super) fn run(args: &BugreportArgs) -> anyhow::Result<()> {
    let now = SystemTime::now();
    let archive = args.gather(now);
    let out = args.out.clone().unwrap_or_else(|| {
        let time = humantime::format_rfc3339_seconds(now).to_string().replace(['-', ':'], "");
        format!("netconsole-agent-bugreport-{time}.tar.gz").into()
    });
    archive.write(&out, now)?;
    for (name, reason) in archive.missing() {
        eprintln!("without {name}: {}", plain(reason.lines().next().unwrap_or_default()));
    }
    print(&format!("{}\n", out.display()))
}

impl BugreportArgs {
    fn gather(&self, now: SystemTime) -> Archive {
        let sources = Sources::read(&Place::of(self.config.as_deref()));
        let sources = sources.map_err(|error| error.to_string());
        let config = match &sources {
            Ok(sources) => sources.check().map_err(|error| error.to_string()),
            Err(error) => Err(error.clone()),
        };
        let config = config.map_err(|report| mask::without_lines(&report));
        let status = self.status(config.as_ref().ok());
        let mut secrets = sources.as_ref().map(Sources::userdata_values).unwrap_or_default();
        secrets.extend(secrets::behind(&secrets, status.as_ref().ok().map(|status| status.pid)));
        let mut archive = Archive::new(Mask::new(secrets));

        archive.add("versions.txt", Ok(facts::versions(status.as_deref().ok(), now)));
        add_status(&mut archive, &status);
        // Why there is none is told once.
        let running = status.as_ref().map_err(|_| "no agent answers, see status.txt".to_owned());
        archive.add("programs.txt", running.and_then(|status| programs::runs(status.pid)));
        let address = config.as_ref().map(|config| config.agent.metrics.clone());
        archive.add("metrics.txt", address.map_err(Clone::clone).and_then(scrape::metrics));
        add_doctor(&mut archive, self.config.as_deref(), &config);
        let shown = sources.and_then(|sources| sources.show().map_err(|error| error.to_string()));
        let shown = shown.map_err(|report| mask::without_lines(&report)).map(|mut shown| {
            shown.mask_userdata();
            shown.to_toml()
        });
        archive.add("config.toml", shown);
        let without_lines = |text: String| mask::without_lines(&text);
        archive.add("log.txt", log::of_the_agent().map(without_lines));
        if self.kernel_log {
            // journald may forward the agent's log to it.
            archive.add("kernel-log.txt", log::of_the_kernel().map(without_lines));
        }
        archive
    }

    fn status(&self, config: Option<&Config>) -> anyhow::Result<Box<Status>> {
        let configured = config.map(|config| config.agent.control_socket.as_path());
        let socket = self.socket.as_deref().or(configured).unwrap_or(Path::new(DEFAULT_SOCKET));
        let reply = accepted(Some(socket::ask(socket, &Request::Status)?))?;
        let mut status = reply.status.context("the agent sent no status")?;
        // It has the lines of the configuration that are wrong.
        status.config_error = status.config_error.map(|report| mask::without_lines(&report));
        Ok(status)
    }
}

fn add_status(archive: &mut Archive, status: &anyhow::Result<Box<Status>>) {
    match status {
        Ok(status) => {
            let json = serde_json::to_value(status).map_err(|error| error.to_string());
            archive.add("status.txt", Ok(status.to_text()));
            archive.add_json("status.json", json);
            archive.add("ledger.txt", Ok(status.to_ledgers()));
        }
        Err(error) => {
            archive.add("status.txt", Err(error.to_string()));
            for name in ["status.json", "ledger.txt"] {
                archive.add(name, Err("no agent answers, see status.txt".to_owned()));
            }
        }
    }
}

fn add_doctor(archive: &mut Archive, file: Option<&Path>, config: &Result<Config, String>) {
    let subject = match config {
        Ok(config) => Subject::Configured(config),
        Err(_) => Subject::HostAlone {
            looked_at: file.unwrap_or(Path::new(DEFAULT_CONFIG)),
            cause: "cannot be used: config.toml.error says why".to_owned(),
        },
    };
    match doctor::report(subject) {
        Ok(report) => {
            archive.add("doctor.txt", Ok(report.to_text()));
            let json = report.to_json().and_then(|text| serde_json::from_str(&text));
            archive.add_json("doctor.json", json.map_err(|error| error.to_string()));
        }
        Err(error) => archive.add("doctor.txt", Err(format!("{error:#}"))),
    }
}
