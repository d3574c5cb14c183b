//! The records of one target that are on their way: in flight, or given back by a
//! socket that was retired and to be sent again. Nothing of it is known to the
//! sockets, and it neither sends nor counts for the account.
//!
//! One queue holds them all, oldest first. Those in flight are its front, since
//! what was given back is older than what comes after it and is pushed first. All
//! of them are in one socket at a time: a target that was bound to another one
//! waits until nothing of it is left in the old one. So the order on the wire is
//! the order of seq, whatever is retired or bound in between.
//!
//! The loom models (`tests/loom`) run this very code.

use std::{cmp::Ordering, collections::VecDeque};

/// See the module's description. `T` is what it takes to send a record again.
#[derive(Debug)]
pub struct Flight<T> {
    records: VecDeque<T>,
    capacity: usize,
    /// Records at the front whose last datagram is in the socket.
    in_flight: usize,
    /// Datagrams in the socket, those of a record pushed in part included.
    datagrams: usize,
    /// Datagrams of the next record that the socket has taken.
    begun: usize,
    socket: usize,
    /// A record was dropped while newer ones were in the socket: nothing is pushed before
    /// their fate is known, or it would come after them.
    dropped: bool,
}

impl<T: Copy> Flight<T> {
    /// Room for `capacity` records; its memory is touched by writing `filler`, and
    /// never grows.
    #[must_use]
    pub fn new(capacity: usize, filler: T) -> Self {
        let mut records = VecDeque::from(vec![filler; capacity]);
        records.clear();
        Self { records, capacity, in_flight: 0, datagrams: 0, begun: 0, socket: 0, dropped: false }
    }

    /// Records that are to be sent again.
    #[must_use]
    pub fn again(&self) -> usize {
        self.records.len() - self.in_flight
    }

    /// The next record to be sent again, before any newer one.
    #[must_use]
    pub fn next_again(&self) -> Option<T> {
        self.records.get(self.in_flight).copied()
    }

    /// The one that has been on its way longest, and the next one to be sent again: none is
    /// older than both.
    pub fn oldest(&self) -> impl Iterator<Item = T> {
        self.records.front().copied().into_iter().chain(self.next_again())
    }

    /// Whether another record can be remembered once it is pushed.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.again() > 0 || self.records.len() < self.capacity
    }

    /// Whether the next datagram may go into this socket: nothing must be left in
    /// another one.
    pub fn may_use(&mut self, socket: usize) -> bool {
        self.dropped &= self.datagrams > 0;
        if self.dropped {
            return false;
        }
        if self.socket != socket {
            if self.datagrams > 0 {
                return false;
            }
            self.socket = socket;
            self.begun = 0;
        }
        true
    }

    /// Datagrams of the next record that are in the socket already.
    #[must_use]
    pub fn begun(&self) -> usize {
        self.begun
    }

    /// Another record takes the place of the next one.
    pub fn begin_anew(&mut self) {
        self.begun = 0;
    }

    /// The socket took a datagram of the next record.
    pub fn pushed(&mut self) {
        self.datagrams += 1;
        self.begun += 1;
    }

    /// The datagram pushed just now was the last one of its record: of
    /// [`Flight::next_again`], or if there is none, of this new one.
    pub fn is_in_flight(&mut self, record: T) {
        if self.again() == 0 {
            self.records.push_back(record);
        }
        self.in_flight += 1;
        self.begun = 0;
    }

    /// [`Flight::next_again`] cannot be sent after all.
    pub fn drop_again(&mut self) {
        self.records.remove(self.in_flight);
        self.begun = 0;
    }

    /// The fate of the oldest datagram is known; `last` of its record or not.
    pub fn settled(&mut self, last: bool) {
        self.datagrams -= 1;
        if last {
            self.in_flight -= 1;
            self.records.pop_front();
        }
    }

    /// The oldest datagram, the last of its record, and the device dropped it or another
    /// one of the record. That goes out again: after what `is_older`, before everything else
    /// that is not in the socket.
    pub fn dropped(&mut self, is_older: impl Fn(&T, &T) -> bool) {
        self.datagrams -= 1;
        self.in_flight -= 1;
        let Some(record) = self.records.pop_front() else { return };
        let older =
            self.records.iter().skip(self.in_flight).take_while(|other| is_older(other, &record));
        let at = self.in_flight + older.count();
        self.records.insert(at, record);
        // It may have taken the turn of a record that was pushed in part.
        self.begun = 0;
        self.dropped = true;
    }

    /// A socket that is retired gives a datagram back that it did not send: its
    /// record goes out again, before all newer ones.
    pub fn given_back(&mut self, last: bool) {
        self.datagrams -= 1;
        if last {
            self.in_flight -= 1;
        }
    }

    /// A socket was retired and has given back what it had; a record of which it
    /// took a part starts anew.
    pub fn retired(&mut self, socket: usize) {
        if self.socket == socket {
            self.begun = 0;
        }
    }

    /// Puts what is to be sent again in order, if nothing is in the socket.
    pub fn restore_order(&mut self, order: impl Fn(&T, &T) -> Ordering) {
        if self.in_flight == 0 {
            self.records.make_contiguous().sort_unstable_by(order);
        }
    }
}
