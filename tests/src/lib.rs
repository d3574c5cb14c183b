//! What the integration tests share: network namespaces, the kernel's log, a
//! running agent, a DNS server, and the receiving end.

pub mod agent;
pub mod capture;
pub mod dns;
pub mod kmsg;
pub mod lan;
pub mod monitor;
pub mod netns;
pub mod peer;
pub mod process;
pub mod scrape;
pub mod stream;
pub mod view;

/// Names the variable that asks for short tests where there is a choice.
pub const QUICK_VARIABLE: &str = "NETCONSOLE_AGENT_QUICK";

/// Whether short tests are wanted (`cargo xtask test --quick`).
#[must_use]
pub fn quick() -> bool {
    std::env::var_os(QUICK_VARIABLE).is_some()
}
