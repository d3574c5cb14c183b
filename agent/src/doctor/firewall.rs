//! Whether this host filters what it sends: AF_XDP and AF_PACKET frames pass below such rules.
//!
//! nftables tells its base chains (`nf_tables_getchain`, net/netfilter/nf_tables_api.c); the older
//! iptables only which tables are loaded (`/proc/net/ip_tables_names`). The rules themselves are not
//! read: whether one of them would match is the operator's to know.

use std::{io, path::Path, time::Duration};

use rtnetlink::packet_core::NlasIterator;
use rtnetlink::sys::protocols;

use super::kernel_config::KernelConfig;
use crate::net::dump;

/// `NFNL_SUBSYS_NFTABLES` in the upper byte (`include/uapi/linux/netfilter/nfnetlink.h`).
const NFT: u16 = 10 << 8;
const NFT_MSG_NEWCHAIN: u16 = NFT | 3;
const NFT_MSG_GETCHAIN: u16 = NFT | 4;
/// Attributes of a chain, and of its hook (`include/uapi/linux/netfilter/nf_tables.h`).
const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_CHAIN_HOOK: u16 = 4;
const NFTA_CHAIN_POLICY: u16 = 5;
const NFTA_CHAIN_USE: u16 = 6;
const NFTA_CHAIN_TYPE: u16 = 7;
const NFTA_HOOK_HOOKNUM: u16 = 1;
/// `NF_INET_LOCAL_OUT`, `NF_INET_POST_ROUTING`; `NF_NETDEV_EGRESS`.
const INET_OUT: [u32; 2] = [3, 4];
const NETDEV_EGRESS: u32 = 1;
const NF_ACCEPT: u32 = 1;
/// `struct nfgenmsg`.
const GENERIC_BYTES: usize = 4;
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// What stands in the way of packets that take the ordinary path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    /// Chains that see outgoing packets and hold rules or drop, such as `nftables inet filter output`.
    pub(super) chains: Vec<String>,
    /// Why it is not known whether there are such chains.
    pub(super) unknown: Option<String>,
}

impl Facts {
    pub(super) async fn gather(kernel_config: &KernelConfig) -> Self {
        let mut facts = Self::default();
        // Asking would make the kernel load the module, and without it there are no rules.
        let loaded = if Path::new("/sys/module/nf_tables").exists() {
            Some(true)
        } else {
            // What is built in has no folder there unless it has parameters.
            kernel_config.is_built_in("NF_TABLES", "nf_tables")
        };
        match loaded {
            Some(true) => match tokio::time::timeout(ANSWER_LIMIT, nftables_chains()).await {
                Ok(Ok(chains)) => facts.chains.extend(chains),
                Ok(Err(error)) => facts.unknown = Some(format!("nftables: {error}")),
                Err(_) => facts.unknown = Some("nftables gives no answer".to_owned()),
            },
            Some(false) => {}
            None => {
                let cause = "whether nftables is built into this kernel is not told anywhere";
                facts.unknown = Some(cause.to_owned());
            }
        }
        for (path, name) in
            [("/proc/net/ip_tables_names", "iptables"), ("/proc/net/ip6_tables_names", "ip6tables")]
        {
            match std::fs::read_to_string(path) {
                Ok(tables) => facts.chains.extend(legacy_tables(&tables, name)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => facts.unknown = Some(format!("{name}: {error}")),
            }
        }
        facts
    }
}

/// The tables that hold chains for outgoing packets, as far as frames of ours are concerned.
fn legacy_tables(names: &str, program: &str) -> Vec<String> {
    let known =
        names.lines().filter(|table| matches!(*table, "filter" | "mangle" | "raw" | "security"));
    known.map(|table| format!("{program} table {table}")).collect()
}

async fn nftables_chains() -> io::Result<Vec<String>> {
    let mut chains = Vec::new();
    let scan = |datagram: &[u8]| Ok(scan(datagram, &mut chains)?.then_some(()));
    let protocol = protocols::NETLINK_NETFILTER;
    dump::dump(protocol, NFT_MSG_GETCHAIN, &[0; GENERIC_BYTES], scan).await?;
    Ok(chains)
}

/// Goes through one datagram of the dump; true at its end.
fn scan(datagram: &[u8], chains: &mut Vec<String>) -> io::Result<bool> {
    let done = dump::scan(datagram, |message| match message {
        None => Some(()),
        Some((NFT_MSG_NEWCHAIN, chain)) => {
            chains.extend(outgoing_chain(chain));
            None
        }
        Some(_) => None,
    })?;
    Ok(done.is_some())
}

/// The chain's name, if it can hold up outgoing packets.
fn outgoing_chain(payload: &[u8]) -> Option<String> {
    let (generic, attributes) = payload.split_first_chunk::<GENERIC_BYTES>()?;
    let (mut table, mut name, mut kind) = (String::new(), String::new(), String::new());
    let (mut hook, mut policy, mut rules) = (None, NF_ACCEPT, 0);
    for attribute in NlasIterator::new(attributes) {
        let attribute = attribute.ok()?;
        let value = attribute.value();
        match attribute.kind() {
            NFTA_CHAIN_TABLE => table = text(value),
            NFTA_CHAIN_NAME => name = text(value),
            NFTA_CHAIN_TYPE => kind = text(value),
            NFTA_CHAIN_POLICY => policy = number(value)?,
            NFTA_CHAIN_USE => rules = number(value)?,
            NFTA_CHAIN_HOOK => {
                for nested in NlasIterator::new(value).flatten() {
                    if nested.kind() == NFTA_HOOK_HOOKNUM {
                        hook = number(nested.value());
                    }
                }
            }
            _ => {}
        }
    }
    // `NFPROTO_*` (`include/uapi/linux/netfilter.h`).
    let (family, hooks) = match generic[0] {
        1 => ("inet", &INET_OUT[..]),
        2 => ("ip", &INET_OUT[..]),
        10 => ("ip6", &INET_OUT[..]),
        5 => ("netdev", &[NETDEV_EGRESS][..]),
        _ => return None,
    };
    // Masquerading changes addresses of packets that are forwarded; it holds up none.
    let counts = hook.is_some_and(|hook| hooks.contains(&hook))
        && kind != "nat"
        && (rules > 0 || policy != NF_ACCEPT);
    counts.then(|| format!("nftables {family} {table} {name}"))
}

fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value.strip_suffix(b"\0").unwrap_or(value)).into_owned()
}

fn number(value: &[u8]) -> Option<u32> {
    value.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use rtnetlink::packet_core::{NLMSG_DONE, NLMSG_ERROR};

    use super::dump::HEADER_BYTES;
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = (4 + value.len() as u16).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn message(kind: u16, payload: &[u8]) -> Vec<u8> {
        let mut bytes = ((HEADER_BYTES + payload.len()) as u32).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend(payload);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn chain(family: u8, hook: u32, policy: u32, rules: u32, kind: &str) -> Vec<u8> {
        let nested = attribute(NFTA_HOOK_HOOKNUM, &hook.to_be_bytes());
        let payload = [
            vec![family, 0, 0, 0],
            attribute(NFTA_CHAIN_TABLE, b"t\0"),
            attribute(NFTA_CHAIN_NAME, b"c\0"),
            attribute(NFTA_CHAIN_HOOK | 0x8000, &nested),
            attribute(NFTA_CHAIN_POLICY, &policy.to_be_bytes()),
            attribute(NFTA_CHAIN_USE, &rules.to_be_bytes()),
            attribute(NFTA_CHAIN_TYPE, format!("{kind}\0").as_bytes()),
        ];
        message(NFT_MSG_NEWCHAIN, &payload.concat())
    }

    fn scanned(messages: &[Vec<u8>]) -> Vec<String> {
        let mut chains = Vec::new();
        assert!(!scan(&messages.concat(), &mut chains).unwrap());
        chains
    }

    #[test]
    fn chains_that_can_hold_up_outgoing_packets_count() {
        assert_eq!(scanned(&[chain(1, 3, 1, 2, "filter")]), ["nftables inet t c"]);
        assert_eq!(scanned(&[chain(2, 4, 0, 0, "filter")]), ["nftables ip t c"], "drops all");
        assert_eq!(scanned(&[chain(5, 1, 1, 1, "filter")]), ["nftables netdev t c"]);
        let others = [
            chain(1, 1, 1, 2, "filter"),
            chain(1, 3, 1, 0, "filter"),
            chain(2, 4, 1, 5, "nat"),
            chain(7, 3, 1, 1, "filter"),
        ];
        assert_eq!(scanned(&others), [""; 0]);
    }

    #[test]
    fn the_end_a_refusal_and_garbage_are_told_apart() {
        assert!(scan(&message(NLMSG_DONE, &[0; 4]), &mut Vec::new()).unwrap());
        let refused = scan(&message(NLMSG_ERROR, &(-1i32).to_ne_bytes()), &mut Vec::new());
        assert_eq!(refused.unwrap_err().raw_os_error(), Some(1));
        let mut short = chain(1, 3, 1, 2, "filter");
        short.truncate(60);
        assert!(scan(&short, &mut Vec::new()).is_err());
    }

    #[test]
    fn legacy_nat_holds_up_nothing() {
        assert_eq!(legacy_tables("filter\nnat\n", "iptables"), ["iptables table filter"]);
    }
}
