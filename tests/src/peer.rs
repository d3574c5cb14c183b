//! The receiving end: a UDP socket that loses nothing for want of memory.

use std::{
    net::UdpSocket,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use crate::{
    kmsg::seq_of,
    netns::{Namespace, RIGHT_V4},
    stream::is_notice,
};

/// Collects the datagrams of one port.
#[derive(Debug)]
pub struct Peer {
    stop: Arc<AtomicBool>,
    count: Arc<AtomicUsize>,
    thread: JoinHandle<Vec<Vec<u8>>>,
}

impl Peer {
    /// Binds in the right namespace and starts to collect.
    #[must_use]
    pub fn start(namespace: &Namespace, port: u16) -> Self {
        let socket = open(namespace, port);
        let stop = Arc::new(AtomicBool::new(false));
        let count = Arc::new(AtomicUsize::new(0));
        let thread = {
            let (stop, count) = (Arc::clone(&stop), Arc::clone(&count));
            std::thread::spawn(move || {
                let mut datagrams = Vec::new();
                let mut buffer = [0; 2048];
                loop {
                    let stopping = stop.load(Ordering::Acquire);
                    match socket.recv(&mut buffer) {
                        Ok(length) => {
                            datagrams.push(buffer[..length].to_vec());
                            count.store(datagrams.len(), Ordering::Release);
                        }
                        Err(_) if stopping => return datagrams,
                        Err(_) => {}
                    }
                }
            })
        };
        Self { stop, count, thread }
    }

    /// Waits until nothing has come for `quiet`.
    pub fn settle(&self, quiet: Duration) {
        let mut last = (self.count.load(Ordering::Acquire), Instant::now());
        while last.1.elapsed() < quiet {
            std::thread::sleep(Duration::from_millis(10));
            let count = self.count.load(Ordering::Acquire);
            if count != last.0 {
                last = (count, Instant::now());
            }
        }
    }

    /// What arrived, in order of arrival.
    #[must_use]
    pub fn finish(self) -> Vec<Vec<u8>> {
        self.stop.store(true, Ordering::Release);
        self.thread.join().expect("the receiver")
    }
}

fn open(namespace: &Namespace, port: u16) -> UdpSocket {
    let socket = namespace.run(|| UdpSocket::bind((RIGHT_V4, port)).expect("bind"));
    rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, 256 << 20)
        .expect("a large receive buffer");
    socket.set_read_timeout(Some(Duration::from_millis(50))).expect("a timeout");
    socket
}

/// Follows the seqs of the datagrams of one port and keeps nothing else: for more
/// records than one wants to hold.
#[derive(Debug)]
pub struct SeqPeer {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Seqs>,
}

/// What a [`SeqPeer`] has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seqs {
    /// Different seqs.
    pub seqs: u64,
    /// Seqs between the first and the last one that did not come.
    pub missing: u64,
    /// Datagrams whose seq was lower than the one before.
    pub out_of_order: u64,
    newest: Option<u64>,
}

impl Seqs {
    fn take(&mut self, seq: u64) {
        match self.newest {
            Some(newest) if seq < newest => self.out_of_order += 1,
            // Another fragment of the same record.
            Some(newest) if seq == newest => {}
            newest => {
                self.missing += newest.map_or(0, |newest| seq - newest - 1);
                self.seqs += 1;
                self.newest = Some(seq);
            }
        }
    }
}

impl SeqPeer {
    /// Binds in the right namespace and starts to receive.
    #[must_use]
    pub fn start(namespace: &Namespace, port: u16) -> Self {
        let socket = open(namespace, port);
        let stop = Arc::new(AtomicBool::new(false));
        let thread = {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                let mut seqs = Seqs::default();
                let mut buffer = [0; 2048];
                loop {
                    let stopping = stop.load(Ordering::Acquire);
                    match socket.recv(&mut buffer) {
                        Ok(length) if is_notice(&buffer[..length]) => {}
                        Ok(length) => seqs.take(seq_of(&buffer[..length])),
                        Err(_) if stopping => return seqs,
                        Err(_) => {}
                    }
                }
            })
        };
        Self { stop, thread }
    }

    /// What arrived, once nothing comes any more.
    #[must_use]
    pub fn finish(self) -> Seqs {
        self.stop.store(true, Ordering::Release);
        self.thread.join().expect("the receiver")
    }
}

/// Puts fragments together: adjacent datagrams of one message, in order, byte for
/// byte. Written for the tests, apart from the agent's own decoder.
///
/// # Panics
/// If a fragment is out of place: the tests' network neither loses nor reorders.
#[must_use]
pub fn join_fragments(datagrams: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut messages: Vec<Vec<u8>> = Vec::new();
    let mut open: Option<(Vec<u8>, Vec<u8>, usize)> = None;
    for datagram in datagrams {
        let end = datagram.iter().position(|byte| *byte == b';').expect("a header");
        let (header, body) = (&datagram[..end], &datagram[end + 1..]);
        let mark = b",ncfrag=";
        let Some(at) = header.windows(mark.len()).position(|window| window == mark) else {
            assert!(open.is_none(), "a fragment is missing");
            messages.push(datagram.clone());
            continue;
        };
        let field = std::str::from_utf8(&header[at + mark.len()..]).expect("digits");
        let (offset, total) = field.split_once('/').expect("offset/total");
        let (offset, total): (usize, usize) =
            (offset.parse().expect("offset"), total.parse().expect("total"));
        let (own, mut text, wanted) =
            open.take().unwrap_or_else(|| (header[..at].to_vec(), Vec::new(), total));
        assert_eq!((own.as_slice(), text.len(), wanted), (&header[..at], offset, total));
        text.extend_from_slice(body);
        if text.len() == total {
            messages.push([&own[..], b";", &text].concat());
        } else {
            open = Some((own, text, total));
        }
    }
    assert!(open.is_none(), "the last fragment is missing");
    messages
}
