//! What this host can do for the agent, and what is in the way: the command `doctor`.
//!
//! Each area gathers facts and then judges them: gathering only looks, judging is a pure function from
//! facts to findings. The one exception is what only a trial can tell: the eBPF hooks are attached for a
//! moment, and sockets are opened and closed again. Nothing is sent except questions to the name
//! servers and what the kernel needs to resolve a next hop, and nothing on the host is changed.
//!
//! What a caller without root cannot see is told as not looked at, never as broken. In a process with
//! root's user id a missing capability is what the agent would miss, too.

mod agent;
mod device;
mod firewall;
mod hooks;
mod host;
mod kernel_config;
mod leaving;
mod netconsole;
mod privileges;
mod pstore;
mod sockets;
mod tables;
mod target;
mod text;
mod way;

use std::path::Path;

use serde::Serialize;

use crate::config::Config;

/// How good what was found is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be, or worth knowing.
    Ok,
    /// It works, but not as well as it could; or it could not be looked at.
    Warn,
    /// It cannot work.
    Fail,
}

impl Level {
    /// The name used in the report.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// One line of the report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at, such as `kernel` or `next hop`.
    pub object: String,
    /// How good it is.
    pub level: Level,
    /// What was found.
    pub finding: String,
    /// What to do about it; none where all is well.
    pub remedy: Option<String>,
}

impl Finding {
    fn ok(object: impl Into<String>, finding: impl Into<String>) -> Self {
        let (object, finding) = (object.into(), finding.into());
        Self { object, level: Level::Ok, finding, remedy: None }
    }

    fn warn(
        object: impl Into<String>,
        finding: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self::bad(Level::Warn, object, finding, remedy)
    }

    fn fail(
        object: impl Into<String>,
        finding: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self::bad(Level::Fail, object, finding, remedy)
    }

    fn bad(
        level: Level,
        object: impl Into<String>,
        finding: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        let (object, finding) = (object.into(), finding.into());
        Self { object, level, finding, remedy: Some(remedy.into()) }
    }
}

/// The findings of the host, or of one target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// `host` or `target NAME`.
    pub area: String,
    /// What was found, in the order in which a reader should meet it.
    pub findings: Vec<Finding>,
}

/// All that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The host first, then the targets in the order of the configuration.
    pub sections: Vec<Section>,
}

/// A line of the report as programs read it.
#[derive(Serialize)]
struct JsonFinding<'a> {
    area: &'a str,
    object: &'a str,
    level: Level,
    finding: &'a str,
    remedy: Option<&'a str>,
}

impl Report {
    /// Whether some target cannot work: by its own way, or as any target where nothing can be captured.
    /// Whatever else is wrong with the host is only worth a warning.
    #[must_use]
    pub fn has_failures(&self) -> bool {
        self.sections
            .iter()
            .flat_map(|section| &section.findings)
            .any(|finding| finding.level == Level::Fail)
    }

    /// An array of objects with `area`, `object`, `level`, `finding` and `remedy` (null if none).
    ///
    /// # Errors
    /// None that is known; serde's signature has one.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        let lines: Vec<_> = self
            .sections
            .iter()
            .flat_map(|section| {
                section.findings.iter().map(|finding| JsonFinding {
                    area: &section.area,
                    object: &finding.object,
                    level: finding.level,
                    finding: &finding.finding,
                    remedy: finding.remedy.as_deref(),
                })
            })
            .collect();
        serde_json::to_string_pretty(&lines)
    }

    /// The report for people, at most 100 columns wide.
    #[must_use]
    pub fn to_text(&self) -> String {
        text::render(self)
    }
}

/// What is examined.
pub enum Subject<'a> {
    /// The host and the targets of this configuration.
    Configured(&'a Config),
    /// The host alone.
    HostAlone {
        /// Where a configuration was looked for.
        looked_at: &'a Path,
        /// Why there is none.
        cause: String,
    },
}

/// Looks at everything. Takes a few seconds at most, longest where a neighbour does not answer.
///
/// # Panics
/// Outside of a tokio runtime with I/O and time enabled.
pub async fn examine(subject: Subject<'_>) -> Report {
    let default = crate::config::Agent::default();
    let (settings, config) = match &subject {
        Subject::Configured(config) => (&config.agent, Some(*config)),
        Subject::HostAlone { .. } => (&default, None),
    };
    let privileges = privileges::Facts::gather();
    let kernel_config = kernel_config::KernelConfig::of_running_kernel();
    let agent = agent::Facts::gather(&settings.control_socket);
    let kmsg = hooks::Facts::gather(settings, &privileges);
    let netconsole = netconsole::Facts::gather(&kernel_config);

    let mut findings = Vec::new();
    if let Subject::HostAlone { looked_at, cause } = &subject {
        findings.push(Finding::warn(
            "configuration",
            format!("{} {cause}; only the host was looked at", looked_at.display()),
            "write one (README, \"First configuration\"), or name it by --config",
        ));
    }
    if let Some(config) = config {
        findings.extend(config.warnings.problems.iter().map(|problem| {
            let see = || "`netconsole-agent check` shows the place".to_owned();
            let remedy = problem.help.clone().unwrap_or_else(see);
            Finding::warn("configuration", problem.message.clone(), remedy)
        }));
    }
    findings.push(agent.judge());
    let host = host::Facts::gather();
    findings.extend(host::judge(&host, kmsg.commit_works()));
    findings.extend(hooks::judge(&kmsg, &privileges, &host, &kernel_config));
    let wants_dumps = config.is_some_and(Config::wants_after_crash);
    findings.extend(privileges::judge(&privileges, settings, wants_dumps, host.version()));
    let pstore = pstore::Facts::gather(&kernel_config);
    findings.push(pstore::judge(&pstore, wants_dumps));
    let remotes = config.map(|config| target::known_remotes(&config.targets)).unwrap_or_default();
    findings.extend(netconsole::judge(&netconsole, &remotes));
    let mut sections = vec![Section { area: "host".to_owned(), findings }];

    if let Some(config) = config {
        let looks = target::Looks {
            privileges: &privileges,
            kernel_config: &kernel_config,
            agent: &agent,
            netconsole: &netconsole,
            version: host.version(),
        };
        sections.extend(target::examine(&config.targets, &looks).await);
    }
    Report { sections }
}

/// Splits an error of the agent's own rooms, which all read "what happened; the remedy".
fn split_remedy(error: &dyn std::fmt::Display) -> (String, String) {
    let text = error.to_string();
    match text.split_once("; ") {
        Some((finding, remedy)) => (finding.to_owned(), remedy.to_owned()),
        None => (text, "see the agent's log for what led to it".to_owned()),
    }
}

/// The trimmed text of a file of `/proc` or `/sys`.
fn read_trimmed(path: impl AsRef<Path>) -> std::io::Result<String> {
    Ok(std::fs::read_to_string(path)?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::NameError;

    fn report(findings: Vec<Finding>) -> Report {
        Report { sections: vec![Section { area: "target a".to_owned(), findings }] }
    }

    #[test]
    fn only_failures_fail() {
        let warned = vec![Finding::ok("a", "b"), Finding::warn("a", "b", "c")];
        assert!(!report(warned.clone()).has_failures());
        let failed = [warned, vec![Finding::fail("a", "b", "c")]].concat();
        assert!(report(failed).has_failures());
    }

    #[test]
    fn json_has_all_fields_of_each_line() {
        let report = report(vec![Finding::ok("route", "by x"), Finding::warn("mtu", "1", "2")]);
        let json: serde_json::Value = serde_json::from_str(&report.to_json().unwrap()).unwrap();
        assert_eq!(
            json,
            serde_json::json!([
                {"area": "target a", "object": "route", "level": "ok", "finding": "by x", "remedy": null},
                {"area": "target a", "object": "mtu", "level": "warn", "finding": "1", "remedy": "2"},
            ])
        );
    }

    #[test]
    fn errors_come_apart() {
        let (finding, remedy) = split_remedy(&"cannot do it: why; do this, or that; or both");
        assert_eq!(finding, "cannot do it: why");
        assert_eq!(remedy, "do this, or that; or both");
        let (_, of_none) = split_remedy(&"odd");
        assert!(!of_none.is_empty());
        for error in NameError::one_of_each() {
            let (finding, remedy) = split_remedy(&error);
            assert_ne!(remedy, of_none, "{error}");
            assert!(finding.contains("fleet.test"), "{finding}");
        }
    }
}
