//! From the kernel's netconsole to our configuration: the string of the module parameter,
//! or the live configfs tree, becomes TOML that [`crate::config`] takes.
//!
//! It reads and never writes: the kernel's targets go on as they are. What has no counterpart
//! here is told in notes, so that nothing is left out silently; what our configuration does
//! not take is asked of [`crate::config::parse`] itself, not known here a second time.

mod address;
mod configfs;
mod kernel;
mod render;
mod string;

use std::{io, path::PathBuf};

pub use configfs::{CONFIGFS, configfs};

/// What was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Import {
    /// The targets as our configuration; empty if there are none.
    pub toml: String,
    /// Number of targets in it.
    pub targets: usize,
    /// What the kernel itself would refuse, each with its place, for people.
    pub refusals: Vec<String>,
    /// What could not be carried over, a line each.
    pub notes: Vec<String>,
}

/// Why a configfs tree cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// It is not there.
    #[error(
        "there is no configfs tree {path}: load the module (`modprobe netconsole`, a kernel with \
         CONFIG_NETCONSOLE_DYNAMIC) and mount configfs (`mount -t configfs none \
         /sys/kernel/config`), or give the netconsole= string: `netconsole-agent import \
         'STRING'`{found}", path = .path.display()
    )]
    Absent {
        /// Where it should be.
        path: PathBuf,
        /// A string that was found elsewhere, as the end of the message.
        found: String,
    },
    /// It cannot be read.
    #[error("cannot read the configfs tree {path}: {source} (are you root?)", path = .path.display())]
    Read {
        /// The tree or a part of it.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Reads a string of the module parameter or boot option, with or without `netconsole=` before
/// it and quotes around it.
#[must_use]
pub fn string(text: &str) -> Import {
    let mut import = Import::default();
    for (index, target) in string::targets(text).into_iter().enumerate() {
        match target {
            Ok(target) => import.add(&target, index + 1),
            Err(refusal) => import.refusals.push(refusal.render(text)),
        }
    }
    import.note_the_level(None);
    import
}

impl Import {
    /// Adds a target; `number` names it if it has no name of its own.
    fn add(&mut self, target: &kernel::KernelTarget, number: usize) {
        let rendered = render::target(target, number);
        self.notes.extend(rendered.notes);
        if let Some(toml) = rendered.toml {
            if self.targets > 0 {
                self.toml.push('\n');
            }
            self.toml.push_str(&toml);
            self.targets += 1;
        }
    }

    /// The kernel filters for all targets alike.
    fn note_the_level(&mut self, console_loglevel: Option<u8>) {
        if self.targets == 0 {
            return;
        }
        let all = "all targets: the kernel sends what its console_loglevel lets through, the agent \
                   everything";
        self.notes.push(match console_loglevel {
            Some(level) => {
                let max = level.clamp(1, 8) - 1;
                format!("{all}; it is {level} now, which `max_level = {max}` would be")
            }
            None => format!("{all} unless a target has a `max_level`"),
        });
    }
}

#[cfg(test)]
mod configfs_tests;
#[cfg(test)]
mod tests;
