//! The model of a target that moves between two sockets: the hand-over and the
//! pump's book of what is on its way, both as they are in the agent, and around
//! them a pump, a control thread and a kernel that are as small as can be.
//!
//! * No frame is written to a retired socket.
//! * None is lost between two sockets: each leaves exactly once, in order.
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

const FRAMES: u64 = 3;
const SLOTS: usize = 2;

/// One socket as the kernel sees it.
#[derive(Default)]
struct Ring {
    frames: VecDeque<u64>,
    /// Frames that the kernel took and the pump was not told of.
    taken: usize,
    retired: bool,
    closed: bool,
}

/// What the threads and the kernel share.
#[derive(Default)]
struct World {
    rings: [Ring; 2],
    wire: Vec<u64>,
}

impl World {
    fn take(&mut self, id: usize) {
        let ring = &mut self.rings[id];
        if let Some(frame) = ring.frames.pop_front() {
            ring.taken += 1;
            self.wire.push(frame);
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
    fn push(&self, frame: u64) -> bool {
        let ring = &mut self.world.lock().unwrap().rings[self.id];
        assert!(!ring.retired, "a frame was written to a retired socket");
        let room = ring.frames.len() + ring.taken < SLOTS;
        if room {
            ring.frames.push_back(frame);
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

    fn reap(&self) -> usize {
        std::mem::take(&mut self.world.lock().unwrap().rings[self.id].taken)
    }

    /// Frames that were sent and not reaped, and frames that never will be.
    fn abandon(&self) -> (usize, usize) {
        let ring = &mut self.world.lock().unwrap().rings[self.id];
        ring.retired = true;
        (std::mem::take(&mut ring.taken), std::mem::take(&mut ring.frames).len())
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
        for _ in 0..FRAMES {
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
        for socket in self.places.iter().flatten() {
            socket.flush();
            (0..socket.reap()).for_each(|_| self.flight.settled(true));
        }
    }

    fn push_next(&mut self) -> bool {
        let Some(place) = self.route else { return false };
        let Some(socket) = &self.places[place] else { return false };
        let again = self.flight.next_again();
        let frame = again.unwrap_or(self.next);
        if frame == FRAMES || !self.flight.may_use(place) || !self.flight.has_room() {
            return false;
        }
        if !socket.push(frame) {
            return false;
        }
        self.flight.pushed();
        self.flight.is_in_flight(frame);
        self.next += u64::from(again.is_none());
        true
    }

    fn retire(&mut self, place: usize) {
        let Some(socket) = self.places[place].take() else { return };
        let (sent, unsent) = socket.abandon();
        (0..sent).for_each(|_| self.flight.settled(true));
        (0..unsent).for_each(|_| self.flight.given_back(true));
        self.flight.retired(place);
        self.end.give_back(socket);
    }
}

/// Runs what the control thread does over all interleavings with pump and kernel.
fn check(commands: impl Fn(&Shared) -> Vec<Command> + Send + Sync + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(move || {
        let world = Shared::default();
        let (mut control, end) = handover(3);
        let flight = Flight::new(SLOTS + 1, 0);
        let (places, route) = ([None, None], None);
        let pump = Pump { end, places, route, flight, next: 0, stopping: false };
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
        assert_eq!(world.wire, [0, 1, 2]);
        assert!(world.rings.iter().all(|ring| ring.closed), "a socket leaked");
    });
}

#[test]
fn loom_a_socket_is_replaced_at_its_place() {
    check(|world| {
        vec![
            Command::Install(0, Socket::open(0, world)),
            Command::Bind(0),
            Command::Install(0, Socket::open(1, world)),
            Command::Stop,
        ]
    });
}

#[test]
fn loom_a_target_is_unbound_and_goes_on_with_another_socket() {
    check(|world| {
        vec![
            Command::Install(0, Socket::open(0, world)),
            Command::Bind(0),
            Command::Unbind,
            Command::Retire(0),
            Command::Install(1, Socket::open(1, world)),
            Command::Bind(1),
            Command::Stop,
        ]
    });
}

#[test]
fn loom_a_target_moves_while_its_old_socket_lives() {
    check(|world| {
        vec![
            Command::Install(0, Socket::open(0, world)),
            Command::Install(1, Socket::open(1, world)),
            Command::Bind(0),
            Command::Bind(1),
            Command::Retire(0),
            Command::Stop,
        ]
    });
}
