//! The manager's clock: what is due at which time, and what is looked after every second.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::task::AbortHandle;

use super::{Input, Manager};
use crate::{
    capture::wait::now_ns,
    clock,
    names::NameState,
    target::state::{Event, Reason, State, WaitKind},
};

/// Housekeeping, and faster while something is on its way.
const TICK: Duration = Duration::from_secs(1);
const TICK_BUSY: Duration = Duration::from_millis(20);
/// A socket that was given something and sends nothing for so long is stuck.
const STUCK_AFTER: Duration = Duration::from_secs(3);
/// After a suspend of this length the network is looked at anew.
const NOTABLE_SUSPEND_NS: u64 = 1_000_000_000;

impl Manager {
    pub(super) fn next_deadline(&self) -> Instant {
        let timers = self.lives.values().flat_map(|life| life.timers.values().copied());
        let (now, boot) = (Instant::now(), clock::since_boot());
        // The timer stands still in suspend, but not for longer than the tick takes after it.
        let keepalives = self.lives.values().filter_map(|life| life.keepalives.left(boot));
        let keepalives = keepalives.filter_map(|left| now.checked_add(left));
        let names =
            self.lives.values().filter_map(|life| life.name.as_ref()).map(NameState::next_at);
        timers.chain(keepalives).chain(names).chain([self.tick_at]).min().unwrap_or(self.tick_at)
    }

    pub(super) fn on_time(&mut self) {
        let now = Instant::now();
        for target in self.ids() {
            while let Some(timer) = self.lives.get_mut(&target).and_then(|life| life.due(now)) {
                self.handle(target, Event::Timer(timer));
            }
        }
        self.ask_for_names(now);
        self.keep_alive(clock::since_boot());
        if self.tick_at <= now {
            self.tick(now);
        }
    }

    /// The host was suspended for a while: addresses and neighbours may be others by now, and
    /// the timers for both stood still.
    pub(super) fn resumed(&mut self) {
        let now = Instant::now();
        self.lives.values_mut().filter_map(|life| life.name.as_mut()).for_each(|n| n.hurry(now));
        for target in self.ids() {
            self.handle(target, Event::Changed);
        }
    }

    /// What kept a name from being resolved may be over.
    pub(super) fn hurry_names(&mut self) {
        let now = Instant::now();
        let names = self.lives.values_mut().filter_map(|life| life.name.as_mut());
        names.filter(|name| name.failure().is_some()).for_each(|name| name.hurry(now));
    }

    pub(super) fn ask_for_names(&mut self, now: Instant) {
        for (target, life) in &mut self.lives {
            let target = *target;
            let Some(name) = life.name.as_mut().filter(|name| name.due(now)) else { continue };
            name.asked(now);
            let (names, sender) = (self.names.clone(), self.sender.clone());
            let host = name.host().to_owned();
            life.look_up.take().iter().for_each(AbortHandle::abort);
            let task = tokio::spawn(async move {
                // Nobody listens any more only when the agent ends.
                let answer = names.look_up(&host).await;
                let _ = sender.send(Input::Named(target, host, answer));
            });
            life.look_up = Some(task.abort_handle());
        }
    }

    pub(super) fn tick(&mut self, now: Instant) {
        self.take_back();
        let before_ns = self.suspended.total_ns();
        if self.suspended.look(now_ns(), clock::boot_ns()) > before_ns + NOTABLE_SUSPEND_NS {
            self.resumed();
        }
        let mut busy = !self.link.settle() || self.messages.is_busy() || !self.leaving.is_empty();
        busy |= self.send_after_crash(now);
        self.feed_tails();
        for (socket, errno) in self.sockets.failing(&self.link.stats) {
            self.socket_fails(socket, errno);
        }
        for target in self.ids() {
            let Some(life) = self.lives.get_mut(&target) else { continue };
            let ledger = life.shared.ledger.read();
            let stuck = life.is_stuck(now, &ledger, STUCK_AFTER);
            life.suspicion.sample(now, ledger.sent);
            life.tell_imbalance();
            life.old_settings.retain(|old| Arc::strong_count(old) > 1);
            if *life.machine.state() == State::Draining {
                busy = true;
                if ledger.in_flight == 0 {
                    self.handle(target, Event::Drained);
                }
            } else if stuck && let Some(former) = life.former.take() {
                // Others wait with that socket for its device, and this target's records
                // with them: it is closed for all, and gives back what it has.
                let text = "another target's records are stuck in the socket".to_owned();
                self.close_for_all(former, Reason { kind: WaitKind::SocketDead, text });
            } else if stuck {
                let text = "the socket sends nothing of what it was given".to_owned();
                life.fallback_reason = Some(text.clone());
                self.handle(target, Event::Stuck(Reason { kind: WaitKind::SocketDead, text }));
            }
        }
        self.refresh_extradata(now);
        self.tick_at = now + if busy { TICK_BUSY } else { TICK };
    }
}
