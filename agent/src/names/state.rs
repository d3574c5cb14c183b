//! What is known of one target's name, and when to ask again. Pure: it reads no clock
//! and does no I/O.
//!
//! An address that was good once stays in use for as long as nothing better is known:
//! a DNS server that is away must not stop records from leaving. The address in use is
//! kept while DNS still gives it out, whatever the order of the answer.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use super::{ADDRESSES_MAX, IpVersion, NameError, Resolved, VALID_MAX, VALID_MIN};

/// Wait after the first look-up that failed while no address is known; it doubles.
const RETRY_FIRST: Duration = Duration::from_secs(1);
/// Longest wait after a look-up that failed, and the wait while an address is known.
const RETRY_MAX: Duration = Duration::from_secs(30);
/// Shortest time between two look-ups that something else asks for.
const HURRY_EVERY: Duration = Duration::from_secs(1);
/// A look-up that runs is not overtaken by another one for so long.
const HURRY_WHILE_ASKING: Duration = Duration::from_secs(5);

/// Look-ups that fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameFailure {
    /// When the first of them failed.
    pub since: Instant,
    /// How many in a row.
    pub times: u32,
    /// Why the last one failed.
    pub error: NameError,
}

/// What an answer changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameChange {
    /// Nothing.
    Unchanged,
    /// The address in use stays; other addresses came or went.
    Others,
    /// Another address is to be used: the first of [`NameState::addresses`].
    Address {
        /// The one before.
        before: Option<IpAddr>,
    },
    /// The look-up failed; addresses are as before.
    Failed,
}

/// See the module's description.
#[derive(Clone, Debug)]
pub struct NameState {
    host: String,
    only: Option<IpVersion>,
    /// The one in use first.
    addresses: Vec<IpAddr>,
    failure: Option<NameFailure>,
    asked_at: Option<Instant>,
    asking: bool,
    next_at: Instant,
}

impl NameState {
    /// A name that was never looked up, and is due at once. With `only`, addresses of
    /// the other version are of no use (the target has a `local` address).
    #[must_use]
    pub fn new(host: &str, only: Option<IpVersion>, now: Instant) -> Self {
        Self {
            host: host.to_owned(),
            only,
            addresses: Vec::new(),
            failure: None,
            asked_at: None,
            asking: false,
            next_at: now,
        }
    }

    /// The name.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// All addresses, the one in use first. Empty until a look-up succeeded, and never
    /// again after that. Where the first has no route the next may be tried.
    #[must_use]
    pub fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// The address in use.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        self.addresses.first().copied()
    }

    /// Uses another one of [`NameState::addresses`] from now on; an address that is not
    /// there is ignored.
    pub fn use_address(&mut self, address: IpAddr) {
        if let Some(at) = self.addresses.iter().position(|known| *known == address) {
            self.addresses[..=at].rotate_right(1);
        }
    }

    /// The look-ups that failed since the last one that did not.
    #[must_use]
    pub fn failure(&self) -> Option<&NameFailure> {
        self.failure.as_ref()
    }

    /// When to look the name up. There always is a next time, also while a look-up
    /// runs, so that one whose answer never comes is not waited for.
    #[must_use]
    pub fn next_at(&self) -> Instant {
        self.next_at
    }

    /// Whether to look the name up now.
    #[must_use]
    pub fn due(&self, now: Instant) -> bool {
        self.next_at <= now
    }

    /// A look-up begins now; one that runs already is to be dropped.
    pub fn asked(&mut self, now: Instant) {
        self.asked_at = Some(now);
        self.asking = true;
        // Longer than a look-up takes.
        self.next_at = now + RETRY_MAX;
    }

    /// Something happened that may change the outcome (the network came back, the
    /// operator asks): the next look-up is brought forward, within limits.
    pub fn hurry(&mut self, now: Instant) {
        let every = if self.asking { HURRY_WHILE_ASKING } else { HURRY_EVERY };
        let allowed = self.asked_at.map_or(now, |asked| now.max(asked + every));
        self.next_at = self.next_at.min(allowed);
    }

    /// A look-up ended.
    pub fn answer(&mut self, now: Instant, result: Result<Resolved, NameError>) -> NameChange {
        self.asking = false;
        match result.and_then(|resolved| self.usable(resolved)) {
            Ok((addresses, valid_for)) => {
                self.failure = None;
                self.next_at = now + valid_for.clamp(VALID_MIN, VALID_MAX);
                self.replace(addresses)
            }
            Err(error) => {
                self.fail(now, error);
                NameChange::Failed
            }
        }
    }

    /// What of an answer counts for this target.
    fn usable(&self, resolved: Resolved) -> Result<(Vec<IpAddr>, Duration), NameError> {
        let Resolved { mut addresses, valid_for, unanswered } = resolved;
        // Half an answer takes nothing away from the other half.
        let kept = self.addresses.iter().filter(|old| unanswered == Some(IpVersion::of(**old)));
        for old in kept {
            if !addresses.contains(old) && addresses.len() < 2 * ADDRESSES_MAX {
                addresses.push(*old);
            }
        }
        addresses.retain(|address| self.only.is_none_or(|only| only == IpVersion::of(*address)));
        match (addresses.is_empty(), self.only) {
            (false, _) => Ok((addresses, valid_for)),
            (true, Some(wanted)) => {
                Err(NameError::OtherVersion { host: self.host.clone(), wanted })
            }
            // Not made by `Names`.
            (true, None) => {
                Err(NameError::NoAddress { host: self.host.clone(), servers: String::new() })
            }
        }
    }

    fn replace(&mut self, mut addresses: Vec<IpAddr>) -> NameChange {
        let before = self.address();
        if let Some(at) = addresses.iter().position(|address| Some(*address) == before) {
            addresses[..=at].rotate_right(1);
        }
        let same = addresses.len() == self.addresses.len()
            && addresses.iter().all(|address| self.addresses.contains(address));
        // What stays keeps its place: servers hand out turning orders.
        if !same {
            self.addresses = addresses;
        }
        match (same, self.address() == before) {
            (true, _) => NameChange::Unchanged,
            (false, true) => NameChange::Others,
            (false, false) => NameChange::Address { before },
        }
    }

    fn fail(&mut self, now: Instant, error: NameError) {
        let (since, times) = match &self.failure {
            Some(failure) => (failure.since, failure.times.saturating_add(1)),
            None => (now, 1),
        };
        let doubled = RETRY_FIRST * (1 << (times - 1).min(5));
        let wait = if self.addresses.is_empty() { doubled.min(RETRY_MAX) } else { RETRY_MAX };
        self.next_at = now + wait;
        self.failure = Some(NameFailure { since, times, error });
    }
}

#[cfg(test)]
mod tests;
