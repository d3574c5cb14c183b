//! Fragments (`ncfrag`) to whole messages.
//!
//! Takes fragments in any order, ignores repeated ones, gives up after a time
//! and counts what it gave up. Memory is bounded; the time is passed in. It does
//! not order messages among each other: that is the receiver's work.
//! Rules as in netconsd's `ncrx/libncrx.c`: the first byte that arrives for a
//! place stays.

use std::collections::VecDeque;
use std::time::Duration;

use super::decode::{Fragment, Header};

/// Completed messages that are remembered, so that a repeated fragment does not
/// begin them anew.
const REMEMBERED: usize = 256;

/// Bounds of a [`Reassembler`].
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most messages in the making.
    pub messages: usize,
    /// Most bytes of all messages in the making.
    pub bytes: usize,
    /// How long a message may lack fragments, counted from its first one.
    pub timeout: Duration,
}

impl Default for Limits {
    /// 256 messages, 4 MiB, 200 ms (netconsd's `NETCONS_RTO`).
    fn default() -> Self {
        Self { messages: 256, bytes: 4 << 20, timeout: Duration::from_millis(200) }
    }
}

/// A message put together from fragments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message<K> {
    /// Where it came from.
    pub source: K,
    /// Its sequence number.
    pub seq: u64,
    /// The message as one datagram would have brought it: header (without its
    /// `ncfrag` field), `;`, text, dictionary and extra data; `?` where a byte
    /// is missing.
    pub datagram: Vec<u8>,
    /// Number of fragments that brought something.
    pub fragments: u32,
    /// Bytes that did not arrive; zero if the message is whole.
    pub missing_bytes: usize,
}

/// What has been counted so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Messages that became whole.
    pub completed: u64,
    /// Messages that were given up.
    pub incomplete: u64,
    /// Fragments that brought nothing new.
    pub duplicates: u64,
}

/// Which message a fragment belongs to. The time tells two boots apart, the
/// length two targets of one host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Id<K> {
    source: K,
    seq: u64,
    ts_us: u64,
    total_bytes: usize,
}

#[derive(Debug)]
struct Pending<K> {
    id: Id<K>,
    since: Duration,
    body_start: usize,
    message: Message<K>,
    present: Vec<bool>,
}

/// Puts fragments together, per source `K`.
#[derive(Debug)]
pub struct Reassembler<K> {
    limits: Limits,
    /// Oldest first.
    pending: VecDeque<Pending<K>>,
    pending_bytes: usize,
    /// Given up to make room, not yet fetched.
    evicted: VecDeque<Message<K>>,
    completed: VecDeque<Id<K>>,
    counters: Counters,
}

impl<K: Copy + Eq> Reassembler<K> {
    /// An empty one.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            pending: VecDeque::new(),
            pending_bytes: 0,
            evicted: VecDeque::new(),
            completed: VecDeque::new(),
            counters: Counters::default(),
        }
    }

    /// What has been counted so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Takes one fragment; `fragment` is the header's. Returns the message when
    /// it became whole. `now` may start anywhere and does not go back. Fetch
    /// what was given up with [`Reassembler::pop_incomplete`] afterwards.
    pub fn push(
        &mut self,
        now: Duration,
        source: K,
        header: &Header<'_>,
        fragment: Fragment,
        payload: &[u8],
    ) -> Option<Message<K>> {
        let id =
            Id { source, seq: header.seq, ts_us: header.ts_us, total_bytes: fragment.total_bytes };
        if self.completed.contains(&id) {
            self.counters.duplicates += 1;
            return None;
        }
        let index = match self.pending.iter().position(|pending| pending.id == id) {
            Some(index) => index,
            None => self.begin(now, id, header),
        };
        let pending = self.pending.get_mut(index)?;
        if !pending.fill(fragment.offset_bytes, payload) {
            self.counters.duplicates += 1;
        }
        if pending.message.missing_bytes > 0 {
            return None;
        }
        let done = self.pending.remove(index)?;
        self.pending_bytes -= done.id.total_bytes;
        self.counters.completed += 1;
        if self.completed.len() == REMEMBERED {
            self.completed.pop_front();
        }
        self.completed.push_back(id);
        Some(done.message)
    }

    /// Makes room for a message and begins it; returns its index.
    fn begin(&mut self, now: Duration, id: Id<K>, header: &Header<'_>) -> usize {
        while !self.pending.is_empty()
            && (self.pending.len() >= self.limits.messages
                || self.pending_bytes + id.total_bytes > self.limits.bytes)
        {
            if let Some(message) = self.give_up_oldest() {
                self.evicted.push_back(message);
            }
        }
        self.pending_bytes += id.total_bytes;
        let mut datagram = without_fragment_field(header.raw);
        datagram.push(b';');
        let body_start = datagram.len();
        datagram.resize(body_start + id.total_bytes, b'?');
        self.pending.push_back(Pending {
            id,
            since: now,
            body_start,
            message: Message {
                source: id.source,
                seq: id.seq,
                datagram,
                fragments: 0,
                missing_bytes: id.total_bytes,
            },
            present: vec![false; id.total_bytes],
        });
        self.pending.len() - 1
    }

    fn give_up_oldest(&mut self) -> Option<Message<K>> {
        let pending = self.pending.pop_front()?;
        self.pending_bytes -= pending.id.total_bytes;
        self.counters.incomplete += 1;
        Some(pending.message)
    }

    /// One message that was given up: for want of room, or because `now` is
    /// past its time. Call until `None`.
    pub fn pop_incomplete(&mut self, now: Duration) -> Option<Message<K>> {
        if let Some(message) = self.evicted.pop_front() {
            return Some(message);
        }
        self.next_deadline().filter(|&deadline| deadline <= now).and_then(|_| self.give_up_oldest())
    }

    /// When the oldest message in the making is given up.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Duration> {
        self.pending.front().map(|pending| pending.since.saturating_add(self.limits.timeout))
    }
}

impl<K> Pending<K> {
    /// Copies what is new; false if nothing was.
    fn fill(&mut self, offset: usize, payload: &[u8]) -> bool {
        let body = self.message.datagram.iter_mut().skip(self.body_start + offset);
        let present = self.present.iter_mut().skip(offset);
        let mut filled = 0;
        for ((place, present), &byte) in body.zip(present).zip(payload) {
            if !*present {
                *place = byte;
                *present = true;
                filled += 1;
            }
        }
        self.message.missing_bytes -= filled;
        self.message.fragments += u32::from(filled > 0);
        filled > 0
    }
}

fn without_fragment_field(header: &[u8]) -> Vec<u8> {
    let fields = header.split(|&byte| byte == b',');
    let kept: Vec<_> = fields.filter(|f| !f.starts_with(b"ncfrag=")).collect();
    kept.join(&b',')
}

#[cfg(test)]
mod tests {
    use super::super::parse_header;
    use super::*;

    const T0: Duration = Duration::from_secs(1);

    fn push(r: &mut Reassembler<u8>, now: Duration, line: &str) -> Option<Message<u8>> {
        let (header, payload) = parse_header(line.as_bytes()).expect(line);
        let fragment = header.fragment.expect("a fragment");
        r.push(now, 1, &header, fragment, payload)
    }

    #[test]
    fn fragments_join_in_any_order_and_repeated_ones_are_counted() {
        let mut r = Reassembler::new(Limits::default());
        assert_eq!(push(&mut r, T0, "6,1,1,-,a=b,ncfrag=3/6;def"), None);
        assert_eq!(push(&mut r, T0, "6,1,1,-,a=b,ncfrag=3/6;xyz"), None);
        let message = push(&mut r, T0, "6,1,1,-,a=b,ncfrag=0/6;abc").expect("whole");
        assert_eq!(message.datagram, b"6,1,1,-,a=b;abcdef");
        assert_eq!((message.fragments, message.missing_bytes), (2, 0));
        assert_eq!(push(&mut r, T0, "6,1,1,-,ncfrag=0/6;abc"), None);
        assert_eq!(r.next_deadline(), None);
        assert_eq!(r.counters(), Counters { completed: 1, incomplete: 0, duplicates: 2 });
    }

    #[test]
    fn a_message_with_a_hole_is_given_up_in_time() {
        let mut r = Reassembler::new(Limits::default());
        assert_eq!(push(&mut r, T0, "6,1,1,-,ncfrag=0/6;abc"), None);
        let deadline = r.next_deadline().expect("one pending");
        assert_eq!(r.pop_incomplete(deadline - Duration::from_nanos(1)), None);
        let message = r.pop_incomplete(deadline).expect("given up");
        assert_eq!(message.datagram, b"6,1,1,-;abc???");
        assert_eq!(message.missing_bytes, 3);
        assert_eq!(r.pop_incomplete(deadline), None);
        assert_eq!(r.counters().incomplete, 1);
    }

    #[test]
    fn boots_and_targets_are_told_apart() {
        let mut r = Reassembler::new(Limits::default());
        assert_eq!(push(&mut r, T0, "6,1,1,-,ncfrag=0/6;abc"), None);
        assert_eq!(push(&mut r, T0, "6,1,2,-,ncfrag=3/6;def"), None);
        assert_eq!(push(&mut r, T0, "6,1,1,-,ncfrag=3/7;defg"), None);
        assert_eq!(r.pending.len(), 3);
    }

    #[test]
    fn memory_is_bounded_and_what_had_to_go_is_told() {
        let mut r = Reassembler::new(Limits { messages: 2, bytes: 10, ..Limits::default() });
        for seq in 0..3 {
            push(&mut r, T0, &format!("6,{seq},1,-,ncfrag=0/2;a"));
        }
        assert_eq!(r.pop_incomplete(T0).map(|m| m.seq), Some(0));
        assert_eq!(r.pop_incomplete(T0), None);
        push(&mut r, T0, "6,9,1,-,ncfrag=0/10;a");
        assert_eq!(r.pending_bytes, 10);
        assert_eq!(r.pop_incomplete(T0).map(|m| m.seq), Some(1));
        assert_eq!(r.pop_incomplete(T0).map(|m| m.seq), Some(2));
    }
}
