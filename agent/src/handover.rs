//! The handing over between the control thread and the pump.
//!
//! What the pump uses and somebody else must build or close (sockets, header
//! templates) is lent as owned boxes through a ring of commands, and comes back
//! through a ring of returns to be dropped. So nothing can be torn down while it
//! is in use, and neither thread waits for the other:
//!
//! * The control thread lends at most as many boxes as the ring of returns can
//!   hold, so the pump can always give back.
//! * A full ring of commands is an error for the control thread, which tries later.
//!
//! The rings are `rtrb`'s; under loom they are replaced by a model, so that the
//! tests check this protocol over all interleavings.

use queue::{Consumer, Producer, ring};

/// The control thread could not lend: the pump is too far behind.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum LendError {
    /// The ring of commands is full.
    #[error("the pump has not taken {0} earlier commands yet; trying again later")]
    CommandsFull(usize),
    /// As many boxes are lent as can be given back.
    #[error("{0} sockets and templates are lent to the pump, which is the most it can hold")]
    AllLent(usize),
}

/// The end of the control thread.
pub struct ControlEnd<C, B> {
    commands: Producer<C>,
    returns: Consumer<B>,
    lent: usize,
    capacity: usize,
}

/// The end of the pump.
pub struct PumpEnd<C, B> {
    commands: Consumer<C>,
    returns: Producer<B>,
}

/// Joins two ends; `capacity` bounds the commands in flight and the boxes lent.
#[must_use]
pub fn handover<C, B>(capacity: usize) -> (ControlEnd<C, B>, PumpEnd<C, B>) {
    let (command_producer, command_consumer) = ring(capacity);
    let (return_producer, return_consumer) = ring(capacity);
    (
        ControlEnd { commands: command_producer, returns: return_consumer, lent: 0, capacity },
        PumpEnd { commands: command_consumer, returns: return_producer },
    )
}

impl<C, B> ControlEnd<C, B> {
    /// Sends a command that lends `boxes` boxes.
    ///
    /// # Errors
    /// With the command, if it cannot be sent now; nothing was lent.
    pub fn send(&mut self, command: C, boxes: usize) -> Result<(), (C, LendError)> {
        if self.lent + boxes > self.capacity {
            return Err((command, LendError::AllLent(self.lent)));
        }
        match self.commands.push(command) {
            Ok(()) => {
                self.lent += boxes;
                Ok(())
            }
            Err(command) => Err((command, LendError::CommandsFull(self.capacity))),
        }
    }

    /// Takes back the next box that the pump has given up.
    pub fn take_back(&mut self) -> Option<B> {
        let returned = self.returns.pop()?;
        self.lent -= 1;
        Some(returned)
    }

    /// Boxes that the pump holds.
    #[must_use]
    pub fn lent(&self) -> usize {
        self.lent
    }
}

impl<C, B> PumpEnd<C, B> {
    /// The next command.
    pub fn receive(&mut self) -> Option<C> {
        self.commands.pop()
    }

    /// Whether a command waits.
    #[must_use]
    pub fn has_command(&self) -> bool {
        !self.commands.is_empty()
    }

    /// Gives a box back. There is always room: no more boxes are lent than the
    /// ring holds. Were that ever wrong, the box would be dropped here, which is
    /// slow but safe.
    pub fn give_back(&mut self, lent: B) {
        let given = self.returns.push(lent);
        debug_assert!(given.is_ok(), "more boxes came back than were lent");
    }
}

#[cfg(not(agent_loom))]
mod queue {
    pub(super) struct Producer<T>(rtrb::Producer<T>);
    pub(super) struct Consumer<T>(rtrb::Consumer<T>);

    pub(super) fn ring<T>(capacity: usize) -> (Producer<T>, Consumer<T>) {
        let (producer, consumer) = rtrb::RingBuffer::new(capacity);
        (Producer(producer), Consumer(consumer))
    }

    impl<T> Producer<T> {
        pub(super) fn push(&mut self, value: T) -> Result<(), T> {
            self.0.push(value).map_err(|rtrb::PushError::Full(value)| value)
        }
    }

    impl<T> Consumer<T> {
        pub(super) fn pop(&mut self) -> Option<T> {
            self.0.pop().ok()
        }

        pub(super) fn is_empty(&self) -> bool {
            self.0.is_empty()
        }
    }
}

#[cfg(agent_loom)]
mod queue {
    use std::collections::VecDeque;

    use loom::sync::{Arc, Mutex};

    pub(super) struct Producer<T>(Arc<Mutex<VecDeque<T>>>, usize);
    pub(super) struct Consumer<T>(Arc<Mutex<VecDeque<T>>>);

    pub(super) fn ring<T>(capacity: usize) -> (Producer<T>, Consumer<T>) {
        let queue = Arc::new(Mutex::new(VecDeque::new()));
        (Producer(Arc::clone(&queue), capacity), Consumer(queue))
    }

    impl<T> Producer<T> {
        pub(super) fn push(&mut self, value: T) -> Result<(), T> {
            let mut queue = self.0.lock().unwrap();
            if queue.len() >= self.1 {
                return Err(value);
            }
            queue.push_back(value);
            Ok(())
        }
    }

    impl<T> Consumer<T> {
        pub(super) fn pop(&mut self) -> Option<T> {
            self.0.lock().unwrap().pop_front()
        }

        pub(super) fn is_empty(&self) -> bool {
            self.0.lock().unwrap().is_empty()
        }
    }
}

#[cfg(all(test, agent_loom))]
mod loom_tests {
    use loom::{
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        thread,
    };

    use super::*;

    /// A stand-in for a socket: knows how many of its kind are open, and whether
    /// it was used after it was given back.
    struct Socket {
        open: Arc<AtomicUsize>,
        retired: bool,
    }

    impl Socket {
        fn open(open: &Arc<AtomicUsize>) -> Box<Self> {
            open.fetch_add(1, Ordering::SeqCst);
            Box::new(Self { open: Arc::clone(open), retired: false })
        }

        fn send(&self) {
            assert!(!self.retired, "sent through a retired socket");
        }
    }

    impl Drop for Socket {
        fn drop(&mut self) {
            assert!(self.retired, "a socket was closed while it was lent");
            self.open.fetch_sub(1, Ordering::SeqCst);
        }
    }

    enum Command {
        Use(Box<Socket>),
        Stop,
    }

    #[test]
    fn loom_a_socket_is_closed_by_the_control_thread_after_its_last_use() {
        loom::model(|| {
            let open = Arc::new(AtomicUsize::new(0));
            let (mut control, mut pump) = handover::<Command, Box<Socket>>(2);
            let pump_thread = thread::spawn(move || {
                let mut current: Option<Box<Socket>> = None;
                loop {
                    match pump.receive() {
                        Some(Command::Use(socket)) => {
                            if let Some(mut old) = current.replace(socket) {
                                old.retired = true;
                                pump.give_back(old);
                            }
                        }
                        Some(Command::Stop) => break,
                        None => thread::yield_now(),
                    }
                    if let Some(socket) = &current {
                        socket.send();
                    }
                }
                if let Some(mut last) = current.take() {
                    last.retired = true;
                    pump.give_back(last);
                }
            });
            for _ in 0..2 {
                let mut command = Command::Use(Socket::open(&open));
                // It never waits for the pump: a refusal leaves the command with it.
                while let Err((refused, _)) = control.send(command, 1) {
                    command = refused;
                    drop(control.take_back());
                    thread::yield_now();
                }
            }
            let mut stop = Command::Stop;
            while let Err((refused, _)) = control.send(stop, 0) {
                stop = refused;
                thread::yield_now();
            }
            pump_thread.join().unwrap();
            while let Some(socket) = control.take_back() {
                drop(socket);
            }
            assert_eq!(control.lent(), 0);
            assert_eq!(open.load(Ordering::SeqCst), 0, "a socket leaked");
        });
    }
}

#[cfg(all(test, not(agent_loom)))]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_lent_than_can_come_back() {
        let (mut control, mut pump) = handover::<Box<u32>, Box<u32>>(2);
        control.send(Box::new(1), 1).unwrap();
        control.send(Box::new(2), 1).unwrap();
        let (refused, error) = control.send(Box::new(3), 1).unwrap_err();
        assert_eq!((*refused, error), (3, LendError::AllLent(2)));
        while let Some(lent) = pump.receive() {
            pump.give_back(lent);
        }
        assert_eq!(control.take_back(), Some(Box::new(1)));
        control.send(refused, 1).unwrap();
        assert_eq!(control.take_back(), Some(Box::new(2)));
        assert_eq!(control.lent(), 1);
    }
}
