//! Messages to one target that are no records: from operators, keepalives, and notices of the
//! pump's own.
//!
//! They come composed, wait here until the target has a way, and go out before its next
//! record. They have no place in the order of seq and in the account of the records, and are
//! counted for themselves.

use std::collections::VecDeque;

use crate::{
    message::{Kind, compose_into},
    netconsole::DATAGRAM_MAX_BYTES,
};

/// Most messages of one target that wait or are in flight.
const MESSAGES_MAX: usize = 32;

/// Number of a notice about a filter's rate.
pub(super) const NOTICE: u32 = u32::MAX;
/// Number of a notice about records that are missing.
pub(super) const GAP_NOTICE: u32 = u32::MAX - 1;

/// Number of every copy of a record that was sent before.
pub(super) const COPY: u32 = u32::MAX - 2;

/// The number of the message after the one with this number: never one that notices have.
#[must_use]
pub fn next_number(number: u32) -> u32 {
    number.wrapping_add(1) % COPY
}

/// A composed message.
#[derive(Debug)]
pub struct Message {
    /// Grows from message to message; the three largest are taken.
    pub number: u32,
    /// The datagram's payload.
    pub payload: Box<[u8]>,
    /// Whether the kernel took it; known when it comes back.
    pub sent: bool,
}

impl Message {
    /// A message that is to be sent.
    #[must_use]
    pub fn new(number: u32, payload: Box<[u8]>) -> Box<Self> {
        Box::new(Self { number, payload, sent: false })
    }
}

/// The messages of one target, oldest first: at the front those in flight.
pub(super) struct Messages {
    queue: VecDeque<Box<Message>>,
    in_flight: usize,
    /// One that cannot be sent, until it is given back.
    refused: Option<Box<Message>>,
    /// A notice that is still to be sent; it is copied into the socket, and not sent again if
    /// that is retired.
    notice: Box<[u8; DATAGRAM_MAX_BYTES]>,
    notice_bytes: usize,
    notice_number: u32,
}

impl Messages {
    pub(super) fn new() -> Self {
        Self {
            queue: VecDeque::with_capacity(MESSAGES_MAX),
            in_flight: 0,
            refused: None,
            notice: Box::new([0; DATAGRAM_MAX_BYTES]),
            notice_bytes: 0,
            notice_number: NOTICE,
        }
    }

    /// Takes a message, or gives it back if there are too many.
    pub(super) fn take(&mut self, message: Box<Message>) -> Result<(), Box<Message>> {
        if self.queue.len() >= MESSAGES_MAX {
            return Err(message);
        }
        self.queue.push_back(message);
        Ok(())
    }

    /// Whether another notice may be made.
    pub(super) fn has_room_for_notice(&self) -> bool {
        self.notice_bytes == 0
    }

    /// Makes a notice, which goes out before all else.
    pub(super) fn set_notice(&mut self, number: u32, text: &[u8], extra: &[u8]) {
        self.notice_number = number;
        let notice = &mut self.notice[..];
        // Much extra data may leave no room; the text always has it.
        self.notice_bytes = compose_into(notice, Kind::Notice, text, extra)
            .or_else(|_| compose_into(notice, Kind::Notice, text, &[]))
            .unwrap_or(0);
    }

    /// Number and payload of the next one to be sent.
    pub(super) fn next(&self) -> Option<(u32, &[u8])> {
        if self.notice_bytes > 0 {
            return Some((self.notice_number, &self.notice[..self.notice_bytes]));
        }
        if self.refused.is_some() {
            return None;
        }
        self.queue.get(self.in_flight).map(|message| (message.number, &*message.payload))
    }

    /// The next one was pushed.
    pub(super) fn pushed(&mut self) {
        if self.notice_bytes > 0 {
            self.notice_bytes = 0;
        } else {
            self.in_flight += 1;
        }
    }

    /// The next one cannot be sent this way.
    pub(super) fn refuse_next(&mut self) {
        if self.notice_bytes > 0 {
            self.notice_bytes = 0;
        } else {
            self.refused = self.queue.remove(self.in_flight);
        }
    }

    /// One that could not be sent.
    pub(super) fn take_refused(&mut self) -> Option<Box<Message>> {
        self.refused.take()
    }

    /// The fate of one in flight is known.
    pub(super) fn settled(&mut self, number: u32) -> Option<Box<Message>> {
        let at = self.in_flight(number)?;
        self.in_flight -= 1;
        self.queue.remove(at)
    }

    /// A socket that is retired gives one back: it is sent again, before newer ones. False for a
    /// notice, which is not.
    pub(super) fn given_back(&mut self, number: u32) -> bool {
        if let Some(at) = self.in_flight(number)
            && let Some(message) = self.queue.remove(at)
        {
            self.in_flight -= 1;
            let waiting = self.queue.iter().skip(self.in_flight);
            let older = waiting.take_while(|other| other.number < message.number).count();
            // There is room: it was taken out just now.
            self.queue.insert(self.in_flight + older, message);
        }
        number < COPY
    }

    fn in_flight(&self, number: u32) -> Option<usize> {
        self.queue.iter().take(self.in_flight).position(|message| message.number == number)
    }

    /// All of them, when the target is removed.
    pub(super) fn next_left(&mut self) -> Option<Box<Message>> {
        self.in_flight = 0;
        self.take_refused().or_else(|| self.queue.pop_front())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_message_has_the_number_of_a_notice() {
        assert_eq!([0, 7, COPY - 2].map(next_number), [1, 8, COPY - 1]);
        assert_eq!(next_number(COPY - 1), 0);
        const { assert!(COPY < GAP_NOTICE && GAP_NOTICE < NOTICE) };
    }
}
