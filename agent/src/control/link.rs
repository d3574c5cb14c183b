//! The control thread's end of the handover to the pump, with what the pump could not take yet.

use std::{collections::VecDeque, sync::Arc};

use crate::{
    capture::wake::Waker,
    handover::ControlEnd,
    pump::{Command, PumpStats, Returned},
};

/// See the module's description.
pub(super) struct PumpLink {
    control: ControlEnd<Command, Returned>,
    /// What the pump could not take yet, in order, with the number of boxes lent.
    outbox: VecDeque<(Command, usize)>,
    waker: Arc<Waker>,
    pub(super) stats: Arc<PumpStats>,
}

impl PumpLink {
    pub(super) fn new(
        control: ControlEnd<Command, Returned>,
        waker: Arc<Waker>,
        stats: Arc<PumpStats>,
    ) -> Self {
        Self { control, outbox: VecDeque::new(), waker, stats }
    }

    /// Sends a command, now or when the pump can take it.
    pub(super) fn send(&mut self, command: Command) {
        let boxes = usize::from(command.lends());
        self.outbox.push_back((command, boxes));
        self.settle();
    }

    /// Sends what the pump could not take before. True if nothing is left to be sent.
    pub(super) fn settle(&mut self) -> bool {
        let mut sent = false;
        while let Some((command, boxes)) = self.outbox.pop_front() {
            match self.control.send(command, boxes) {
                Ok(()) => sent = true,
                Err((command, _)) => {
                    self.outbox.push_front((command, boxes));
                    break;
                }
            }
        }
        if sent {
            self.waker.wake();
        }
        self.outbox.is_empty()
    }

    /// What the pump has given back.
    pub(super) fn take_back(&mut self) -> Option<Returned> {
        self.control.take_back()
    }
}
