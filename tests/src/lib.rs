//! What the integration tests share: network namespaces, the kernel's log, a
//! running agent, and the receiving end.

pub mod agent;
pub mod capture;
pub mod kmsg;
pub mod monitor;
pub mod netns;
pub mod peer;
pub mod process;
pub mod view;
