//! A target of the kernel as a table of our configuration.
//!
//! Each key is tried on [`config::parse`]: what that refuses is left out, and its words become
//! the note. So no output can be a configuration that the agent does not take.

use std::{fmt::Write as _, net::SocketAddr};

use super::kernel::{Device, KernelTarget};
use crate::{
    config::{self, ConfigError, DEFAULT_LOCAL_PORT},
    frame::{BROADCAST_MAC, mac_text},
};

/// Longest name of a device (`IFNAMSIZ` less the NUL); the kernel cuts longer ones.
const DEVICE_MAX_BYTES: usize = 15;
/// What the kernel sends through unless it is told.
const DEFAULT_DEVICE: &str = "eth0";

/// What became of a target.
pub(super) struct Rendered {
    /// Its table; `None` if nothing could be sent to it.
    pub(super) toml: Option<String>,
    pub(super) notes: Vec<String>,
}

/// Writes a target; `number` names it if it has no name of its own.
pub(super) fn target(target: &KernelTarget, number: usize) -> Rendered {
    let mut table = Table::new(target, number);
    let complete = table.fill(target);
    Rendered { toml: complete.then_some(table.toml), notes: table.notes }
}

struct Table {
    /// For the notes.
    name: String,
    toml: String,
    notes: Vec<String>,
}

impl Table {
    fn new(target: &KernelTarget, number: usize) -> Self {
        let substitute = format!("target{number}");
        let mut table = Self { name: substitute.clone(), toml: String::new(), notes: Vec::new() };
        table.toml = format!("[target.{substitute}]\n");
        let Some(name) = &target.name else { return table };
        let header = format!("[target.{}]\n", key(name));
        match taken(&format!("{header}remote = \"192.0.2.1\"\n")) {
            Ok(()) => table.toml = header,
            Err(why) => table.notes.push(format!("{name:?} is now {substitute}: {why}")),
        }
        if table.notes.is_empty() {
            table.name.clone_from(name);
        }
        table
    }

    /// Whether it can be a target at all.
    fn fill(&mut self, target: &KernelTarget) -> bool {
        let Some(remote) = target.remote_ip else {
            self.note(
                "is not imported: it has no remote_ip, and the kernel cannot enable it either",
            );
            return false;
        };
        let remote = SocketAddr::new(remote, target.remote_port);
        if let Err(why) = self.remote_and_device(&format!("remote = \"{remote}\"\n"), target) {
            self.note(&format!("is not imported: {why}"));
            return false;
        }
        self.mac(target);
        if !target.extended {
            self.line("format = \"basic\"\n", "the basic format");
        }
        if target.release {
            self.line("release = true\n", "release");
        }
        self.local(target);
        if !target.enabled {
            self.toml.push_str("enabled = false\n");
        }
        self.extra_data(target);
        true
    }

    /// Both together: an address of one link needs the device.
    fn remote_and_device(&mut self, remote: &str, target: &KernelTarget) -> Result<(), String> {
        let line = |device: &str| format!("{remote}device = {}\n", quoted(device));
        let device = match &target.device {
            Device::Name(name) if name == "auto" => {
                self.note(
                    "device \"auto\" is not carried over: here it means what the route decides",
                );
                None
            }
            Device::Name(name) => {
                let short = &name[..name.floor_char_boundary(DEVICE_MAX_BYTES)];
                if short != name {
                    self.note(&format!("device {name:?} is {short:?}: the kernel cuts it as well"));
                }
                Some(short.to_owned())
            }
            Device::Mac(mac) => Some(mac_text(*mac)),
            Device::Default | Device::None => None,
        };
        if let Some(device) = device {
            match self.try_add(&line(&device)) {
                Ok(()) => return Ok(()),
                Err(why) => {
                    self.try_add(remote)?;
                    self.not_carried(&format!("device {device:?}"), &why);
                    return Ok(());
                }
            }
        }
        match (self.try_add(remote), &target.device) {
            (Ok(()), Device::Default) => self.note(
                "no device is named, which is eth0 for the kernel: here the route decides, unless \
                 you add `device = \"eth0\"`",
            ),
            (Ok(()), Device::None) => {
                self.note(
                    "the kernel's target has no device at the moment: here the route decides",
                );
            }
            (Ok(()), _) => {}
            (Err(_), Device::Default) => self.try_add(&line(DEFAULT_DEVICE))?,
            (Err(why), _) => return Err(why),
        }
        Ok(())
    }

    fn mac(&mut self, target: &KernelTarget) {
        let finds = "the agent finds the next hop by itself and follows its changes";
        let mac = mac_text(target.remote_mac);
        if target.remote_mac == BROADCAST_MAC {
            self.note(&format!("the broadcast MAC is not carried over: {finds}"));
        } else {
            self.note(&format!(
                "remote_mac {mac} is not carried over: {finds} (`remote_mac = \"{mac}\"` would pin it)"
            ));
        }
    }

    fn local(&mut self, target: &KernelTarget) {
        let port = (target.local_port != DEFAULT_LOCAL_PORT).then_some(target.local_port);
        let port = port.filter(|port| {
            if *port == 0 {
                self.note("source port 0 is not carried over: it is 6665 here");
            }
            *port != 0
        });
        // Which kernels before 7.1 take for "not set" in every way.
        let ip = target.local_ip.filter(|ip| !ip.is_unspecified());
        let text = match (ip, port) {
            (Some(ip), Some(port)) => SocketAddr::new(ip, port).to_string(),
            (Some(ip), None) => ip.to_string(),
            (None, Some(port)) => format!(":{port}"),
            (None, None) => return,
        };
        self.line(&format!("local = \"{text}\"\n"), &format!("local {text}"));
        if ip.is_some() && target.name.is_some() {
            self.note(&format!(
                "local = {text:?} may be what the kernel chose when the target was enabled: \
                 without the address the route decides"
            ));
        }
    }

    fn extra_data(&mut self, target: &KernelTarget) {
        if !target.extended {
            if !target.sysdata.is_empty() || !target.userdata.is_empty() {
                self.note(
                    "userdata and sysdata are not carried over: a basic target never sends them",
                );
            }
            return;
        }
        if !target.sysdata.is_empty() {
            self.toml.push_str(&format!("[{}.sysdata]\n", self.path()));
            for key in &target.sysdata {
                self.line(&format!("{} = true\n", key.name()), key.name());
            }
        }
        let mut header = format!("[{}.userdata]\n", self.path());
        for (name, value) in &target.userdata {
            let what = format!("userdata {name:?}");
            if ["{file:", "{env:"].iter().any(|template| value.contains(template)) {
                self.not_carried(&what, "its value would be a template here");
                continue;
            }
            let line = format!("{header}{} = {}\n", key(name), quoted(value));
            if self.line(&line, &what) {
                header.clear();
            }
        }
    }

    /// The name of this table in TOML.
    fn path(&self) -> String {
        let header = self.toml.lines().next().unwrap_or_default();
        header.trim_start_matches('[').trim_end_matches(']').to_owned()
    }

    /// Adds what the configuration takes, else a note about `what`.
    fn line(&mut self, line: &str, what: &str) -> bool {
        match self.try_add(line) {
            Ok(()) => true,
            Err(why) => {
                self.not_carried(what, &why);
                false
            }
        }
    }

    fn try_add(&mut self, lines: &str) -> Result<(), String> {
        let whole = format!("{}{lines}", self.toml);
        taken(&whole)?;
        self.toml = whole;
        Ok(())
    }

    fn not_carried(&mut self, what: &str, why: &str) {
        self.note(&format!("{what} is not carried over: {why}"));
    }

    fn note(&mut self, note: &str) {
        self.notes.push(format!("{}: {note}", self.name));
    }
}

/// Whether the configuration takes this; its first objection if not.
fn taken(toml: &str) -> Result<(), String> {
    match config::parse(toml, "import") {
        Ok(_) => Ok(()),
        Err(ConfigError::Invalid { problems, report }) => {
            Err(problems.into_iter().next().map_or(report, |problem| problem.message))
        }
        Err(error) => Err(error.to_string()),
    }
}

/// A key of TOML, bare where that is possible.
fn key(text: &str) -> String {
    let bare = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    if !text.is_empty() && text.bytes().all(bare) { text.to_owned() } else { quoted(text) }
}

/// A basic string of TOML 1.0.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => {
                // Writing to a string does not fail.
                let _ = write!(quoted, "\\u{:04X}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
