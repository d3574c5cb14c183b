//! Neighbours that are asked again, and what a configured MAC is compared with.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use netconsole_agent::net::links::watch;
use netconsole_agent::net::{Confirmation, MacSource, Resolver, Wanted};

use super::support::{Lan, MAC_B, NOBODY, by, remote, wanted};

const HOSTS: [&str; 2] = ["10.77.0.2", "2001:db8:77::2"];
const NEW_MAC: [u8; 6] = [2, 0, 0, 0, 0x0b, 2];

/// The time from the wish to have a silently changed MAC confirmed until its
/// failure is told, and until the new one is known.
fn heal(host: &str) -> (Duration, Duration) {
    let lan = Lan::new().expect("checked by the caller");
    lan.a.run(async || {
        let mut changes = watch().expect("notifications");
        let resolver = Resolver::new().expect("netlink");
        let address: IpAddr = host.parse().expect("an address");
        let hop = resolver.resolve(&wanted(&remote(host))).await.expect("it answers");
        assert_eq!((hop.dst_mac, hop.neighbour), (Some(MAC_B), Some(address)));
        // The cable stays: nothing tells that another host answers now.
        lan.b.ip("link set up0 address 02:00:00:00:0b:02");
        tokio::time::sleep(Duration::from_millis(100)).await;
        let hop = resolver.resolve(&wanted(&remote(host))).await.expect("it answers");
        assert_eq!(hop.dst_mac, Some(MAC_B), "the change was noticed by itself");

        let begin = Instant::now();
        let confirmation =
            resolver.confirm(hop.ifindex, address, Duration::ZERO).await.expect("it answers");
        assert_eq!(confirmation, Confirmation::Probing);
        let failed = async {
            while let Some(event) = changes.next().await {
                if event.neighbour.is_some_and(|told| told.address == address && !told.usable) {
                    break;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(10), failed).await.expect("it fails");
        let failed = begin.elapsed();
        let patience = Duration::from_millis(50);
        let again = Wanted { patience, ..wanted(&remote(host)) };
        let hop = resolver.resolve(&again).await.expect("it answers");
        assert_eq!(hop.dst_mac, Some(NEW_MAC));
        (failed, begin.elapsed())
    })
}

#[test]
fn a_mac_that_changed_in_silence_is_found_out_over_ipv4() {
    let Some(_) = Lan::new() else { return };
    let (failed, healed) = heal(HOSTS[0]);
    println!("failed after {failed:?}, healed after {healed:?}");
    assert!(healed < Duration::from_secs(6), "{healed:?}");
}

#[test]
fn a_mac_that_changed_in_silence_is_found_out_over_ipv6() {
    let Some(_) = Lan::new() else { return };
    let (failed, healed) = heal(HOSTS[1]);
    println!("failed after {failed:?}, healed after {healed:?}");
    assert!(healed < Duration::from_secs(6), "{healed:?}");
}

#[test]
fn a_neighbour_that_answers_is_confirmed_and_stays_usable() {
    let Some(lan) = Lan::new() else { return };
    for host in HOSTS {
        lan.a.run(async || {
            let resolver = Resolver::new().unwrap();
            let address = host.parse().unwrap();
            let hop = resolver.resolve(&wanted(&remote(host))).await.unwrap();
            assert!(hop.mac_confirmed_ago.unwrap() < Duration::from_secs(2), "{hop:?}");
            tokio::time::sleep(Duration::from_millis(1200)).await;
            let minute = Duration::from_secs(60);
            let fresh = resolver.confirm(hop.ifindex, address, minute).await.unwrap();
            let Confirmation::Confirmed { ago } = fresh else { panic!("{fresh:?}") };
            assert!((Duration::from_secs(1)..Duration::from_secs(3)).contains(&ago), "{ago:?}");

            let asked = resolver.confirm(hop.ifindex, address, Duration::from_secs(1)).await;
            assert_eq!(asked.unwrap(), Confirmation::Probing);
            // It may be used while it is asked, and is reachable right afterwards.
            assert_eq!(
                resolver.resolve(&wanted(&remote(host))).await.unwrap().dst_mac,
                Some(MAC_B)
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
            let hop = resolver.resolve(&wanted(&remote(host))).await.unwrap();
            assert!(hop.mac_confirmed_ago.unwrap() < Duration::from_secs(1), "{hop:?}");
            assert!(lan.a.ip(&format!("neigh show to {host} dev up0")).contains("REACHABLE"));
        });
    }
}

#[test]
fn what_is_missing_is_resolved_by_the_wish_to_have_it_confirmed() {
    let Some(lan) = Lan::new() else { return };
    for host in HOSTS {
        lan.a.run(async || {
            let mut changes = watch().unwrap();
            let resolver = Resolver::new().unwrap();
            let ifindex = resolver.route(&wanted(&remote(host))).await.unwrap().ifindex;
            let asked = resolver.confirm(ifindex, host.parse().unwrap(), Duration::ZERO).await;
            assert_eq!(asked.unwrap(), Confirmation::Probing);
            let found = async {
                while let Some(event) = changes.next().await {
                    if event.neighbour.is_some_and(|told| told.usable && told.mac == Some(MAC_B)) {
                        break;
                    }
                }
            };
            tokio::time::timeout(Duration::from_secs(3), found).await.expect("it answers");
        });
    }
}

#[test]
fn entries_of_others_are_not_probed() {
    let Some(lan) = Lan::new() else { return };
    let confirm = |host: &str| {
        lan.a.run(async || {
            let resolver = Resolver::new().unwrap();
            let ifindex = resolver.route(&wanted(&remote(host))).await.unwrap().ifindex;
            resolver.confirm(ifindex, host.parse().unwrap(), Duration::ZERO).await.unwrap()
        })
    };
    for host in HOSTS {
        let show = || lan.a.ip(&format!("neigh show nud all to {host} dev up0"));
        for (how, mark) in [
            ("nud permanent", "PERMANENT"),
            ("nud noarp", "NOARP"),
            ("nud reachable extern_learn", "extern_learn"),
        ] {
            lan.a.ip(&format!("neigh replace {host} lladdr 02:00:00:00:0e:0e {how} dev up0"));
            assert_eq!(confirm(host), Confirmation::NotOurs, "{how}");
            let hop = lan.a.resolve(&wanted(&remote(host))).unwrap();
            assert_eq!(hop.dst_mac, Some(NOBODY));
            assert!(show().contains(mark), "{}", show());
        }
        lan.a.ip(&format!("neigh del {host} dev up0"));
    }
}

#[test]
fn a_router_stays_one_while_it_is_probed() {
    let Some(lan) = Lan::new() else { return };
    let show = || lan.a.ip("neigh show to 2001:db8:77::2 dev up0");
    lan.a.ip("neigh replace 2001:db8:77::2 lladdr 02:00:00:00:0e:0e router nud reachable dev up0");
    assert!(show().contains("router"), "{}", show());
    lan.a.run(async || {
        let resolver = Resolver::new().unwrap();
        let hop = resolver.resolve(&wanted("[2001:db8:77::2]:6666")).await.unwrap();
        let asked = resolver.confirm(hop.ifindex, hop.neighbour.unwrap(), Duration::ZERO).await;
        assert_eq!(asked.unwrap(), Confirmation::Probing);
    });
    assert!(show().contains("PROBE") && show().contains("router"), "{}", show());
}

#[test]
fn a_static_mac_is_compared_with_the_neighbour_table() {
    let Some(lan) = Lan::new() else { return };
    for host in HOSTS {
        let fixed = |mac| Wanted { remote_mac: Some(mac), ..by("up0", &remote(host)) };
        let unknown = lan.a.resolve(&fixed(NOBODY)).unwrap();
        assert_eq!((unknown.dst_mac, unknown.neighbour_mac), (Some(NOBODY), None));
        assert_eq!(lan.a.ip(&format!("neigh show to {host} dev up0")), "", "nobody was asked");
        lan.a.resolve(&wanted(&remote(host))).unwrap();
        let hop = lan.a.resolve(&fixed(NOBODY)).unwrap();
        assert_eq!((hop.dst_mac, hop.mac_source), (Some(NOBODY), MacSource::Static));
        assert_eq!((hop.neighbour_mac, hop.neighbour), (Some(MAC_B), None));
        assert_eq!(lan.a.resolve(&fixed(MAC_B)).unwrap().neighbour_mac, None);
    }
}

/// The kernel itself would ask again after a second.
#[test]
fn a_question_that_was_lost_is_asked_again_at_once() {
    let Some(lan) = Lan::new() else { return };
    for (host, prefix) in [("10.77.0.8", 24), ("2001:db8:77::8", 64)] {
        let patient = |ms| Wanted { patience: Duration::from_millis(ms), ..wanted(&remote(host)) };
        lan.a.resolve(&patient(5)).unwrap_err();
        let entry = lan.a.ip(&format!("neigh show to {host} dev up0"));
        assert!(entry.contains("INCOMPLETE"), "{entry}");
        lan.b.ip(&format!("addr add {host}/{prefix} dev up0 nodad"));
        let begin = Instant::now();
        assert_eq!(lan.a.resolve(&patient(500)).unwrap().dst_mac, Some(MAC_B));
        println!("{host}: answered after {:?}", begin.elapsed());
    }
}

#[test]
fn a_short_patience_is_enough_and_the_kernel_goes_on() {
    let Some(lan) = Lan::new() else { return };
    for (host, prefix) in [("10.77.0.7", 24), ("2001:db8:77::7", 64)] {
        lan.a.run(async || {
            let mut changes = watch().unwrap();
            let resolver = Resolver::new().unwrap();
            let patience = Duration::from_millis(20);
            let short = Wanted { patience, ..wanted(&remote(host)) };
            let begin = Instant::now();
            resolver.resolve(&short).await.unwrap_err();
            assert!(begin.elapsed() < Duration::from_millis(500), "{:?}", begin.elapsed());
            lan.b.ip(&format!("addr add {host}/{prefix} dev up0"));
            let address: IpAddr = host.parse().unwrap();
            let found = async {
                while let Some(event) = changes.next().await {
                    if event.neighbour.is_some_and(|told| told.address == address && told.usable) {
                        break;
                    }
                }
            };
            tokio::time::timeout(Duration::from_secs(5), found).await.expect("it answers");
            let hop = resolver.resolve(&Wanted { patience: Duration::ZERO, ..short }).await;
            assert_eq!(hop.unwrap().dst_mac, Some(MAC_B));
        });
    }
}
