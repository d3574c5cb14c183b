//! Filters as the configuration writes them: checked text, nothing compiled.

use std::time::Duration;

/// One rule: all its conditions must hold. The first rule that matches decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// What the text must be like; any text if `None`.
    pub text: Option<TextMatch>,
    /// SUBSYSTEM of the record's dictionary, as a glob.
    pub subsystem: Option<String>,
    /// DEVICE of the record's dictionary, as a glob.
    pub device: Option<String>,
    /// Name of the task that printed, as a glob.
    pub task: Option<String>,
    /// Path of that task's cgroup (`/system.slice/nginx.service`), as a glob; `*` stops at a
    /// slash, `**` does not.
    pub cgroup: Option<String>,
    /// CPUs that printed; any if empty.
    pub cpus: Vec<u32>,
    /// What becomes of the record.
    pub action: Action,
}

/// A condition on the text of a record (raw bytes, without its newline).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TextMatch {
    /// It contains these bytes.
    Contains(String),
    /// It matches this regular expression (syntax of the crate `regex`, on bytes) somewhere.
    Regex(String),
}

/// What becomes of a record that a rule matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It is sent.
    Send,
    /// It is left out.
    Drop,
    /// It is sent as long as the rate allows, and else left out.
    Rate(Rate),
}

/// At most `count` records in each period, which begins with the first of them
/// (as `___ratelimit`, `lib/ratelimit.c`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Records, at least 1.
    pub count: u32,
    /// The period, from 1 ms to 1 day.
    pub period: Duration,
}
