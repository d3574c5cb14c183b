//! What the control socket understands: one JSON object a line in, one a line out.
//!
//! Each request carries the version of the protocol (`"v": 1`), is named by `cmd`, and is
//! answered by one [`Reply`]; `tail` is answered by replies without end. Fields are only ever added.

use serde::{Deserialize, Serialize};

use super::status::Status;

/// Version of the protocol.
pub const VERSION: u32 = 1;

/// What can be asked.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(tag = "cmd", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Report the state.
    Status,
    /// The names of the targets.
    List,
    /// Send a message of the operator's to targets, without touching the kernel log.
    Send {
        /// The targets.
        #[serde(default)]
        targets: Vec<String>,
        /// All targets instead.
        #[serde(default)]
        all: bool,
        /// The text.
        text: String,
    },
    /// Send a marked message, to be looked for at the receiver.
    Ping {
        /// The target.
        target: String,
    },
    /// Tell what a target's filter does with records.
    FilterExplain {
        /// The target.
        target: String,
        /// A line as `/dev/kmsg` shows it, or plain text; else the last records are taken.
        #[serde(default)]
        line: Option<String>,
        /// How many of the last records.
        #[serde(default)]
        last: u32,
    },
    /// Find the next hops anew, of one target or of all.
    Resolve {
        /// The target; all if absent.
        #[serde(default)]
        target: Option<String>,
    },
    /// Switch a target on.
    Enable {
        /// The target.
        target: String,
    },
    /// Switch a target off.
    Disable {
        /// The target.
        target: String,
    },
    /// Change settings of a target, until the agent ends.
    Set {
        /// The target.
        target: String,
        /// What its table `[target.NAME]` would say, as TOML.
        settings: String,
    },
    /// Add a target, until the agent ends.
    Add {
        /// The target.
        target: String,
        /// What its table `[target.NAME]` would say, as TOML.
        settings: String,
    },
    /// Remove a target, until the agent ends.
    Remove {
        /// The target.
        target: String,
    },
    /// Set a key of a target's userdata, until the agent ends.
    UserdataSet {
        /// The target.
        target: String,
        /// The key.
        key: String,
        /// The value; may be a template.
        value: String,
    },
    /// Remove a key of a target's userdata, until the agent ends.
    UserdataUnset {
        /// The target.
        target: String,
        /// The key.
        key: String,
    },
    /// Send the end of the kernel log to the targets that want dumps.
    Dump,
    /// Read the configuration anew.
    Reload,
    /// A copy of what is sent.
    Tail {
        /// The target.
        target: String,
    },
    /// Change the level of the agent's own log.
    Loglevel {
        /// As in `NETCONSOLE_AGENT_LOG`.
        level: String,
        /// Seconds after which it is as before.
        #[serde(default)]
        for_s: Option<u64>,
    },
}

impl Request {
    /// Reads a line.
    ///
    /// # Errors
    /// With what to tell the client.
    pub fn parse(line: &[u8]) -> Result<Self, String> {
        let not_understood =
            |error: serde_json::Error| format!("the request is not understood: {error}");
        let mut object: serde_json::Map<String, serde_json::Value> =
            serde_json::from_slice(line).map_err(not_understood)?;
        match object.remove("v").map(|version| version.as_u64()) {
            Some(Some(version)) if version == u64::from(VERSION) => {}
            Some(Some(_)) => {
                return Err(format!("this agent speaks version {VERSION} of the protocol"));
            }
            _ => return Err(format!("the request is not understood: it needs \"v\": {VERSION}")),
        }
        serde_json::from_value(object.into()).map_err(not_understood)
    }

    /// The line, without its end.
    ///
    /// # Errors
    /// Never, in practice: all fields have a form in JSON.
    pub fn to_line(&self) -> serde_json::Result<String> {
        #[derive(Serialize)]
        struct Versioned<'a> {
            #[serde(flatten)]
            request: &'a Request,
            v: u32,
        }
        serde_json::to_string(&Versioned { request: self, v: VERSION })
    }

    /// Whether members of the control group may ask this; root may ask everything.
    #[must_use]
    pub fn is_for_the_group(&self) -> bool {
        matches!(
            self,
            Self::Status
                | Self::List
                | Self::Send { .. }
                | Self::Ping { .. }
                | Self::FilterExplain { .. }
        )
    }
}

/// An answer.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub struct Reply {
    /// Whether the request was carried out.
    pub ok: bool,
    /// Why it was not.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<String>,
    /// The answer to `status`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub status: Option<Box<Status>>,
    /// Other answers, for people, a line each: `list`, `ping` (the nonce), `filter-explain`, warnings.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub lines: Vec<String>,
    /// A packet that was sent, of `tail`: its payload, bytes that are not UTF-8 replaced.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub packet: Option<String>,
    /// Packets that `tail` left out before this one, because they came too fast.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub left_out: Option<u64>,
}

impl Reply {
    /// Carried out, with nothing to tell.
    #[must_use]
    pub fn done() -> Self {
        Self { ok: true, ..Self::default() }
    }

    /// Carried out, and something to tell.
    #[must_use]
    pub fn told(lines: Vec<String>) -> Self {
        Self { ok: true, lines, ..Self::default() }
    }

    /// Not carried out.
    #[must_use]
    pub fn refused(error: impl Into<String>) -> Self {
        Self { ok: false, error: Some(error.into()), ..Self::default() }
    }
}
