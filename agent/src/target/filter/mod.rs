//! Which records a target gets: level, facility, ordered rules and rates.
//!
//! [`spec`] is what the configuration says.

pub mod spec;
