//! Every order of events, in a small world: two devices, three kinds of socket,
//! answers that come late, twice or never.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};

use super::{machine::opening, *};

/// Device, kind (0 best, 2 last resort), and the next hop's MAC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct TestWay {
    device: u8,
    kind: u8,
    mac: u8,
}

impl Way for TestWay {
    type Key = (u8, u8);

    fn key(&self) -> (u8, u8) {
        (self.device, self.kind)
    }

    fn fallback(&self) -> Option<Self> {
        (self.kind < 2).then_some(Self { kind: self.kind + 1, ..*self })
    }
}

const A: TestWay = TestWay { device: 1, kind: 0, mac: 1 };
const A_NEW_MAC: TestWay = TestWay { mac: 2, ..A };
const B: TestWay = TestWay { device: 2, kind: 0, mac: 3 };

fn reason(kind: WaitKind) -> Reason {
    Reason { kind, text: String::new() }
}

/// Carries effects out, and refuses wrong ones.
#[derive(Clone)]
struct World {
    machine: Machine<TestWay>,
    /// Sockets that are claimed, with their keys.
    claims: BTreeMap<SocketId, (u8, u8)>,
    bound: Option<SocketId>,
    /// Unanswered looks: the newest, and one that was overtaken.
    looks: Vec<Ticket>,
    opens: Vec<(Ticket, TestWay)>,
    armed: BTreeSet<Timer>,
    sockets: u64,
    /// Waits for another look since it was last active.
    waits: u32,
    /// Better ways given up since one was used and lasted until the next look.
    given_up: u32,
    /// What happened, for the message of a failure.
    trace: Vec<String>,
}

impl World {
    fn new() -> Self {
        Self {
            machine: Machine::new(),
            claims: BTreeMap::new(),
            bound: None,
            looks: Vec::new(),
            opens: Vec::new(),
            armed: BTreeSet::new(),
            sockets: 0,
            waits: 0,
            given_up: 0,
            trace: Vec::new(),
        }
    }

    /// Everything that can happen now.
    fn possible(&self) -> Vec<Event<TestWay>> {
        let mut events = vec![
            Event::Enable,
            Event::Disable,
            Event::Changed,
            Event::Lost(reason(WaitKind::DeviceDown)),
            Event::Lost(reason(WaitKind::NoDevice)),
            Event::Stuck(reason(WaitKind::SocketDead)),
            Event::Drained,
        ];
        for look in &self.looks {
            events.extend([A, A_NEW_MAC, B].map(|way| Event::Looked(*look, Ok(way))));
            let kinds = [WaitKind::NoRoute, WaitKind::NoDevice, WaitKind::Unknown];
            events.extend(kinds.map(|kind| Event::Looked(*look, Err(reason(kind)))));
        }
        for (ticket, _) in &self.opens {
            events.push(Event::Opened(*ticket, SocketId(self.sockets + 1)));
            events.push(Event::OpenFailed(*ticket, reason(WaitKind::BindBusy)));
        }
        events.extend(self.armed.iter().map(|timer| Event::Timer(*timer)));
        let dead = |socket: &SocketId| Event::Dead(*socket, reason(WaitKind::SocketDead));
        events.extend(self.claims.keys().map(dead));
        events
    }

    fn step(&mut self, event: Event<TestWay>) {
        self.trace.push(format!("{event:?}"));
        let before = self.machine.clone();
        let is_off = matches!(before.state, State::Disabled | State::Draining);
        match &event {
            Event::Enable if is_off => (self.waits, self.given_up) = (0, 0),
            Event::Timer(Timer::Recheck)
                if before.state == State::Active && before.avoided.is_none() =>
            {
                self.given_up = 0;
            }
            _ => {}
        }
        match &event {
            Event::Looked(ticket, _) => self.looks.retain(|look| look != ticket),
            Event::Opened(ticket, socket) => {
                let at = self.opens.iter().position(|(open, _)| open == ticket).unwrap();
                let (_, way) = self.opens.remove(at);
                self.sockets += 1;
                self.claims.insert(*socket, way.key());
            }
            Event::OpenFailed(ticket, _) => self.opens.retain(|(open, _)| open != ticket),
            Event::Timer(timer) => {
                self.armed.remove(timer);
            }
            _ => {}
        }
        let effects = self.machine.handle(event.clone());
        self.judge_upgrade(&before, &event, &effects);
        for effect in effects {
            match effect {
                Effect::Look(ticket) => {
                    self.looks.push(ticket);
                    if self.looks.len() > 2 {
                        self.looks.remove(0);
                    }
                }
                Effect::Open(ticket, way) => {
                    self.opens.push((ticket, way));
                    // Only the newest two are told apart, to keep the world small.
                    if self.opens.len() > 2 {
                        self.opens.remove(0);
                    }
                }
                Effect::Bind(socket, way) => {
                    assert_eq!(
                        self.claims.get(&socket),
                        Some(&way.key()),
                        "bound to a wrong socket"
                    );
                    self.bound = Some(socket);
                    self.waits = 0;
                }
                Effect::Unbind => assert!(self.bound.take().is_some(), "unbound twice"),
                Effect::Release(socket) => {
                    assert!(self.claims.remove(&socket).is_some(), "released twice");
                    assert_ne!(self.bound, Some(socket), "released while in use");
                }
                Effect::Arm(timer, after) => {
                    assert!(!after.is_zero());
                    if timer == Timer::Retry {
                        let wanted = doubled(1, self.waits, 30);
                        assert_eq!(after.as_secs(), wanted, "no backoff: {:#?}", self.trace);
                        self.waits += 1;
                    }
                    self.armed.insert(timer);
                }
                Effect::Disarm(timer) => {
                    self.armed.remove(&timer);
                }
            }
        }
        self.check();
    }

    /// Each time a better way is given up, it takes longer until it is tried again.
    fn judge_upgrade(
        &mut self,
        before: &Machine<TestWay>,
        event: &Event<TestWay>,
        effects: &[Effect<TestWay>],
    ) {
        let gives_up = match event {
            Event::OpenFailed(..) => true,
            // The last resort has nothing worse to go to, and is not given up.
            Event::Stuck(_) => before.way().is_some_and(|way| way.fallback().is_some()),
            // Another way altogether has no past.
            Event::Looked(..) if before.avoided.is_some() && self.machine.avoided.is_none() => {
                self.given_up = 0;
                false
            }
            _ => false,
        };
        let after = effects.iter().rev().find_map(|effect| match effect {
            Effect::Arm(Timer::Upgrade, after) => Some(after.as_secs()),
            _ => None,
        });
        if let Some(after) = after.filter(|_| gives_up) {
            let wanted = doubled(5, self.given_up, 300);
            assert_eq!(after, wanted, "no backoff of the better way: {:#?}", self.trace);
            self.given_up += 1;
        }
    }

    fn check(&self) {
        let machine = &self.machine;
        let held = machine.socket();
        assert_eq!(self.bound.is_some(), machine.state == State::Active, "{machine:?}");
        assert_eq!(self.claims.keys().copied().collect::<Vec<_>>(), Vec::from_iter(held));
        let newest_look = machine.look.is_some() && machine.look == self.looks.last().copied();
        let opening = machine.opening.as_ref().map(|opening| opening.ticket);
        let newest_open = opening.is_some() && opening == self.opens.last().map(|open| open.0);
        assert_eq!(machine.look.is_some(), newest_look);
        assert_eq!(opening.is_some(), newest_open);
        match &machine.state {
            State::Disabled => {
                assert!(held.is_none() && self.armed.is_empty(), "{machine:?} {:?}", self.armed);
            }
            State::Waiting(_) => assert!(
                newest_look || newest_open || self.armed.contains(&Timer::Retry),
                "nothing ends this wait: {machine:?}"
            ),
            State::Active => {
                let sure = newest_look || self.armed.contains(&Timer::Recheck);
                assert!(sure, "nothing looks after {machine:?}");
                if machine.avoided.is_some() {
                    let back = newest_open || self.armed.contains(&Timer::Upgrade);
                    assert!(back, "the better way is forgotten: {machine:?}");
                }
            }
            State::Draining => assert!(self.armed.contains(&Timer::Drain)),
        }
    }

    /// From here on everything goes well: it must end active (or disabled, if switched off).
    fn ends_well(mut self) {
        for (ticket, _) in self.opens.clone() {
            if self.machine.opening.as_ref().is_none_or(|opening| opening.ticket != ticket) {
                let socket = SocketId(self.sockets + 1);
                self.step(Event::Opened(ticket, socket));
            }
        }
        for _ in 0..8 {
            if let Some((ticket, _)) = self.opens.last() {
                let (ticket, socket) = (*ticket, SocketId(self.sockets + 1));
                self.step(Event::Opened(ticket, socket));
            } else if let Some(look) = self.looks.last() {
                self.step(Event::Looked(*look, Ok(A)));
            } else if self.armed.contains(&Timer::Upgrade) {
                self.step(Event::Timer(Timer::Upgrade));
            } else if let Some(timer) =
                [Timer::Retry, Timer::Drain].into_iter().find(|timer| self.armed.contains(timer))
            {
                self.step(Event::Timer(timer));
            } else {
                break;
            }
        }
        match self.machine.state {
            State::Active => assert_eq!(
                self.machine.way().map(|way| way.kind),
                Some(0),
                "the best way is not taken in the end: {:#?} {:?}",
                self.trace,
                self.machine
            ),
            State::Disabled => assert!(self.claims.is_empty()),
            ref state => panic!("stuck in {state:?}"),
        }
    }

    /// The world without the numbers of tickets and sockets and with long delays taken as
    /// equal, to recognise it again.
    fn canonical(&self) -> String {
        let mut anonymous = self.machine.clone();
        anonymous.retries = anonymous.retries.min(FEW);
        anonymous.upgrades = anonymous.upgrades.min(FEW);
        anonymous.next_ticket = 0;
        anonymous.look = anonymous.look.map(|_| Ticket(0));
        if let Some(opening) = &mut anonymous.opening {
            opening.ticket = Ticket(0);
        }
        if let Some(held) = &mut anonymous.held {
            held.socket = SocketId(0);
        }
        let opens: Vec<_> = self.opens.iter().map(|(_, way)| way).collect();
        let times = (self.waits.min(FEW), self.given_up.min(FEW));
        format!("{anonymous:?} {times:?} {} {opens:?} {:?}", self.looks.len(), self.armed)
    }
}

/// Worlds that differ in what came more often than this are taken as the same.
const FEW: u32 = 1;

fn doubled(first: u64, times: u32, most: u64) -> u64 {
    (first << times.min(16)).min(most)
}

/// Walks breadth first through all worlds that differ, up to a number of events;
/// returns how many there are, and after how many events the last one came up.
fn explore(depth: usize) -> (usize, usize) {
    let mut deepest = 0;
    let mut seen = HashSet::from([World::new().canonical()]);
    let mut front = VecDeque::from([(World::new(), 0)]);
    while let Some((world, at)) = front.pop_front() {
        world.clone().ends_well();
        if at == depth {
            continue;
        }
        for event in world.possible() {
            let mut next = world.clone();
            next.step(event);
            if seen.insert(next.canonical()) {
                deepest = at + 1;
                front.push_back((next, at + 1));
            }
        }
    }
    (seen.len(), deepest)
}

#[test]
fn no_order_of_up_to_six_events_leaves_a_target_stuck() {
    let (worlds, _) = explore(6);
    assert!(worlds > 500, "only {worlds} worlds: the exploration does not explore");
}

/// Worlds that are the same again are not walked twice, so the walk comes to an end.
#[test]
fn no_order_of_events_leaves_a_target_stuck() {
    let (_, deepest) = explore(40);
    assert!(deepest < 40, "there may be worlds beyond 40 events");
}

fn active() -> World {
    let mut world = World::new();
    world.step(Event::Enable);
    world.step(Event::Looked(Ticket(1), Ok(A)));
    world.step(Event::Opened(Ticket(2), SocketId(1)));
    assert_eq!(world.machine.state, State::Active);
    world
}

#[test]
fn a_device_that_goes_down_and_comes_back_keeps_its_socket() {
    let mut world = active();
    let effects = world.machine.clone().handle(Event::Lost(reason(WaitKind::DeviceDown)));
    assert_eq!(effects, [Effect::Unbind, Effect::Disarm(Timer::Recheck), Effect::Look(Ticket(3))]);
    world.step(Event::Lost(reason(WaitKind::DeviceDown)));
    world.step(Event::Looked(Ticket(3), Err(reason(WaitKind::DeviceDown))));
    world.step(Event::Changed);
    world.step(Event::Looked(Ticket(4), Ok(A)));
    assert_eq!((world.bound, &world.machine.state), (Some(SocketId(1)), &State::Active));
}

#[test]
fn a_device_that_is_gone_takes_its_socket_along() {
    let mut world = active();
    world.step(Event::Lost(reason(WaitKind::NoDevice)));
    assert!(world.claims.is_empty());
    world.step(Event::Looked(Ticket(3), Ok(A)));
    assert_eq!(world.machine.state, State::Waiting(opening()));
}

#[test]
fn a_new_mac_needs_no_new_socket() {
    let mut world = active();
    world.step(Event::Changed);
    let answer = Event::Looked(Ticket(3), Ok(A_NEW_MAC));
    assert_eq!(world.machine.clone().handle(answer)[1], Effect::Bind(SocketId(1), A_NEW_MAC));
}

#[test]
fn another_device_is_used_after_nothing_more_goes_to_the_old_one() {
    let mut world = active();
    world.step(Event::Changed);
    world.step(Event::Looked(Ticket(3), Ok(B)));
    assert_eq!(world.bound, None);
    let effects = world.machine.clone().handle(Event::Opened(Ticket(4), SocketId(2)));
    let bind = effects.iter().position(|effect| *effect == Effect::Bind(SocketId(2), B));
    let release = effects.iter().position(|effect| *effect == Effect::Release(SocketId(1)));
    assert!(bind < release && bind.is_some(), "{effects:?}");
}

#[test]
fn not_being_able_to_ask_is_no_reason_to_stop_sending() {
    let mut world = active();
    world.step(Event::Changed);
    world.step(Event::Looked(Ticket(3), Err(reason(WaitKind::Unknown))));
    assert_eq!(world.machine.state, State::Active);
}

#[test]
fn a_busy_queue_falls_back_and_is_tried_again_while_the_other_way_works() {
    let mut world = World::new();
    world.step(Event::Enable);
    world.step(Event::Looked(Ticket(1), Ok(A)));
    world.step(Event::OpenFailed(Ticket(2), reason(WaitKind::BindBusy)));
    world.step(Event::Opened(Ticket(3), SocketId(1)));
    assert_eq!(world.machine.way().map(|way| way.kind), Some(1));
    // What the network does meanwhile does not bring the busy queue back.
    world.step(Event::Changed);
    world.step(Event::Looked(Ticket(4), Ok(A)));
    assert_eq!(world.machine.way().map(|way| way.kind), Some(1));
    let delays: Vec<_> = (0..8)
        .map(|_| {
            world.step(Event::Timer(Timer::Upgrade));
            assert_eq!(world.machine.state, State::Active);
            let (ticket, _) = *world.opens.last().unwrap();
            let busy = Event::OpenFailed(ticket, reason(WaitKind::BindBusy));
            let effects = world.machine.clone().handle(busy.clone());
            world.step(busy);
            match effects[..] {
                [Effect::Arm(Timer::Upgrade, after)] => after.as_secs(),
                _ => panic!("{effects:?}"),
            }
        })
        .collect();
    assert_eq!(delays, [10, 20, 40, 80, 160, 300, 300, 300]);
    world.step(Event::Timer(Timer::Upgrade));
    let (ticket, _) = *world.opens.last().unwrap();
    world.step(Event::Opened(ticket, SocketId(2)));
    assert_eq!(world.machine.way(), Some(&A));
}

#[test]
fn a_stuck_socket_is_given_up() {
    let mut world = active();
    world.step(Event::Stuck(reason(WaitKind::SocketDead)));
    assert!(world.claims.is_empty());
    assert_eq!(world.opens.last().map(|(_, way)| way.kind), Some(1));
}

/// A queue that binds and never sends must not take the target down every few seconds.
#[test]
fn a_way_that_opens_and_gets_stuck_is_tried_less_and_less() {
    let mut world = active();
    let stuck_and_up = |world: &mut World| {
        let stuck = Event::Stuck(reason(WaitKind::SocketDead));
        let effects = world.machine.clone().handle(stuck.clone());
        world.step(stuck);
        for _ in 0..2 {
            let (ticket, socket) = (world.opens.last().unwrap().0, SocketId(world.sockets + 1));
            world.step(Event::Opened(ticket, socket));
            if world.armed.contains(&Timer::Upgrade) {
                world.step(Event::Timer(Timer::Upgrade));
            }
        }
        assert_eq!(world.machine.way(), Some(&A));
        effects.iter().find_map(|effect| match effect {
            Effect::Arm(Timer::Upgrade, after) => Some(after.as_secs()),
            _ => None,
        })
    };
    let delays: Vec<_> = (0..8).filter_map(|_| stuck_and_up(&mut world)).collect();
    assert_eq!(delays, [5, 10, 20, 40, 80, 160, 300, 300]);
    // It has lasted: what was is forgotten.
    world.step(Event::Timer(Timer::Recheck));
    let look = *world.looks.last().unwrap();
    world.step(Event::Looked(look, Ok(A)));
    assert_eq!(stuck_and_up(&mut world), Some(5));
}

#[test]
fn a_socket_that_opens_after_the_target_was_switched_off_is_released() {
    let mut world = World::new();
    world.step(Event::Enable);
    world.step(Event::Looked(Ticket(1), Ok(A)));
    world.step(Event::Disable);
    assert_eq!(world.machine.state, State::Disabled);
    let late = Event::Opened(Ticket(2), SocketId(1));
    assert_eq!(world.machine.clone().handle(late.clone()), [Effect::Release(SocketId(1))]);
    world.step(late);
    assert_eq!(world.machine.state, State::Disabled);
}

#[test]
fn switching_off_lets_what_was_handed_over_leave() {
    let mut world = active();
    world.step(Event::Disable);
    assert_eq!((&world.machine.state, world.bound), (&State::Draining, None));
    assert_eq!(world.claims.len(), 1);
    world.step(Event::Drained);
    assert_eq!((&world.machine.state, world.claims.len()), (&State::Disabled, 0));
}

/// `egress = "xdp"` and a queue that another program keeps: the way is found each time, and
/// cannot be opened.
#[test]
fn a_way_without_another_that_cannot_be_opened_is_tried_less_and_less() {
    const LAST: TestWay = TestWay { kind: 2, ..A };
    let mut world = World::new();
    world.step(Event::Enable);
    let delays: Vec<_> = (0..7)
        .map(|_| {
            let look = *world.looks.last().unwrap();
            world.step(Event::Looked(look, Ok(LAST)));
            let busy = Event::OpenFailed(world.opens.last().unwrap().0, reason(WaitKind::BindBusy));
            let effects = world.machine.clone().handle(busy.clone());
            world.step(busy);
            world.step(Event::Timer(Timer::Retry));
            match effects[..] {
                [Effect::Arm(Timer::Retry, after)] => after.as_secs(),
                _ => panic!("{effects:?}"),
            }
        })
        .collect();
    assert_eq!(delays, [1, 2, 4, 8, 16, 30, 30]);
    let look = *world.looks.last().unwrap();
    world.step(Event::Looked(look, Ok(LAST)));
    let (ticket, _) = *world.opens.last().unwrap();
    world.step(Event::Opened(ticket, SocketId(1)));
    world.step(Event::Dead(SocketId(1), reason(WaitKind::SocketDead)));
    let look = *world.looks.last().unwrap();
    let effects = world.machine.handle(Event::Looked(look, Err(reason(WaitKind::NoRoute))));
    assert_eq!(effects, [Effect::Arm(Timer::Retry, Duration::from_secs(1))]);
}

#[test]
fn retries_slow_down() {
    let mut world = World::new();
    world.step(Event::Enable);
    let delays: Vec<_> = (0..7)
        .map(|_| {
            let look = *world.looks.last().unwrap();
            let answer = Event::Looked(look, Err(reason(WaitKind::NoRoute)));
            let effects = world.machine.clone().handle(answer.clone());
            world.step(answer);
            world.step(Event::Timer(Timer::Retry));
            match effects.last() {
                Some(Effect::Arm(Timer::Retry, after)) => after.as_secs(),
                _ => panic!("{effects:?}"),
            }
        })
        .collect();
    assert_eq!(delays, [1, 2, 4, 8, 16, 30, 30]);
}
