//! How the agent's status reads at the end of a phase that had losses or restarts (`status
//! --json`): what each judge wants of the capture, and the account of its target.

use std::collections::BTreeMap;

use serde::Deserialize;

/// The status, with `C` of its capture.
#[derive(Deserialize)]
pub(super) struct Ending<C> {
    pub(super) capture: C,
    pub(super) targets: Vec<Target>,
}

#[derive(Deserialize)]
pub(super) struct Target {
    pub(super) account: Account,
}

#[derive(Deserialize)]
pub(super) struct Account {
    pub(super) balances: bool,
    pub(super) queued: u64,
    pub(super) lost: BTreeMap<String, u64>,
}
