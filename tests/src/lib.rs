//! What the integration tests share: network namespaces, the kernel's log, a
//! running agent, a DNS server, and the receiving end.

pub mod agent;
pub mod dns;
pub mod kmsg;
pub mod netns;
pub mod peer;
pub mod process;
