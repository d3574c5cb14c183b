//! The model of a target that moves between two sockets: the hand-over and the
//! pump's book of what is on its way, both as they are in the agent, and around
//! them a pump, a control thread and a kernel that are as small as can be.
//!
//! * No datagram is written to a retired socket.
//! * None is lost between two sockets: each record leaves, whole, once, in order; one of
//!   several datagrams starts anew in the next socket.
//! * What a device dropped goes out again before everything newer, or is lost.
//! * Sockets are closed by the control thread alone, after they came back.

use std::collections::VecDeque;

use loom::{
    sync::{Arc, Mutex},
    thread::{self, ThreadId},
};

use crate::{
    flight::Flight,
    handover::{PumpEnd, handover},
};

/// Records, and the one of them that takes two datagrams.
const RECORDS: u64 = 3;
const LONG: u64 = 1;
const SLOTS: usize = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Datagram {
    record: u64,
    part: usize,
}

impl Datagram {
    fn is_last(self) -> bool {
        self.part + 1 == parts_of(self.record)
    }
}

fn parts_of(record: u64) -> usize {
    if record == LONG { 2 } else { 1 }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Sent,
    Dropped,
}

/// One socket as the kernel sees it.
#[derive(Default)]
struct Ring {
    waiting: VecDeque<Datagram>,
    /// What the kernel took and the pump was not told of.
    taken: Vec<(Datagram, Fate)>,
    /// The device drops so many that it is given.
    drops: usize,
    retired: bool,
    closed: bool,
}

/// What the threads and the kernel share.
#[derive(Default)]
struct World {
    rings: [Ring; 2],
    wire: Vec<Datagram>,
    lost: Vec<u64>,
    dropped: Vec<u64>,
}

impl World {
    fn take(&mut self, id: usize) {
        let ring = &mut self.rings[id];
        let Some(datagram) = ring.waiting.pop_front() else { return };
        if ring.drops > 0 {
            ring.drops -= 1;
            ring.taken.push((datagram, Fate::Dropped));
            self.dropped.push(datagram.record);
        } else {
            ring.taken.push((datagram, Fate::Sent));
            self.wire.push(datagram);
        }
    }
}

type Shared = Arc<Mutex<World>>;

/// A socket as the pump and the control thread hold it.
struct Socket {
    id: usize,
    world: Shared,
    owner: ThreadId,
}

impl Socket {
    fn open(id: usize, world: &Shared) -> Box<Self> {
        Box::new(Self { id, world: Arc::clone(world), owner: thread::current().id() })
    }

    /// False if it is full.
    fn push(&self, datagram: Datagram) -> bool {
        let ring = &mut self.world.lock().unwrap().rings[self.id];
        assert!(!ring.retired, "a datagram was written to a retired socket");
        let room = ring.waiting.len() + ring.taken.len() < SLOTS;
        if room {
            ring.waiting.push_back(datagram);
        }
        room
    }

    /// The second socket's kernel takes everything at once; what the first one's takes,
    /// and when, is up to a thread of its own.
    fn flush(&self) {
        if self.id == 1 {
            let mut world = self.world.lock().unwrap();
            (0..SLOTS).for_each(|_| world.take(1));
        }
    }

    fn reap(&self) -> Vec<(Datagram, Fate)> {
        std::mem::take(&mut self.world.lock().unwrap().rings[self.id].taken)
    }

    /// What was taken and not reaped, and what never will be.
    fn abandon(&self) -> (Vec<(Datagram, Fate)>, VecDeque<Datagram>) {
        let ring = &mut self.world.lock().unwrap().rings[self.id];
        ring.retired = true;
        (std::mem::take(&mut ring.taken), std::mem::take(&mut ring.waiting))
    }

    fn lose(&self, record: u64) {
        self.world.lock().unwrap().lost.push(record);
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        assert_eq!(thread::current().id(), self.owner, "closed by another thread");
        let ring = &mut self.world.lock().unwrap().rings[self.id];
        assert!(ring.retired, "a socket was closed while it was lent");
        ring.closed = true;
    }
}

enum Command {
    Install(usize, Box<Socket>),
    Retire(usize),
    Bind(usize),
    Unbind,
    Stop,
}

/// The pump of one target.
struct Pump {
    end: PumpEnd<Command, Box<Socket>>,
    places: [Option<Box<Socket>>; 2],
    route: Option<usize>,
    flight: Flight<u64>,
    next: u64,
    worst: Fate,
    stopping: bool,
}

impl Pump {
    fn run(mut self) {
        while !self.stopping {
            match self.end.receive() {
                Some(command) => self.obey(command),
                None => thread::yield_now(),
            }
            self.round();
        }
        // The last socket takes all it is given.
        for _ in 0..2 * RECORDS {
            self.round();
        }
        (0..self.places.len()).for_each(|place| self.retire(place));
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Install(place, socket) => {
                self.retire(place);
                self.places[place] = Some(socket);
            }
            Command::Retire(place) => self.retire(place),
            Command::Bind(place) => self.route = Some(place),
            Command::Unbind => self.route = None,
            Command::Stop => self.stopping = true,
        }
    }

    fn round(&mut self) {
        while self.push_next() {}
        for place in 0..self.places.len() {
            let Some(socket) = self.places[place].take() else { continue };
            socket.flush();
            for (datagram, fate) in socket.reap() {
                self.settle(&socket, datagram, fate);
            }
            self.places[place] = Some(socket);
        }
    }

    fn push_next(&mut self) -> bool {
        let Some(place) = self.route else { return false };
        let Some(socket) = &self.places[place] else { return false };
        let again = self.flight.next_again();
        let record = again.unwrap_or(self.next);
        if record == RECORDS || !self.flight.may_use(place) || !self.flight.has_room() {
            return false;
        }
        let datagram = Datagram { record, part: self.flight.begun() };
        if !socket.push(datagram) {
            return false;
        }
        self.flight.pushed();
        if datagram.is_last() {
            self.flight.is_in_flight(record);
            self.next += u64::from(again.is_none());
        }
        true
    }

    /// As the agent's pump does (`settle_record`).
    fn settle(&mut self, socket: &Socket, datagram: Datagram, fate: Fate) {
        let Datagram { record, part } = datagram;
        if part == 0 || fate == Fate::Dropped {
            self.worst = fate;
        }
        let again = datagram.is_last() && self.worst == Fate::Dropped;
        if again {
            self.flight.dropped(|other, this| other < this);
        } else {
            self.flight.settled(datagram.is_last());
        }
        // What was dropped before would come after it.
        while fate == Fate::Sent && self.flight.next_again().is_some_and(|again| again < record) {
            socket.lose(self.flight.next_again().unwrap());
            self.flight.drop_again();
        }
    }

    fn retire(&mut self, place: usize) {
        let Some(socket) = self.places[place].take() else { return };
        let (taken, waiting) = socket.abandon();
        for (datagram, fate) in taken {
            self.settle(&socket, datagram, fate);
        }
        waiting.iter().for_each(|datagram| self.flight.given_back(datagram.is_last()));
        self.flight.retired(place);
        self.flight.restore_order(u64::cmp);
        self.end.give_back(socket);
    }
}

/// Each record is whole at the receiver once, in order, or lost because its device dropped it.
fn judge(world: &World) {
    let World { wire, lost, dropped, .. } = world;
    let mut whole = Vec::new();
    let (mut newest, mut joined) = (0, 0);
    for &Datagram { record, part } in wire {
        assert!(record >= newest, "out of order: {wire:?}");
        if record > newest || part == 0 {
            joined = 0;
        }
        newest = record;
        if part == joined {
            joined += 1;
            if joined == parts_of(record) {
                whole.push(record);
            }
        }
    }
    assert!(lost.iter().all(|record| dropped.contains(record)), "{lost:?} of {dropped:?}");
    // A part may have come by the first socket before the second one's device dropped it.
    if dropped.contains(&LONG) {
        whole.dedup();
    }
    for record in 0..RECORDS {
        let times = whole.iter().chain(lost).filter(|one| **one == record).count();
        assert_eq!(times, 1, "{record} of {wire:?}, lost {lost:?}, dropped {dropped:?}");
    }
}

/// Runs what the control thread does over all interleavings with pump and kernel,
/// while the first socket's device drops so many datagrams.
fn check(drops: usize, commands: impl Fn(&Shared) -> Vec<Command> + Send + Sync + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(move || {
        let world = Shared::default();
        world.lock().unwrap().rings[0].drops = drops;
        let (mut control, end) = handover(3);
        let flight = Flight::new(SLOTS + 1, 0);
        let worst = Fate::Sent;
        let (places, route) = ([None, None], None);
        let pump = Pump { end, places, route, flight, next: 0, worst, stopping: false };
        let pump = thread::spawn(move || pump.run());
        let kernel = {
            let world = Arc::clone(&world);
            thread::spawn(move || (0..SLOTS).for_each(|_| world.lock().unwrap().take(0)))
        };
        for mut command in commands(&world) {
            let boxes = usize::from(matches!(command, Command::Install(..)));
            // It never waits for the pump: a refusal leaves the command with it.
            while let Err((refused, _)) = control.send(command, boxes) {
                command = refused;
                drop(control.take_back());
                thread::yield_now();
            }
        }
        pump.join().unwrap();
        kernel.join().unwrap();
        while let Some(socket) = control.take_back() {
            drop(socket);
        }
        assert_eq!(control.lent(), 0);
        let world = world.lock().unwrap();
        judge(&world);
        assert!(world.rings.iter().all(|ring| ring.closed), "a socket leaked");
    });
}

fn replaced(world: &Shared) -> Vec<Command> {
    vec![
        Command::Install(0, Socket::open(0, world)),
        Command::Bind(0),
        Command::Install(0, Socket::open(1, world)),
        Command::Stop,
    ]
}

fn unbound(world: &Shared) -> Vec<Command> {
    vec![
        Command::Install(0, Socket::open(0, world)),
        Command::Bind(0),
        Command::Unbind,
        Command::Retire(0),
        Command::Install(1, Socket::open(1, world)),
        Command::Bind(1),
        Command::Stop,
    ]
}

fn moved(world: &Shared) -> Vec<Command> {
    vec![
        Command::Install(0, Socket::open(0, world)),
        Command::Install(1, Socket::open(1, world)),
        Command::Bind(0),
        Command::Bind(1),
        Command::Retire(0),
        Command::Stop,
    ]
}

#[test]
fn loom_a_socket_is_replaced_at_its_place() {
    check(0, replaced);
}

#[test]
fn loom_a_target_is_unbound_and_goes_on_with_another_socket() {
    check(0, unbound);
}

#[test]
fn loom_a_target_moves_while_its_old_socket_lives() {
    check(0, moved);
}

#[test]
fn loom_a_socket_whose_device_drops_is_replaced() {
    check(1, replaced);
    check(2, replaced);
}

#[test]
fn loom_a_target_moves_while_the_old_device_drops() {
    check(1, moved);
    check(2, moved);
}
