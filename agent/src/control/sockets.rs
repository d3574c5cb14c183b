//! The sockets that are open, who claims them, and their places with the pump.
//!
//! A socket is opened for the first target that claims it and closed after the
//! last one has let go: it is asked back from the pump, and dropped here when it has come back.
//! Both may sleep, so both happen on threads of their own.

use std::{collections::BTreeMap, sync::atomic::Ordering};

use rustix::io::Errno;
use tokio::sync::mpsc::UnboundedSender;

use super::{
    link::PumpLink,
    manager::Input,
    way::{SocketKey, WayOut},
};
use crate::{
    egress::{Egress, OpenError},
    pump::{Command, EGRESS_MAX, PumpStats},
    target::{
        Route,
        state::{Reason, SocketId, Ticket, WaitKind, Way as _},
    },
};

/// What became of opening a socket.
pub(super) type Opened = Result<Box<dyn Egress>, OpenError>;

/// Who waits for a socket: target and ticket.
type Waiter = (usize, Ticket);

enum Place {
    /// It is being opened for these.
    Opening(Vec<Waiter>),
    /// The pump has it.
    Lent(usize),
}

struct Socket {
    key: SocketKey,
    place: Place,
    /// Who claims it, and how often: a target may have asked again before it was told that its
    /// first claim came true.
    users: BTreeMap<usize, u32>,
    /// It will not send again; nobody new gets it.
    dead: bool,
}

/// See the module's description.
pub(super) struct Sockets {
    open: BTreeMap<SocketId, Socket>,
    last_id: u64,
    /// Taken until the pump has given the socket back.
    places: [bool; EGRESS_MAX],
    inputs: UnboundedSender<Input>,
}

impl Sockets {
    pub(super) fn new(inputs: UnboundedSender<Input>) -> Self {
        Self { open: BTreeMap::new(), last_id: 0, places: [false; EGRESS_MAX], inputs }
    }

    /// Claims the socket of a way for a target: at once if it is open, else the
    /// answer comes through [`Self::opened`].
    pub(super) fn claim(
        &mut self,
        target: usize,
        ticket: Ticket,
        way: &WayOut,
    ) -> Option<SocketId> {
        let key = way.key();
        if let Some((id, socket)) =
            self.open.iter_mut().find(|(_, socket)| socket.key == key && !socket.dead)
        {
            match &mut socket.place {
                Place::Lent(_) => {
                    *socket.users.entry(target).or_default() += 1;
                    return Some(*id);
                }
                Place::Opening(waiters) => waiters.push((target, ticket)),
            }
            return None;
        }
        self.last_id += 1;
        let id = SocketId(self.last_id);
        let place = Place::Opening(vec![(target, ticket)]);
        self.open.insert(id, Socket { key, place, users: BTreeMap::new(), dead: false });
        let (open, inputs) = (way.opener(), self.inputs.clone());
        tokio::task::spawn_blocking(move || {
            // Nobody listens any more only when the agent ends.
            let _ = inputs.send(Input::Opened(id, open()));
        });
        None
    }

    /// Takes what came of opening; returns what to tell whom.
    pub(super) fn opened(
        &mut self,
        link: &mut PumpLink,
        id: SocketId,
        outcome: Opened,
    ) -> Vec<(Waiter, Result<SocketId, Reason>)> {
        let Some(socket) = self.open.get_mut(&id) else { return Vec::new() };
        let Place::Opening(waiters) = &mut socket.place else { return Vec::new() };
        let waiters = std::mem::take(waiters);
        let outcome = match outcome {
            Ok(egress) if socket.dead => {
                close(egress);
                Err(Reason {
                    kind: WaitKind::SocketDead,
                    text: "the device went away while its socket was opened".to_owned(),
                })
            }
            Ok(egress) => match self.places.iter().position(|taken| !taken) {
                Some(place) => Ok((place, egress)),
                None => {
                    close(egress);
                    Err(Reason {
                        kind: WaitKind::OpenRefused,
                        text: format!(
                            "{EGRESS_MAX} sockets are open, which is the most the agent holds; let targets share devices"
                        ),
                    })
                }
            },
            Err(error) => Err(Reason {
                kind: if error.errno() == Some(Errno::BUSY) {
                    WaitKind::BindBusy
                } else {
                    WaitKind::OpenRefused
                },
                text: error.to_string(),
            }),
        };
        let told = match outcome {
            Ok((index, egress)) => {
                socket.place = Place::Lent(index);
                for (target, _) in &waiters {
                    *socket.users.entry(*target).or_default() += 1;
                }
                self.places[index] = true;
                link.send(Command::Install { index, egress });
                Ok(id)
            }
            Err(reason) => {
                self.open.remove(&id);
                Err(reason)
            }
        };
        waiters.into_iter().map(|waiter| (waiter, told.clone())).collect()
    }

    /// A target lets go of a socket.
    pub(super) fn release(&mut self, link: &mut PumpLink, target: usize, id: SocketId) {
        let Some(socket) = self.open.get_mut(&id) else { return };
        if let Some(claims) = socket.users.get_mut(&target) {
            *claims -= 1;
            if *claims == 0 {
                socket.users.remove(&target);
            }
        }
        if let Place::Lent(index) = socket.place
            && socket.users.is_empty()
        {
            self.open.remove(&id);
            link.send(Command::Retire { index });
        }
    }

    /// The way as the pump needs it, to send through a socket.
    pub(super) fn route(&self, id: SocketId, way: &WayOut) -> Option<Box<Route>> {
        let Place::Lent(egress) = self.open.get(&id)?.place else { return None };
        // Whether the headers can be made was checked when the way was found.
        let header = way.header().ok()?;
        let nic = way.nic().into_bytes().into();
        Some(Box::new(Route { egress, header, mtu_bytes: way.mtu_bytes(), nic }))
    }

    /// A device is gone: its sockets serve nobody new. Returns them.
    pub(super) fn device_gone(&mut self, ifindex: u32) -> Vec<SocketId> {
        let gone = |socket: &Socket| socket.key.ifindex() == Some(ifindex) && !socket.dead;
        let of_it = self.open.iter_mut().filter(|(_, socket)| gone(socket));
        of_it
            .map(|(id, socket)| {
                socket.dead = true;
                *id
            })
            .collect()
    }

    /// Whether somebody still claims a socket.
    pub(super) fn is_open(&self, id: SocketId) -> bool {
        self.open.contains_key(&id)
    }

    /// The device of a socket.
    pub(super) fn ifindex(&self, id: SocketId) -> Option<u32> {
        self.open.get(&id).and_then(|socket| socket.key.ifindex())
    }

    /// Sockets whose last attempt to send failed, with the errno.
    pub(super) fn failing(&self, stats: &PumpStats) -> Vec<(SocketId, Errno)> {
        let errno = |socket: &Socket| match socket.place {
            Place::Lent(index) => stats.socket_errno[index].load(Ordering::Relaxed),
            Place::Opening(_) => 0,
        };
        let failing = self.open.iter().map(|(id, socket)| (*id, errno(socket)));
        failing
            .filter(|(_, errno)| *errno != 0)
            .map(|(id, errno)| (id, Errno::from_raw_os_error(errno)))
            .collect()
    }

    /// A socket came back from the pump.
    pub(super) fn returned(&mut self, index: usize, egress: Box<dyn Egress>) {
        self.places[index] = false;
        close(egress);
    }
}

/// Closing an AF_XDP socket waits for the kernel's readers.
fn close(egress: Box<dyn Egress>) {
    tokio::task::spawn_blocking(move || drop(egress));
}

#[cfg(test)]
mod tests {
    use std::{net::SocketAddr, sync::Arc};

    use tokio::sync::mpsc::unbounded_channel;

    use super::*;
    use crate::{
        capture::wake::Waker, config, control::way::find, handover::handover, net::Resolver,
    };

    /// A target that is switched off and on while its socket is opened claims it twice, and
    /// lets go of the claim that it has forgotten.
    #[tokio::test]
    async fn a_claim_that_is_forgotten_takes_no_other_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let text = format!(
            "[target.x]\nremote = \"192.0.2.1\"\negress = \"pcap\"\npcap = {:?}\n",
            folder.path().join("x.pcap")
        );
        let target = config::parse(&text, "x").unwrap().targets.remove(0);
        let remote: SocketAddr = "192.0.2.1:6666".parse().unwrap();
        let resolver = Resolver::new().unwrap();
        let way = find(resolver, Arc::new(target), 7, vec![remote], None).await.unwrap();

        let (control, _pump) = handover(8);
        let waker = Arc::new(Waker::new().unwrap());
        let mut link = PumpLink::new(control, waker, Arc::default());
        let (sender, mut inputs) = unbounded_channel();
        let mut sockets = Sockets::new(sender);
        assert_eq!(sockets.claim(7, Ticket(1), &way), None);
        assert_eq!(sockets.claim(7, Ticket(2), &way), None);
        let Some(Input::Opened(id, outcome)) = inputs.recv().await else { panic!("no socket") };
        let told = sockets.opened(&mut link, id, outcome);
        assert_eq!(told, [((7, Ticket(1)), Ok(id)), ((7, Ticket(2)), Ok(id))]);
        sockets.release(&mut link, 7, id);
        assert!(sockets.is_open(id) && sockets.route(id, &way).is_some());
        assert_eq!(sockets.claim(7, Ticket(3), &way), Some(id));
        sockets.release(&mut link, 7, id);
        assert!(sockets.is_open(id));
        sockets.release(&mut link, 7, id);
        assert!(!sockets.is_open(id));
    }
}
