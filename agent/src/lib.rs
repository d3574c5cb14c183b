//! netconsole-agent: kernel log records leave the host as netconsole packets.
//!
//! The binary (`main.rs`) parses the command line and calls into this library.
//! The way of one line and the invariants between the rooms are written down in
//! `agent/ARCHITECTURE.md`.

pub mod after_crash;
pub mod capture;
pub mod checkpoint;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod doctor;
pub mod egress;
pub mod extradata;
pub mod failure;
pub mod frame;
pub mod handover;
pub mod import;
pub mod last_words;
pub mod ledger;
pub mod message;
pub mod names;
pub mod net;
pub mod netconsole;
pub mod netoops;
pub mod privileges;
pub mod pump;
pub mod receive;
pub mod record;
pub mod store;
pub mod target;
