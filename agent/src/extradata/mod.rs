//! Where extra data comes from: what the host says of itself, names of cgroups and
//! their workloads, templates of userdata.
//!
//! This is the control thread's side: it opens files, walks directories and allocates. It
//! makes what the data path copies ([`crate::netconsole::HostLines`]) or looks up
//! ([`CgroupNames`]); how the lines are written is the business of
//! `netconsole`, and which are wanted that of `config`. It owns no timer.

pub mod cgroup;
mod cgroup_names;
mod cgroup_walk;
pub mod host;
pub mod template;
mod template_file;
pub mod template_syntax;
pub mod unit;

pub use cgroup::CgroupResolver;
pub use cgroup_names::CgroupNames;
pub use cgroup_walk::WalkError;
pub use host::HostValues;
pub use template::TemplateError;
