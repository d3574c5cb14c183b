//! One target on its way through the dumps: what is to be sent next, and what has become of
//! what was sent. Pure; the clock is the caller's.
//!
//! A few pieces are with the pump at a time. One that the kernel did not take goes out again,
//! after a while and before what comes after it; the number of its line says where it belongs.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{dump::Dump, piece::Piece};

/// Most pieces that are with the pump: the rest of its queue is for operators' messages
/// (`pump/message.rs`), and at one round of the control thread per 20 ms it makes 400 lines a
/// second.
pub const WINDOW: usize = 8;
/// How long after a failure nothing is tried.
const HOLD: Duration = Duration::from_secs(1);
/// A piece that fails so often while the target can send is given up, so that the rest gets its
/// turn.
const TRIES_MAX: u32 = 30;

/// A piece of which dump, and how often it has failed.
#[derive(Clone, Copy, Debug)]
struct Load {
    dump: usize,
    piece: Piece,
    tries: u32,
}

/// See the module's description.
#[derive(Debug, Default)]
pub struct Sending {
    dumps: Vec<Arc<Dump>>,
    /// Where the next new piece begins: dump, line, byte.
    at: (usize, usize, usize),
    again: VecDeque<Load>,
    in_flight: Vec<(u32, Load)>,
    hold_until: Option<Instant>,
    /// Dumps that are done with, from the first on.
    done: usize,
    /// Dumps that an earlier run was done with.
    done_before: usize,
    lines_sent: u64,
    lines_lost: u64,
}

impl Sending {
    /// On its way through these; `done_before` others were sent by an earlier run.
    #[must_use]
    pub fn new(dumps: Vec<Arc<Dump>>, done_before: usize) -> Self {
        Self { dumps, done_before, ..Self::default() }
    }

    /// Whether something is to be sent or on its way.
    #[must_use]
    pub fn is_busy(&self, now: Instant) -> bool {
        let held = self.hold_until.is_some_and(|until| now < until);
        self.done < self.dumps.len() && (!held || !self.in_flight.is_empty())
    }

    /// The dump and the piece of it that is to be sent next, if one may be; `room_bytes` as the
    /// text of a message. It stays the next one until [`Self::sent`].
    #[must_use]
    pub fn next(&self, now: Instant, room_bytes: usize) -> Option<(&Arc<Dump>, Piece)> {
        let held = self.hold_until.is_some_and(|until| now < until);
        if held || self.in_flight.len() >= WINDOW {
            return None;
        }
        let load = self.next_load(room_bytes)?;
        Some((self.dumps.get(load.dump)?, load.piece))
    }

    fn next_load(&self, room_bytes: usize) -> Option<Load> {
        if let Some(load) = self.again.front() {
            // There may be less room than before.
            let dump = self.dumps.get(load.dump)?;
            let fitting = Piece::at(dump, load.piece.line, load.piece.from, room_bytes)?;
            let piece = Piece { to: fitting.to.min(load.piece.to), ..load.piece };
            return Some(Load { piece, ..*load });
        }
        let (dump, line, from) = self.at;
        let piece = Piece::at(self.dumps.get(dump)?, line, from, room_bytes)?;
        Some(Load { dump, piece, tries: 0 })
    }

    /// The next piece is with the pump, as a message of this number.
    pub fn sent(&mut self, number: u32, room_bytes: usize) {
        let Some(load) = self.next_load(room_bytes) else { return };
        self.in_flight.push((number, load));
        if let Some(before) = self.again.pop_front() {
            if load.piece.to < before.piece.to {
                let piece = Piece { from: load.piece.to, ..before.piece };
                self.again.push_front(Load { piece, ..before });
            }
            return;
        }
        let Some(dump) = self.dumps.get(load.dump) else { return };
        self.at = if !load.piece.ends_line(dump) {
            (load.dump, load.piece.line, load.piece.to)
        } else if load.piece.line + 1 < dump.line_count() {
            (load.dump, load.piece.line + 1, 0)
        } else {
            (load.dump + 1, 0, 0)
        };
    }

    /// Whether this message is one of its pieces.
    #[must_use]
    pub fn has(&self, number: u32) -> bool {
        self.in_flight.iter().any(|(other, _)| *other == number)
    }

    /// A message has come back, `taken` by the kernel or not; `can_send`: the target could. True
    /// if a line is given up.
    pub fn returned(&mut self, number: u32, taken: bool, can_send: bool, now: Instant) -> bool {
        let Some(at) = self.in_flight.iter().position(|(other, _)| *other == number) else {
            return false;
        };
        let (_, mut load) = self.in_flight.remove(at);
        let dump = self.dumps.get(load.dump);
        if taken {
            let ends = dump.is_none_or(|dump| load.piece.ends_line(dump));
            self.lines_sent += u64::from(ends);
            return false;
        }
        self.hold_until = Some(now + HOLD);
        load.tries += u32::from(can_send);
        if load.tries >= TRIES_MAX {
            self.lines_lost += 1;
            return true;
        }
        let key = |load: &Load| (load.dump, load.piece.line, load.piece.from);
        let older = self.again.iter().take_while(|other| key(other) < key(&load)).count();
        self.again.insert(older, load);
        false
    }

    /// The dumps that are done with since the last time: everything of them was taken by the
    /// kernel, or given up.
    pub fn take_done(&mut self) -> Vec<Arc<Dump>> {
        let loads = self.again.iter().chain(self.in_flight.iter().map(|(_, load)| load));
        let first = loads.map(|load| load.dump).fold(self.at.0, usize::min);
        let done = self.dumps.get(self.done..first).unwrap_or_default().to_vec();
        self.done = self.done.max(first);
        done
    }

    /// Dumps that were sent whole, with those of earlier runs.
    #[must_use]
    pub fn dumps_done(&self) -> usize {
        self.done_before + self.done
    }

    /// Dumps that are still to be sent, or of which something is.
    #[must_use]
    pub fn dumps_left(&self) -> usize {
        self.dumps.len() - self.done
    }

    /// Lines that the kernel took, from the start of the agent on.
    #[must_use]
    pub fn lines_sent(&self) -> u64 {
        self.lines_sent
    }

    /// Lines of which something was given up.
    #[must_use]
    pub fn lines_lost(&self) -> u64 {
        self.lines_lost
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{
        super::dump::{group, tests::part},
        *,
    };

    const ROOM: usize = 300;

    fn dumps() -> Vec<Arc<Dump>> {
        let long = "x".repeat(700);
        let first: String = (0..20).map(|line| format!("line {line}\n")).collect();
        let parts = vec![
            part("erst", 1, 10, &format!("Panic#1 Part1\n{first}")),
            part("erst", 9, 1_000, &format!("Panic#1 Part1\n{long}\nlast\n")),
        ];
        group(parts).into_iter().map(Arc::new).collect()
    }

    /// Everything of the dumps, in order.
    fn whole(dumps: &[Arc<Dump>]) -> Vec<(String, usize, u8)> {
        let mut bytes = Vec::new();
        for dump in dumps {
            for line in 0..dump.line_count() {
                let text = dump.line(line).unwrap();
                bytes.extend(text.iter().map(|byte| (dump.name.clone(), line, *byte)));
            }
        }
        bytes
    }

    fn bytes_of(dump: &Dump, piece: &Piece) -> Vec<(String, usize, u8)> {
        let line = &dump.line(piece.line).unwrap()[piece.from..piece.to];
        line.iter().map(|byte| (dump.name.clone(), piece.line, *byte)).collect()
    }

    #[test]
    fn everything_goes_once_and_in_order_and_never_more_than_the_window() {
        let dumps = dumps();
        let mut sending = Sending::new(dumps.clone(), 0);
        let (now, mut number, mut came, mut done) = (Instant::now(), 0, Vec::new(), Vec::new());
        while sending.is_busy(now) {
            let mut window = Vec::new();
            while let Some((dump, piece)) = sending.next(now, ROOM) {
                came.extend(bytes_of(dump, &piece));
                number += 1;
                sending.sent(number, ROOM);
                window.push(number);
            }
            assert!((1..=WINDOW).contains(&window.len()));
            assert!(done.len() < 2, "nothing is done before it is back");
            for number in window {
                assert!(sending.has(number));
                assert!(!sending.returned(number, true, true, now));
            }
            done.extend(sending.take_done());
        }
        assert_eq!(came, whole(&dumps));
        assert_eq!(done, dumps);
        assert_eq!((sending.lines_sent(), sending.lines_lost(), sending.dumps_left()), (22, 0, 0));
        assert!(!sending.returned(number, true, true, now), "twice");
        assert!(sending.take_done().is_empty());
    }

    #[test]
    fn what_always_fails_is_given_up_and_the_rest_goes() {
        let mut sending = Sending::new(dumps(), 0);
        let (mut now, mut number, mut lost) = (Instant::now(), 0, 0);
        for _ in 0..10_000 {
            now += HOLD;
            while let Some((_, piece)) = sending.next(now, ROOM) {
                let fails = piece.line == 3;
                number += 1;
                sending.sent(number, ROOM);
                lost += u32::from(sending.returned(number, !fails, true, now));
            }
        }
        // Line 3 is in the first dump only.
        assert_eq!((lost, sending.lines_lost(), sending.lines_sent()), (1, 1, 21));
        assert_eq!(sending.take_done().len(), 2);
    }

    #[test]
    fn nothing_is_given_up_while_the_target_cannot_send() {
        let mut sending = Sending::new(dumps(), 0);
        let mut now = Instant::now();
        for number in 0..2 * TRIES_MAX {
            now += HOLD;
            let (_, piece) = sending.next(now, ROOM).unwrap();
            assert_eq!(piece.line, 0);
            sending.sent(number, ROOM);
            assert!(!sending.returned(number, false, false, now));
            assert!(sending.next(now, ROOM).is_none(), "held");
            assert!(!sending.is_busy(now) && sending.is_busy(now + HOLD));
        }
        assert!(sending.take_done().is_empty());
    }

    proptest! {
        /// Failures and less room at any time: everything arrives all the same, each byte once.
        #[test]
        fn nothing_is_lost_or_doubled_by_failures(
            fates in proptest::collection::vec((any::<bool>(), 0..WINDOW, 120..400_usize), 1..200),
        ) {
            let dumps = dumps();
            let mut sending = Sending::new(dumps.clone(), 0);
            let (mut now, mut number, mut came) = (Instant::now(), 0, Vec::new());
            let mut window: Vec<(u32, Vec<_>)> = Vec::new();
            let mut fates = fates.into_iter();
            while sending.is_busy(now) {
                // When the script is over all goes well.
                let (taken, which, room) = fates.next().unwrap_or((true, 0, ROOM));
                while let Some((dump, piece)) = sending.next(now, room) {
                    number += 1;
                    window.push((number, bytes_of(dump, &piece)));
                    sending.sent(number, room);
                }
                if !window.is_empty() {
                    let (number, bytes) = window.remove(which % window.len());
                    prop_assert!(!sending.returned(number, taken, true, now));
                    if taken {
                        came.extend(bytes);
                    }
                }
                now += HOLD;
                sending.take_done();
            }
            let mut expected = whole(&dumps);
            expected.sort();
            came.sort();
            prop_assert_eq!(came, expected);
        }
    }
}
