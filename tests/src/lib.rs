//! What the integration tests share: network namespaces, the kernel's log, a
//! running agent, a DNS server, the receiving end, and the documents.

pub mod agent;
pub mod capture;
pub mod dns;
pub mod documents;
pub mod kmsg;
pub mod lan;
pub mod monitor;
pub mod netns;
pub mod peer;
pub mod process;
pub mod scrape;
pub mod speech;
pub mod stream;
pub mod view;

/// Names the variable that asks for short tests where there is a choice.
pub const QUICK_VARIABLE: &str = "NETCONSOLE_AGENT_QUICK";

/// Names the variable that repeats a random test.
pub const SEED_VARIABLE: &str = "NETCONSOLE_AGENT_SEED";

/// The seed of a random test: that of the variable, or a new one; tells how to repeat it.
///
/// # Panics
/// If the variable is set to no number.
#[must_use]
pub fn seed(test: &str) -> u64 {
    let seed = std::env::var(SEED_VARIABLE).ok().map_or_else(
        || std::time::UNIX_EPOCH.elapsed().expect("a time").as_nanos() as u64,
        |seed| seed.parse().expect("the seed is a number"),
    );
    println!("{test} seed {seed}; {SEED_VARIABLE}={seed} repeats it");
    seed
}

/// Whether short tests are wanted (`cargo xtask test --quick`).
#[must_use]
pub fn quick() -> bool {
    std::env::var_os(QUICK_VARIABLE).is_some()
}
