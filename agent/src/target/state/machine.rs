//! The transitions. Each handler changes the state and pushes what is to be done.

use std::time::Duration;

use super::{Effect, Event, Reason, SocketId, State, Ticket, Timer, WaitKind, Way};

/// Wait before a target without a way is looked at again: the first, and the longest.
/// Mostly an event of the network comes first.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(30);
/// An active target is looked at this often even if nothing happens: an event may have been missed.
/// It is also how often the neighbour's last confirmation is looked at.
const RECHECK: Duration = Duration::from_secs(15);
/// Wait before a better way out is tried again: the first, and the longest.
const UPGRADE_FIRST: Duration = Duration::from_secs(5);
const UPGRADE_MAX: Duration = Duration::from_secs(300);
/// What was handed to the socket of a disabled target may leave for this long.
const DRAIN: Duration = Duration::from_secs(1);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Held<W> {
    pub(super) socket: SocketId,
    pub(super) way: W,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Opening<W> {
    pub(super) ticket: Ticket,
    pub(super) way: W,
}

/// See the description of [`super`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Machine<W> {
    pub(super) state: State,
    pub(super) look: Option<Ticket>,
    pub(super) opening: Option<Opening<W>>,
    /// The socket that is claimed; the pump uses it exactly in the state `Active`.
    pub(super) held: Option<Held<W>>,
    /// A way that could not be opened or got stuck; not taken before the timer `Upgrade`.
    pub(super) avoided: Option<W>,
    /// Waits since it was last active.
    pub(super) retries: u32,
    /// Times a better way was given up since one has lasted.
    pub(super) upgrades: u32,
    pub(super) next_ticket: u64,
}

type Effects<W> = Vec<Effect<W>>;

impl<W: Way> Default for Machine<W> {
    fn default() -> Self {
        Self::new()
    }
}

impl<W: Way> Machine<W> {
    /// A target that is switched off.
    #[must_use]
    pub fn new() -> Self {
        Self {
            state: State::Disabled,
            look: None,
            opening: None,
            held: None,
            avoided: None,
            retries: 0,
            upgrades: 0,
            next_ticket: 0,
        }
    }

    /// Where it is.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The way in use, or last used while its socket is still claimed.
    #[must_use]
    pub fn way(&self) -> Option<&W> {
        self.held.as_ref().map(|held| &held.way)
    }

    /// The socket that is claimed.
    #[must_use]
    pub fn socket(&self) -> Option<SocketId> {
        self.held.as_ref().map(|held| held.socket)
    }

    /// The better way that is not taken for the time being.
    #[must_use]
    pub fn avoided(&self) -> Option<&W> {
        self.avoided.as_ref()
    }

    /// Whether no look is under way, and no opening that the target waits for.
    #[must_use]
    pub fn is_decided(&self) -> bool {
        self.look.is_none() && (self.state == State::Active || self.opening.is_none())
    }

    /// Takes one event and tells what to do, in order.
    pub fn handle(&mut self, event: Event<W>) -> Effects<W> {
        let mut effects = Vec::new();
        match event {
            Event::Enable => self.enable(&mut effects),
            Event::Disable => self.disable(&mut effects),
            Event::Changed => self.changed(&mut effects),
            Event::Lost(reason) => self.lost(reason, &mut effects),
            Event::Looked(ticket, answer) => {
                if self.look == Some(ticket) {
                    self.look = None;
                    match answer {
                        Ok(way) => self.found(way, &mut effects),
                        Err(reason) => self.no_way(reason, &mut effects),
                    }
                }
            }
            Event::Opened(ticket, socket) => self.opened(ticket, socket, &mut effects),
            Event::OpenFailed(ticket, reason) => {
                if let Some(opening) = self.opening.take_if(|opening| opening.ticket == ticket) {
                    self.open_failed(opening.way, reason, &mut effects);
                }
            }
            Event::Dead(socket, reason) => {
                if self.socket() == Some(socket) {
                    self.give_up_socket(reason, &mut effects);
                }
            }
            Event::Stuck(reason) => self.stuck(reason, &mut effects),
            Event::Timer(timer) => self.timer(timer, &mut effects),
            Event::Drained => {
                if self.state == State::Draining {
                    self.end(&mut effects);
                }
            }
        }
        effects
    }

    fn is_on(&self) -> bool {
        matches!(self.state, State::Waiting(_) | State::Active)
    }

    fn enable(&mut self, effects: &mut Effects<W>) {
        if !self.is_on() {
            effects.push(Effect::Disarm(Timer::Drain));
            (self.retries, self.upgrades) = (0, 0);
            self.wait_for(starting(), effects);
            self.look(effects);
        }
    }

    fn disable(&mut self, effects: &mut Effects<W>) {
        if !self.is_on() {
            return;
        }
        if self.state == State::Active {
            effects.push(Effect::Unbind);
        }
        for timer in [Timer::Retry, Timer::Recheck, Timer::Upgrade] {
            effects.push(Effect::Disarm(timer));
        }
        (self.look, self.opening, self.avoided) = (None, None, None);
        if self.held.is_some() {
            self.state = State::Draining;
            effects.push(Effect::Arm(Timer::Drain, DRAIN));
        } else {
            self.state = State::Disabled;
        }
    }

    fn end(&mut self, effects: &mut Effects<W>) {
        effects.push(Effect::Disarm(Timer::Drain));
        self.release(effects);
        self.state = State::Disabled;
    }

    fn changed(&mut self, effects: &mut Effects<W>) {
        if self.is_on() {
            self.look(effects);
        }
    }

    fn lost(&mut self, reason: Reason, effects: &mut Effects<W>) {
        if !self.is_on() {
            return;
        }
        if reason.kind == WaitKind::NoDevice && self.held.is_some() {
            // It may come back with the same index; the socket will not.
            self.give_up_socket(reason, effects);
            return;
        }
        if self.state == State::Active {
            self.wait_for(reason, effects);
        }
        self.look(effects);
    }

    fn found(&mut self, way: W, effects: &mut Effects<W>) {
        // What is remembered or under way may have changed in everything but the socket.
        match &mut self.avoided {
            Some(avoided) if avoided.key() == way.key() => *avoided = way.clone(),
            Some(_) => {
                self.upgrades = 0;
                self.forget_avoided(effects);
            }
            None => {}
        }
        if let Some(opening) = &mut self.opening
            && opening.way.key() == way.key()
        {
            opening.way = way.clone();
        }
        let way = self.instead_of_avoided(way);
        self.take(way, opening(), effects);
    }

    /// Uses the socket that is claimed, if it is the right one, or asks for another.
    fn take(&mut self, way: W, reason: Reason, effects: &mut Effects<W>) {
        match &mut self.held {
            Some(held) if held.way.key() == way.key() => {
                if self.state != State::Active {
                    self.opening = None;
                }
                if self.state != State::Active || held.way != way {
                    held.way = way.clone();
                    let socket = held.socket;
                    self.activate(socket, way, effects);
                }
                effects.push(Effect::Arm(Timer::Recheck, RECHECK));
            }
            // The way that was used is not the right one any more: what would still be
            // sent there might not arrive.
            _ => self.open(way, reason, effects),
        }
    }

    fn no_way(&mut self, reason: Reason, effects: &mut Effects<W>) {
        if self.state == State::Active && reason.kind == WaitKind::Unknown {
            // Not being able to ask is no reason to stop sending.
            effects.push(Effect::Arm(Timer::Recheck, RETRY_FIRST));
            return;
        }
        let device_is_gone = reason.kind == WaitKind::NoDevice;
        self.wait_for(reason, effects);
        self.opening = None;
        if device_is_gone {
            self.release(effects);
        }
        self.retry(effects);
    }

    fn open(&mut self, way: W, reason: Reason, effects: &mut Effects<W>) {
        self.wait_for(reason, effects);
        match &mut self.opening {
            Some(opening) if opening.way.key() == way.key() => opening.way = way,
            _ => self.ask_to_open(way, effects),
        }
    }

    fn ask_to_open(&mut self, way: W, effects: &mut Effects<W>) {
        let ticket = self.ticket();
        self.opening = Some(Opening { ticket, way: way.clone() });
        effects.push(Effect::Open(ticket, way));
    }

    fn opened(&mut self, ticket: Ticket, socket: SocketId, effects: &mut Effects<W>) {
        let Some(opening) = self.opening.take_if(|opening| opening.ticket == ticket) else {
            effects.push(Effect::Release(socket));
            return;
        };
        let way = opening.way;
        if self.avoided.as_ref().is_some_and(|avoided| avoided.key() == way.key()) {
            self.forget_avoided(effects);
        }
        let old = self.held.replace(Held { socket, way: way.clone() });
        self.activate(socket, way, effects);
        effects.push(Effect::Arm(Timer::Recheck, RECHECK));
        // Only now: what the old socket has not sent yet goes out on the new one.
        effects.extend(old.map(|old| Effect::Release(old.socket)));
    }

    fn open_failed(&mut self, way: W, reason: Reason, effects: &mut Effects<W>) {
        if self.state == State::Active {
            // It was an upgrade; the way in use still works.
            self.avoid(way, effects);
            return;
        }
        match way.fallback() {
            Some(next) => {
                self.avoid(way, effects);
                self.take(next, reason, effects);
            }
            None => {
                self.wait_for(reason, effects);
                self.retry(effects);
            }
        }
    }

    fn stuck(&mut self, reason: Reason, effects: &mut Effects<W>) {
        if self.state != State::Active {
            return;
        }
        let Some(held) = &self.held else { return };
        let way = held.way.clone();
        self.wait_for(reason.clone(), effects);
        self.release(effects);
        match way.fallback() {
            Some(next) => {
                self.avoid(way, effects);
                self.open(next, reason, effects);
            }
            None => self.look(effects),
        }
    }

    fn timer(&mut self, timer: Timer, effects: &mut Effects<W>) {
        match timer {
            Timer::Retry => self.changed(effects),
            Timer::Recheck => {
                // Being open is no proof: a queue that binds and never sends comes this far
                // each time. One that has lasted until now was worth the change.
                if self.state == State::Active && self.avoided.is_none() {
                    self.upgrades = 0;
                }
                self.changed(effects);
            }
            Timer::Upgrade => self.upgrade(effects),
            Timer::Drain => {
                if self.state == State::Draining {
                    self.end(effects);
                }
            }
        }
    }

    fn upgrade(&mut self, effects: &mut Effects<W>) {
        let Some(way) = self.avoided.clone().filter(|_| self.is_on()) else { return };
        if self.opening.is_some() {
            effects.push(Effect::Arm(Timer::Upgrade, UPGRADE_FIRST));
        } else if self.state == State::Active {
            self.ask_to_open(way, effects);
        } else {
            self.avoided = None;
            self.look(effects);
        }
    }

    /// The socket is no use any more; a new one may be.
    fn give_up_socket(&mut self, reason: Reason, effects: &mut Effects<W>) {
        if self.is_on() {
            self.wait_for(reason, effects);
            self.release(effects);
            self.look(effects);
        } else {
            self.end(effects);
        }
    }

    fn activate(&mut self, socket: SocketId, way: W, effects: &mut Effects<W>) {
        self.state = State::Active;
        // Not sooner: a way that is found and cannot be opened is no success.
        self.retries = 0;
        effects.push(Effect::Disarm(Timer::Retry));
        effects.push(Effect::Bind(socket, way));
    }

    /// Stops sending where it does, and waits.
    fn wait_for(&mut self, reason: Reason, effects: &mut Effects<W>) {
        if self.state == State::Active {
            effects.push(Effect::Unbind);
            effects.push(Effect::Disarm(Timer::Recheck));
            // An upgrade is not what this target needs now.
            if self.opening.take().is_some() {
                effects.push(Effect::Arm(Timer::Upgrade, UPGRADE_FIRST));
            }
        }
        self.state = State::Waiting(reason);
    }

    fn release(&mut self, effects: &mut Effects<W>) {
        effects.extend(self.held.take().map(|held| Effect::Release(held.socket)));
    }

    fn look(&mut self, effects: &mut Effects<W>) {
        let ticket = self.ticket();
        self.look = Some(ticket);
        effects.push(Effect::Look(ticket));
    }

    fn retry(&mut self, effects: &mut Effects<W>) {
        effects.push(Effect::Arm(Timer::Retry, backoff(RETRY_FIRST, RETRY_MAX, self.retries)));
        self.retries += 1;
    }

    fn avoid(&mut self, way: W, effects: &mut Effects<W>) {
        // If the second best fails as well, the best is still what to come back to.
        let second = self.avoided.as_ref().and_then(W::fallback).map(|second| second.key());
        if second != Some(way.key()) {
            self.avoided = Some(way);
        }
        let after = backoff(UPGRADE_FIRST, UPGRADE_MAX, self.upgrades);
        self.upgrades += 1;
        effects.push(Effect::Arm(Timer::Upgrade, after));
    }

    fn forget_avoided(&mut self, effects: &mut Effects<W>) {
        self.avoided = None;
        effects.push(Effect::Disarm(Timer::Upgrade));
        if self.state == State::Active {
            self.opening = None;
        }
    }

    /// The way to take while the best one is avoided: the next best, or one further
    /// down that is in use or being opened.
    fn instead_of_avoided(&self, way: W) -> W {
        if self.avoided.as_ref().is_none_or(|avoided| avoided.key() != way.key()) {
            return way;
        }
        let Some(next) = way.fallback() else { return way };
        let taken = [
            self.held.as_ref().map(|held| held.way.key()),
            self.opening.as_ref().map(|opening| opening.way.key()),
        ];
        next.fallback().filter(|last| taken.contains(&Some(last.key()))).unwrap_or(next)
    }

    fn ticket(&mut self) -> Ticket {
        self.next_ticket += 1;
        Ticket(self.next_ticket)
    }
}

fn starting() -> Reason {
    Reason { kind: WaitKind::Starting, text: "its way is looked for".to_owned() }
}

pub(super) fn opening() -> Reason {
    Reason { kind: WaitKind::Opening, text: "its socket is being opened".to_owned() }
}

fn backoff(first: Duration, max: Duration, times: u32) -> Duration {
    first.saturating_mul(1 << times.min(16)).min(max)
}
