//! The receiver's pure part: datagrams to records in order, with the gaps told.
//!
//! It decodes, joins fragments, puts the records of each source address in the
//! order of their sequence numbers (waiting at most [`HOLD`]) and reports what is
//! missing. Time is passed in; sockets, signals and printing are elsewhere
//! (`cli::receive`; `render` makes the lines). It acknowledges nothing and
//! stores nothing. Memory is bounded, whoever sends.
//!
//! The key of a source is its address without the port, as in netconsd: an
//! agent that starts anew may use another port and goes on in the same order.

pub mod netoops;
pub mod render;
mod stream;

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use crate::netconsole::decode::{split_body, trim_line_end};
use crate::netconsole::escape::unescape_into;
use crate::netconsole::{Flag, Header, Limits, Reassembler, parse_header};
use crate::record::Caller;
use stream::{Stream, Turn};

/// How long a record waits for those before it (netconsd's `NETCONS_RTO`).
pub const HOLD: Duration = Duration::from_millis(200);
/// Most sources that are kept apart; the one silent for longest is forgotten.
const SOURCES_MAX: usize = 1024;
/// Most bytes of records that wait for those before them.
const HELD_MAX_BYTES: usize = 64 << 20;

/// A record as it arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// Kernel release, if the sender puts it before the header.
    pub release: Option<Vec<u8>>,
    /// syslog facility.
    pub facility: u8,
    /// syslog level, 0 to 7.
    pub level: u8,
    /// Sequence number.
    pub seq: u64,
    /// Microseconds since boot.
    pub ts_us: u64,
    /// Continuation flag.
    pub flag: Flag,
    /// Who printed it, if told.
    pub caller: Option<Caller>,
    /// Level, facility, time and dictionary are estimates of the sender.
    pub approximated: bool,
    /// The text, unescaped.
    pub text: Vec<u8>,
    /// The lines behind the text in their order: device, userdata, sysdata.
    pub dict: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    /// Number of datagrams that brought it.
    pub fragments: u32,
    /// Bytes of it that did not arrive.
    pub missing_bytes: usize,
    /// It came after its place had been reported as missing, or from before the
    /// first record of this source.
    pub late: bool,
}

/// What happened, in the order in which it is to be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A record.
    Record(IpAddr, Box<Received>),
    /// A datagram without extended header, without its last newline.
    Plain(IpAddr, Vec<u8>),
    /// These did not arrive in time.
    Gap {
        /// Where they should have come from.
        source: IpAddr,
        /// First sequence number that is missing.
        first_seq: u64,
        /// Last sequence number that is missing.
        last_seq: u64,
    },
    /// The source counts anew: it has rebooted.
    Restart(IpAddr),
}

/// What has been received so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Summary {
    /// Datagrams taken.
    pub datagrams: u64,
    /// Records told, the incomplete ones included.
    pub records: u64,
    /// Datagrams without extended header.
    pub plain: u64,
    /// Source addresses seen.
    pub sources: u64,
    /// Records that are missing: reported gaps less what came late.
    pub missing: u64,
    /// Records of which a fragment did not arrive.
    pub incomplete: u64,
    /// Records that came late.
    pub late: u64,
    /// Records and fragments that came more than once.
    pub duplicates: u64,
    /// Times that a source counted anew.
    pub restarts: u64,
}

#[derive(Debug)]
struct Source {
    stream: Stream<Box<Received>>,
    last_active: Duration,
}

/// Turns datagrams into events.
#[derive(Debug)]
pub struct Receiver {
    reassembler: Reassembler<IpAddr>,
    sources: HashMap<IpAddr, Source>,
    held_bytes: usize,
    summary: Summary,
}

impl Default for Receiver {
    fn default() -> Self {
        Self::new()
    }
}

impl Receiver {
    /// One that has received nothing.
    #[must_use]
    pub fn new() -> Self {
        Self {
            reassembler: Reassembler::new(Limits { timeout: HOLD, ..Limits::default() }),
            sources: HashMap::new(),
            held_bytes: 0,
            summary: Summary::default(),
        }
    }

    /// What has been received so far.
    #[must_use]
    pub fn summary(&self) -> Summary {
        Summary {
            duplicates: self.summary.duplicates + self.reassembler.counters().duplicates,
            ..self.summary
        }
    }

    /// Takes one datagram that arrived at `now` (any origin, never going back)
    /// and appends what it led to.
    pub fn datagram(
        &mut self,
        now: Duration,
        source: IpAddr,
        bytes: &[u8],
        events: &mut Vec<Event>,
    ) {
        let source = source.to_canonical();
        self.summary.datagrams += 1;
        let Ok((header, body)) = parse_header(bytes) else {
            self.touch(now, source, events);
            self.summary.plain += 1;
            events.push(Event::Plain(source, trim_line_end(bytes).to_vec()));
            return;
        };
        match header.fragment {
            None => self.record(now, source, received(&header, body, 1, 0), events),
            Some(fragment) => {
                let whole = self.reassembler.push(now, source, &header, fragment, body);
                if let Some(message) = whole
                    && let Ok((header, body)) = parse_header(&message.datagram)
                {
                    let record = received(&header, body, message.fragments, 0);
                    self.record(now, source, record, events);
                }
            }
        }
        self.give_up(now, events);
    }

    /// Appends what is due at `now`: gaps and the records behind them.
    pub fn tick(&mut self, now: Duration, events: &mut Vec<Event>) {
        self.give_up(now, events);
        let due = |source: &Source| source.stream.deadline().is_some_and(|at| at <= now);
        let mut addresses: Vec<_> = self.sources.iter().filter(|(_, s)| due(s)).collect();
        addresses.sort_by_key(|(_, source)| source.stream.deadline());
        let addresses: Vec<_> = addresses.into_iter().map(|(&address, _)| address).collect();
        for address in addresses {
            self.with_stream(address, events, |stream, turns| stream.expire(now, turns));
        }
    }

    /// Appends all that still waits; the receiver is done.
    pub fn finish(&mut self, events: &mut Vec<Event>) {
        self.give_up(Duration::MAX, events);
        let mut addresses: Vec<_> = self.sources.keys().copied().collect();
        addresses.sort();
        for address in addresses {
            self.with_stream(address, events, Stream::flush);
        }
    }

    /// When [`Receiver::tick`] has something to do.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Duration> {
        let streams = self.sources.values().filter_map(|s| s.stream.deadline());
        streams.chain(self.reassembler.next_deadline()).min()
    }

    /// Messages that will not become whole are told with what there is.
    fn give_up(&mut self, now: Duration, events: &mut Vec<Event>) {
        while let Some(message) = self.reassembler.pop_incomplete(now) {
            self.summary.incomplete += 1;
            if let Ok((header, body)) = parse_header(&message.datagram) {
                let record = received(&header, body, message.fragments, message.missing_bytes);
                self.record(now, message.source, record, events);
            }
        }
    }

    fn record(
        &mut self,
        now: Duration,
        source: IpAddr,
        record: Box<Received>,
        events: &mut Vec<Event>,
    ) {
        self.touch(now, source, events);
        self.with_stream(source, events, |stream, turns| stream.push(now, record, turns));
        if self.held_bytes > HELD_MAX_BYTES {
            self.with_stream(source, events, Stream::flush);
        }
    }

    /// Makes sure that the source is known, and forgets another one for it.
    fn touch(&mut self, now: Duration, address: IpAddr, events: &mut Vec<Event>) {
        if let Some(source) = self.sources.get_mut(&address) {
            source.last_active = now;
            return;
        }
        if self.sources.len() >= SOURCES_MAX {
            let oldest = self.sources.iter().min_by_key(|(_, s)| s.last_active);
            if let Some(oldest) = oldest.map(|(&address, _)| address) {
                self.with_stream(oldest, events, Stream::flush);
                self.sources.remove(&oldest);
            }
        }
        self.summary.sources += 1;
        let source = Source { stream: Stream::new(), last_active: now };
        self.sources.insert(address, source);
    }

    /// Lets `act` work on the stream of a source and turns the outcome into events.
    fn with_stream(
        &mut self,
        address: IpAddr,
        events: &mut Vec<Event>,
        act: impl FnOnce(&mut Stream<Box<Received>>, &mut Vec<Turn<Box<Received>>>),
    ) {
        let Some(source) = self.sources.get_mut(&address) else {
            return;
        };
        let mut turns = Vec::new();
        self.held_bytes -= source.stream.held_bytes();
        act(&mut source.stream, &mut turns);
        self.held_bytes += source.stream.held_bytes();
        for turn in turns {
            match turn {
                Turn::Record(record) => {
                    self.summary.records += 1;
                    events.push(Event::Record(address, record));
                }
                Turn::Late { mut item, was_missing } => {
                    item.late = true;
                    self.summary.records += 1;
                    self.summary.late += 1;
                    let filled = u64::from(was_missing);
                    self.summary.missing = self.summary.missing.saturating_sub(filled);
                    events.push(Event::Record(address, item));
                }
                Turn::Duplicate => self.summary.duplicates += 1,
                Turn::Restart => {
                    self.summary.restarts += 1;
                    events.push(Event::Restart(address));
                }
                Turn::Gap { first_seq, last_seq } => {
                    let count = (last_seq - first_seq).saturating_add(1);
                    self.summary.missing = self.summary.missing.saturating_add(count);
                    events.push(Event::Gap { source: address, first_seq, last_seq });
                }
            }
        }
    }
}

impl stream::Item for Box<Received> {
    fn seq(&self) -> u64 {
        self.seq
    }

    fn ts_us(&self) -> Option<u64> {
        (!self.approximated).then_some(self.ts_us)
    }

    fn bytes(&self) -> usize {
        let dict = self.dict.iter();
        let dict = dict.map(|(key, value)| key.len() + value.as_ref().map_or(0, Vec::len));
        size_of::<Received>() + self.text.len() + dict.sum::<usize>()
    }
}

fn received(header: &Header<'_>, body: &[u8], fragments: u32, missing: usize) -> Box<Received> {
    let (text, dict) = split_body(body);
    let dict = dict.map(|line| {
        let value = match (line.key, line.value) {
            // The kernel escapes these values and no others.
            (b"SUBSYSTEM" | b"DEVICE", Some(value)) => Some(unescaped(value)),
            (_, value) => value.map(<[u8]>::to_vec),
        };
        (line.key.to_vec(), value)
    });
    Box::new(Received {
        release: header.release.map(<[u8]>::to_vec),
        facility: header.facility(),
        level: header.level(),
        seq: header.seq,
        ts_us: header.ts_us,
        flag: header.flag,
        caller: header.caller,
        approximated: header.approximated,
        text: unescaped(text),
        dict: dict.collect(),
        fragments,
        missing_bytes: missing,
        late: false,
    })
}

fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut out = vec![0; text.len()];
    let len = unescape_into(text, &mut out);
    out.truncate(len);
    out
}

#[cfg(test)]
mod tests;
