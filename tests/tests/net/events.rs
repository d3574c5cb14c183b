//! What the notifications tell.

use std::time::Duration;

use futures_util::StreamExt;
use netconsole_agent::net::links::{Changes, NeighbourChange, NetEvent, NetEventKind, watch};

use netconsole_agent::net::{Resolver, Wanted};

use super::support::{Lan, MAC_B, NOBODY, remote, skip, wanted};

/// Events until one fits, which is the last.
async fn until(changes: &mut Changes, mut fits: impl FnMut(&NetEvent) -> bool) -> Vec<NetEvent> {
    let mut seen = Vec::new();
    let wait = async {
        while let Some(event) = changes.next().await {
            let last = fits(&event);
            seen.push(event);
            if last {
                return true;
            }
        }
        false
    };
    let found = tokio::time::timeout(Duration::from_secs(5), wait).await;
    assert_eq!(found, Ok(true), "not among {seen:?}");
    seen
}

#[test]
fn changes_are_told() {
    let Some(lan) = Lan::new() else { return };
    let seen = lan.a.run(async || {
        let mut changes = watch().unwrap();
        lan.a.ip("addr add 10.91.0.1/24 dev up0");
        lan.a.ip("route add 10.92.0.0/24 via 10.77.0.2");
        lan.a.ip("neigh add 10.77.0.8 lladdr 02:00:00:00:0e:0e dev up0");
        lan.a.ip("neigh del 10.77.0.8 dev up0");
        lan.a.ip("link set up0 down");
        lan.a.ip("link del up0");
        until(&mut changes, |event| event.kind == NetEventKind::LinkGone).await
    });
    for kind in [
        NetEventKind::AddressNew,
        NetEventKind::RouteNew,
        NetEventKind::NeighbourNew,
        NetEventKind::NeighbourGone,
        NetEventKind::LinkDown,
        NetEventKind::AddressGone,
        NetEventKind::LinkGone,
    ] {
        let event = seen.iter().find(|event| event.kind == kind);
        let event = event.unwrap_or_else(|| panic!("no {kind:?} in {seen:?}"));
        assert!(event.ifindex.is_some(), "{event:?}");
    }
    let gone = seen.last().unwrap();
    assert_eq!(gone.name.as_deref(), Some("up0"));
}

#[test]
fn carrier_and_state_are_told_apart() {
    let Some(lan) = Lan::new() else { return };
    let up0 = |event: &NetEvent, kind| event.kind == kind && event.name.as_deref() == Some("up0");
    lan.a.run(async || {
        let mut changes = watch().unwrap();
        lan.b.ip("link set up0 down");
        until(&mut changes, |event| up0(event, NetEventKind::LinkNoCarrier)).await;
        lan.b.ip("link set up0 up");
        until(&mut changes, |event| up0(event, NetEventKind::LinkRunning)).await;
        lan.a.ip("link set up0 down");
        until(&mut changes, |event| up0(event, NetEventKind::LinkDown)).await;
    });
}

#[test]
fn a_device_that_leaves_the_namespace_is_gone() {
    let Some(lan) = Lan::new() else { return };
    lan.a.run(async || {
        let mut changes = watch().unwrap();
        lan.a.ip(&format!("link set up0 netns {} name came0", lan.b.name));
        until(&mut changes, |event| event.kind == NetEventKind::LinkGone).await;
    });
}

#[test]
fn a_port_that_leaves_its_bridge_is_not_gone() {
    let Some(lan) = Lan::new() else { return };
    if let Err(error) = lan.a.try_ip("link add br0 type bridge") {
        return skip(&format!("bridge: {error}"));
    }
    let ifindex = Some(lan.a.ifindex("up0"));
    let seen = lan.a.run(async || {
        let mut changes = watch().unwrap();
        lan.a.ip("link set br0 up");
        lan.a.ip("link set up0 master br0");
        lan.a.ip("link set up0 nomaster");
        lan.a.ip("link del br0");
        let br0_gone = |event: &NetEvent| {
            event.kind == NetEventKind::LinkGone && event.name.as_deref() == Some("br0")
        };
        until(&mut changes, br0_gone).await
    });
    let port = |kind| seen.iter().any(|event| event.kind == kind && event.ifindex == ifindex);
    assert!(port(NetEventKind::LinkChanged), "{seen:?}");
    assert!(!port(NetEventKind::LinkGone), "{seen:?}");
}

#[test]
fn rules_are_told() {
    let Some(lan) = Lan::new() else { return };
    lan.a.run(async || {
        let mut changes = watch().unwrap();
        for family in ["-4", "-6"] {
            for verb in ["add", "del"] {
                if let Err(error) = lan.a.try_ip(&format!("{family} rule {verb} pref 77 table 77"))
                {
                    return skip(&format!("rules: {error}"));
                }
                until(&mut changes, |event| event.kind == NetEventKind::RuleChanged).await;
            }
        }
    });
}

#[test]
fn neighbours_are_told_with_address_and_mac() {
    let Some(lan) = Lan::new() else { return };
    let ifindex = Some(lan.a.ifindex("up0"));
    lan.a.shell("for f in 4 6; do echo 50 > /proc/sys/net/ipv$f/neigh/up0/retrans_time_ms; done");
    for (host, other) in [("10.77.0.2", "10.77.0.99"), ("2001:db8:77::2", "2001:db8:77::99")] {
        let told = |event: &NetEvent| event.neighbour.filter(|_| event.ifindex == ifindex);
        lan.a.run(async || {
            let mut changes = watch().unwrap();
            let address = host.parse().unwrap();
            lan.a.ip(&format!("neigh replace {host} lladdr 02:00:00:00:0e:0e nud stale dev up0"));
            let stale = NeighbourChange { address, mac: Some(NOBODY), usable: true };
            until(&mut changes, |event| told(event) == Some(stale)).await;
            // Somebody else's MAC is learned from its own words.
            lan.a.ip(&format!("neigh del {host} dev up0"));
            until(&mut changes, |event| event.kind == NetEventKind::NeighbourGone).await;
            Resolver::new().unwrap().resolve(&wanted(&remote(host))).await.unwrap();
            let learned = NeighbourChange { address, mac: Some(MAC_B), usable: true };
            until(&mut changes, |event| told(event) == Some(learned)).await;
            // Nobody answers.
            let short = Wanted { patience: Duration::ZERO, ..wanted(&remote(other)) };
            Resolver::new().unwrap().resolve(&short).await.unwrap_err();
            let address = other.parse().unwrap();
            let failed = NeighbourChange { address, mac: None, usable: false };
            until(&mut changes, |event| told(event) == Some(failed)).await;
        });
    }
}

#[test]
fn the_forwarding_table_of_a_bridge_is_not_told() {
    let Some(lan) = Lan::new() else { return };
    if let Err(error) = lan.a.try_ip("link add br0 type bridge") {
        return skip(&format!("bridge: {error}"));
    }
    lan.a.ip("link set up0 master br0");
    let seen = lan.a.run(async || {
        let mut changes = watch().unwrap();
        lan.a.shell("bridge fdb add 02:00:00:00:0e:0e dev up0 master static");
        lan.a.ip("link del br0");
        until(&mut changes, |event| event.kind == NetEventKind::LinkGone).await
    });
    assert!(seen.iter().all(|event| event.neighbour.is_none()), "{seen:?}");
}

#[test]
fn after_an_overrun_the_stream_goes_on() {
    let Some(lan) = Lan::new() else { return };
    let mut script = String::new();
    for round in 0..40 {
        let verb = if round % 2 == 0 { "add" } else { "del" };
        for host in 1..=250 {
            script += &format!("addr {verb} 10.95.{}.{host}/32 dev lo\n", round / 2);
        }
    }
    lan.a.run(async || {
        let mut changes = watch().unwrap();
        // The runtime has one thread: nobody reads meanwhile.
        lan.a.batch(&script);
        let overrun = |event: &NetEvent| event.kind == NetEventKind::Overrun;
        until(&mut changes, overrun).await;
        // Still not read, so this is dropped without another word …
        lan.a.ip("link add lost0 type veth peer name lost1");
        // … which is why the end of the overrun is told, too.
        let queued = until(&mut changes, overrun).await;
        println!("{} events were queued", queued.len() - 1);
        // The receive buffer is the larger one: the default holds about 250.
        assert!(queued.len() > 1000, "{}", queued.len());
        let named = |event: &NetEvent, name| event.name.as_deref() == Some(name);
        assert!(!queued.iter().any(|event| named(event, "lost0")));
        lan.a.ip("link add last0 type veth peer name last1");
        let seen = until(&mut changes, |event| named(event, "last0")).await;
        assert!(!seen.iter().any(overrun), "{seen:?}");
    });
}
