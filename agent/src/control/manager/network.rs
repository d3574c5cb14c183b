//! What the events of the network mean for the targets: bad news about the device in use
//! act at once, everything else is a reason to look.

use super::{Change, Manager};
use crate::{
    control::life::Life,
    net::NetEventKind,
    target::state::{Event, Reason, WaitKind},
};

impl Manager {
    pub(super) fn network(&mut self, change: &Change) {
        let (kind, ifindex) = match change {
            Change::Netlink(event) => {
                if let Some(neighbour) = &event.neighbour {
                    let cares = |life: &Life| life.cares_for(neighbour);
                    let caring = self.lives.iter().filter(|(_, life)| cares(life));
                    for target in caring.map(|(target, _)| *target).collect::<Vec<_>>() {
                        self.handle(target, Event::Changed);
                    }
                    return;
                }
                for known in self.lives.values_mut().filter_map(|life| life.known.as_mut()) {
                    known.follow(event);
                }
                self.hurry_names();
                (event.kind, event.ifindex)
            }
            Change::Netdev(change) => (change.kind(), Some(change.ifindex)),
        };
        let lost = match kind {
            NetEventKind::LinkGone => Some((WaitKind::NoDevice, "the device is gone")),
            NetEventKind::LinkDown => Some((WaitKind::DeviceDown, "the device went down")),
            NetEventKind::LinkNoCarrier => {
                Some((WaitKind::NoCarrier, "the device lost its carrier"))
            }
            _ => None,
        };
        let gone = match (kind, ifindex) {
            (NetEventKind::LinkGone, Some(ifindex)) => self.sockets.device_gone(ifindex),
            _ => Vec::new(),
        };
        for target in self.ids() {
            let socket = self.lives.get(&target).and_then(|life| life.machine.socket());
            let uses = socket.is_some_and(|socket| {
                gone.contains(&socket)
                    || ifindex.is_some() && self.sockets.ifindex(socket) == ifindex
            });
            let event = match &lost {
                Some((kind, text)) if uses => {
                    Event::Lost(Reason { kind: *kind, text: (*text).to_owned() })
                }
                _ => Event::Changed,
            };
            self.handle(target, event);
        }
    }
}
