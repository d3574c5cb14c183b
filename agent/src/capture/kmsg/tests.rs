//! The thread over a socket in the place of `/dev/kmsg`, which gives a record per read, too.

use std::time::{Duration, Instant};

use rtrb::{Consumer, RingBuffer};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::*;

struct Running {
    kernel: OwnedFd,
    queue: Consumer<KmsgRecord>,
    backfill: Backfill,
    stop: Arc<AtomicBool>,
    stats: Arc<KmsgStats>,
    thread: std::thread::JoinHandle<Result<(), KmsgError>>,
}

impl Running {
    fn start(wanted: Wanted) -> Self {
        let pair = (AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::NONBLOCK);
        let (kernel, device) = socketpair(pair.0, pair.1, pair.2, None).unwrap();
        let (producer, queue) = RingBuffer::new(QUEUE_RECORDS);
        let (wanted, waker) = (Arc::new(wanted), Arc::new(Waker::new().unwrap()));
        let (stop, stats) = (Arc::new(AtomicBool::new(false)), Arc::<KmsgStats>::default());
        let thread = KmsgThread {
            reader: KmsgReader::of(device),
            queue: producer,
            pump: Arc::new(Waker::new().unwrap()),
            waker: Arc::clone(&waker),
            doorbell: None,
            next_seq: 0,
            buffer_records: 1000,
            wanted: Arc::clone(&wanted),
            stop: Arc::clone(&stop),
            stats: Arc::clone(&stats),
        };
        let thread = std::thread::spawn(move || thread.run());
        Self { kernel, queue, backfill: Backfill { wanted, waker }, stop, stats, thread }
    }

    fn log(&self, seqs: Range<u64>) {
        for seq in seqs {
            assert!(self.try_log(seq), "no room");
        }
    }

    fn try_log(&self, seq: u64) -> bool {
        let line = format!("6,{seq},{seq},-;line {seq}\n");
        rustix::io::write(&self.kernel, line.as_bytes()).is_ok()
    }

    /// What is passed on, until nothing has come for a while.
    fn passed_on(&mut self) -> Vec<u64> {
        let (mut seqs, mut since) = (Vec::new(), Instant::now());
        while since.elapsed() < Duration::from_millis(250) {
            while let Ok(record) = self.queue.pop() {
                (since, _) = (Instant::now(), seqs.push(record.seq));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        seqs
    }

    /// As the pump does.
    fn ask(&self, missing: Range<u64>) {
        self.backfill.wanted.is_settled(missing.start, 0);
        self.backfill.ask(&missing);
    }

    fn end(self) {
        self.stop.store(true, Ordering::Release);
        self.backfill.waker.wake();
        self.thread.join().unwrap().unwrap();
    }
}

#[test]
fn it_reads_what_it_is_asked_for_and_says_how_far_it_is() {
    let mut running = Running::start(Wanted::until(3, 5));
    running.log(0..20);
    // Up to the first record from which on the programs saw everything.
    assert_eq!(running.passed_on(), [3, 4, 5]);
    assert_eq!(running.backfill.wanted.at_seq(), 6, "and then it rests");
    running.ask(9..11);
    assert_eq!(running.passed_on(), [9, 10, 11]);
    assert_eq!(running.backfill.wanted.at_seq(), 12);
    // It was asked for these already; and 15 was overwritten.
    running.ask(9..11);
    running.ask(30..32);
    running.log(20..31);
    assert_eq!((running.passed_on(), running.backfill.wanted.at_seq()), (vec![30], 31));
    running.log(35..40);
    assert_eq!((running.passed_on(), running.backfill.wanted.at_seq()), (vec![35], 36));
    running.end();
}

#[test]
fn what_passes_by_shows_that_it_moves() {
    let mut running = Running::start(Wanted::until(1000, 1001));
    running.log(0..9);
    assert_eq!((running.passed_on(), running.backfill.wanted.at_seq()), (vec![], 9));
    running.end();
}

#[test]
fn a_question_is_news_once() {
    let wanted = Wanted::until(0, 10);
    assert!(!wanted.ask(&(7..10)), "it reads that anyway");
    assert!(wanted.ask(&(20..25)));
    assert!(!wanted.ask(&(20..25)) && !wanted.ask(&(22..24)));
    assert!(wanted.ask(&(30..31)));
    assert!(!Wanted::all_from(0).ask(&(5..6)));
}

#[test]
fn a_storm_is_left_to_the_ring_if_that_tells_all_and_it_pays() {
    // (read, times that records were overwritten, records that were spared) after each batch.
    let told = |batches: &[(usize, u64, u64)]| {
        let mut storm = Storm::default();
        batches
            .iter()
            .map(|(read, overwritten, spared)| {
                storm.is_left_to_ring(*read, *overwritten, *spared, 1000)
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(told(&[(500, 5, 100), (499, 5, 900), (1, 5, 901)]), [false, false, true]);
    assert_eq!(told(&[(50, 5, 100), (50, 6, 131), (50, 6, 132)]), [false, false, true]);
    assert_eq!(told(&[(5000, 5, 100), (5000, 9, 131)]), [false, false], "the ring tells nothing");
}

/// It rests as long as the ring tells all, and reads the newest record soon after that.
#[test]
fn it_reads_on_when_the_ring_tells_no_more() {
    let mut running = Running::start(Wanted::all_from(0));
    let wanted = Arc::clone(&running.backfill.wanted);
    let begin = Instant::now();
    let mut seq = 0;
    // A storm whose records are all settled at once. It rests when so much waits unread that
    // the socket, which overwrites nothing, is full.
    while running.try_log(seq) {
        seq += 1;
        wanted.is_settled(seq, seq);
        assert!(begin.elapsed() < Duration::from_secs(20), "it reads all the time");
    }
    // Nothing more is settled, so it reads on. Some had been read before they were settled.
    running.passed_on();
    assert_eq!(wanted.at_seq(), seq);
    running.log(seq..seq + 1);
    assert_eq!(running.passed_on(), [seq]);
    running.end();
}

/// A watchdog of 2 s looks once a second whether it has turned.
#[test]
fn one_that_rests_gives_signs_of_life() {
    let running = Running::start(Wanted::until(0, 0));
    running.log(0..1);
    let turns = || running.stats.wakeups.load(Ordering::Relaxed);
    let begin = Instant::now();
    while turns() < 3 {
        assert!(begin.elapsed() < Duration::from_millis(1900), "{} turns", turns());
        std::thread::sleep(Duration::from_millis(10));
    }
    running.end();
}
