//! The sources of a configuration: `agent.toml`, the drop-ins, and what was changed live.
//!
//! A reload ([`Sources::reread`]) takes the files anew and keeps every live change, except
//! those of targets that no longer exist. A target that was added live and is now in a file,
//! too, is the file's with the live settings over it.

use std::path::{Path, PathBuf};

use super::{
    Config,
    diagnostic::{ConfigError, Findings},
    files, host,
    live::Layer,
    merge::{self, Merged},
    places::Texts,
    read,
    show::Shown,
};

/// Where the files of a configuration are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// `agent.toml` and `targets.d/*.toml` in `/usr/lib/netconsole-agent`,
    /// `/run/netconsole-agent` and `/etc/netconsole-agent`.
    Default,
    /// This file, and `targets.d/*.toml` beside it.
    File(PathBuf),
}

impl Place {
    /// The place that `--config` names, or else the default one.
    #[must_use]
    pub fn of(config: Option<&Path>) -> Self {
        config.map_or(Self::Default, |file| Self::File(file.to_owned()))
    }
}

/// One text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The path, or `(live)`.
    pub name: String,
    /// TOML.
    pub text: String,
    /// What it may say.
    pub role: Role,
}

/// What a source may say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// Everything.
    Main,
    /// Targets.
    DropIn,
    /// A drop-in that could not be read, with the reason.
    Unreadable(String),
    /// What is in the table of one target.
    Live,
}

/// All texts of a configuration, and the live changes over them.
#[derive(Clone, Debug)]
pub struct Sources {
    place: Place,
    files: Vec<Source>,
    pub(super) live: Vec<Layer>,
}

impl Sources {
    /// Reads all files.
    ///
    /// # Errors
    /// If the main file or a folder cannot be read, or if there is no file at all. A drop-in that cannot
    /// be read is told by [`Self::check`], with what is wrong in the others.
    pub fn read(place: &Place) -> Result<Self, ConfigError> {
        let files = match place {
            Place::Default => files::from_folders(&files::FOLDERS.map(PathBuf::from))?,
            Place::File(file) => files::beside(file)?,
        };
        Ok(Self { place: place.clone(), files, live: Vec::new() })
    }

    /// Texts that are no files.
    #[must_use]
    pub fn of_texts(files: Vec<Source>) -> Self {
        Self { place: Place::Default, files, live: Vec::new() }
    }

    /// The files, anew; live changes are kept where their target still exists.
    ///
    /// # Errors
    /// As [`Self::read`]; what the files say is not checked.
    pub fn reread(&self) -> Result<Self, ConfigError> {
        let mut new = Self::read(&self.place)?;
        new.take_live(&self.live);
        Ok(new)
    }

    /// The files, in the order in which they count.
    #[must_use]
    pub fn files(&self) -> &[Source] {
        &self.files
    }

    /// Checks everything by its text alone.
    ///
    /// # Errors
    /// With everything that is wrong.
    pub fn check(&self) -> Result<Config, ConfigError> {
        self.with_merged(|_, merged, findings| read::config(merged, findings))
    }

    /// As [`Self::check`], with warnings about what this host does not have. Names are looked
    /// up, which may take seconds; not for a thread that has a runtime.
    ///
    /// # Errors
    /// With everything that is wrong in the text.
    pub fn check_on_host(&self) -> Result<Config, ConfigError> {
        self.with_merged(|_, merged, findings| {
            let config = read::config(merged, findings);
            host::look(&config, merged, findings);
            config
        })
    }

    /// Each setting of the agent and of all targets, and where it comes from.
    ///
    /// # Errors
    /// With everything that is wrong.
    pub fn show(&self) -> Result<Shown, ConfigError> {
        self.check()?;
        let texts = self.texts();
        let merged = merge::merge(&texts, &self.live, &mut Findings::default());
        Ok(Shown::new(&merged, &texts))
    }

    /// Where the agent that they are for listens, as far as they say so, right or wrong in the rest: who
    /// asks for a reload of a bad configuration asks that agent.
    #[must_use]
    pub fn control_socket(&self) -> Option<PathBuf> {
        self.peek(|merged| {
            let (agent, _) = merged.agent.as_ref()?;
            Some(PathBuf::from(agent.get("control_socket")?.get_ref().as_str()?))
        })
    }

    fn texts(&self) -> Texts<'_> {
        Texts::new(self.files.iter().chain(self.live.iter().map(Layer::source)))
    }

    fn with_merged(
        &self,
        read: impl FnOnce(&Texts<'_>, &Merged<'_>, &mut Findings) -> Config,
    ) -> Result<Config, ConfigError> {
        let texts = self.texts();
        let mut findings = Findings::default();
        let merged = merge::merge(&texts, &self.live, &mut findings);
        let mut config = read(&texts, &merged, &mut findings);
        config.warnings = findings.into_warnings(&texts)?;
        Ok(config)
    }

    /// Looks at what the sources say, right or wrong.
    pub(super) fn peek<T>(&self, look: impl FnOnce(&Merged<'_>) -> T) -> T {
        let texts = self.texts();
        look(&merge::merge(&texts, &self.live, &mut Findings::default()))
    }
}
