//! The feed of one `tail`: from whoever has the packets to the task of the client.
//!
//! It never waits. What the client does not take in time is left out and counted, and
//! the next packet that fits says how many.

use tokio::sync::mpsc;

use super::{super::protocol::Reply, server::Answer};

/// Packets that wait for one client.
const QUEUED_MAX: usize = 256;

/// The feeding end.
#[derive(Debug)]
pub struct Tail {
    sender: mpsc::Sender<Reply>,
    left_out: u64,
}

/// A feed, and what to answer to the request for it.
#[must_use]
pub fn tail() -> (Tail, Answer) {
    let (sender, receiver) = mpsc::channel(QUEUED_MAX);
    (Tail { sender, left_out: 0 }, Answer::Stream(receiver))
}

impl Tail {
    /// Passes on the payload of a packet that was sent, or counts it as left out.
    /// False once the client has gone away.
    pub fn offer(&mut self, payload: &[u8]) -> bool {
        match self.sender.try_reserve() {
            Ok(place) => {
                let left_out = std::mem::take(&mut self.left_out);
                place.send(Reply {
                    packet: Some(String::from_utf8_lossy(payload).into_owned()),
                    left_out: (left_out > 0).then_some(left_out),
                    ..Reply::done()
                });
                true
            }
            Err(mpsc::error::TrySendError::Full(())) => {
                self.left_out = self.left_out.saturating_add(1);
                true
            }
            Err(mpsc::error::TrySendError::Closed(())) => false,
        }
    }

    /// Counts packets that were left out before they came here.
    pub fn leave_out(&mut self, packets: u64) {
        self.left_out = self.left_out.saturating_add(packets);
    }

    /// Whether the client has gone away.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.sender.is_closed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_takes_is_left_out_and_counted() {
        let (mut tail, answer) = tail();
        let Answer::Stream(mut receiver) = answer else { panic!("no stream") };
        for number in 0..QUEUED_MAX + 10 {
            assert!(tail.offer(format!("{number}").as_bytes()));
        }
        tail.leave_out(5);
        for number in 0..QUEUED_MAX {
            let reply = receiver.try_recv().expect("a packet");
            assert_eq!(reply.packet, Some(number.to_string()));
            assert_eq!((reply.ok, reply.left_out), (true, None));
        }
        assert!(tail.offer(b"\xff next"));
        let next = receiver.try_recv().expect("a packet");
        assert_eq!(next.packet.as_deref(), Some("\u{fffd} next"));
        assert_eq!(next.left_out, Some(15));
        assert!(tail.offer(b"x"));
        assert_eq!(receiver.try_recv().expect("a packet").left_out, None);
        drop(receiver);
        assert!(tail.is_over());
        assert!(!tail.offer(b"x"));
    }
}
