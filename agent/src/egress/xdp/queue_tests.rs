//! The bookkeeping against a simulated kernel: no frame is lost, none is used
//! twice, and what is told is what the kernel did.
#![allow(unsafe_code, reason = "the simulated kernel reads frames as the real one does")]

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::*;
use rustix::net::xdp::XdpDesc;

use super::*;
use crate::egress::xdp::ring::kernel_end::{self, KernelEnd};
use crate::egress::xdp::sys::Area;

const FRAME_BYTES: usize = 64;
const MTU_BYTES: u32 = 40;
const BUDGET: u32 = 4;

/// What the simulated driver does with a frame.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Sent,
    /// `NET_XMIT_DROP`; its completion comes at once or later.
    Dropped {
        late: bool,
    },
    /// `NETDEV_TX_BUSY`.
    Busy,
    /// No memory for the packet.
    NoMemory,
}

/// A frame that the driver holds, with the bytes it had when it was consumed.
struct InDriver {
    address: u64,
    bytes: Vec<u8>,
}

/// What `net/xdp/xsk.c` does in copy mode.
struct Kernel {
    tx: KernelEnd<XdpDesc>,
    completions: KernelEnd<u64>,
    memory: *const u8,
    /// Next descriptor to consume, of which shared memory may not know.
    consumer: u32,
    /// On older kernels the index is published when the ring looks empty.
    lazy: bool,
    down: bool,
    in_driver: Vec<InDriver>,
    /// What became of each consumed descriptor, in order.
    consumed: Vec<(Vec<u8>, Outcome)>,
}

// SAFETY: the tests keep memory and rings alive as long as their kernel.
unsafe impl Send for Kernel {}

impl Kernel {
    fn bytes(&self, address: u64, len: usize) -> Vec<u8> {
        // SAFETY: the memory outlives the kernel, and frames that were queued
        // are not written; that the bytes stay the same is what is tested.
        unsafe { std::slice::from_raw_parts(self.memory.add(address as usize), len) }.to_vec()
    }

    fn publish(&self) {
        self.tx.consumer().store(self.consumer, Ordering::Release);
    }

    fn has_descriptor(&self) -> bool {
        self.tx.producer().load(Ordering::Acquire) != self.consumer
    }

    fn unread_completions(&self) -> u32 {
        let consumer = self.completions.consumer().load(Ordering::Acquire);
        self.completions.producer().load(Ordering::Relaxed).wrapping_sub(consumer)
    }

    fn post_completion(&self, address: u64) {
        assert!(self.unread_completions() < self.completions.capacity());
        let index = self.completions.producer().load(Ordering::Relaxed);
        self.completions.write(index, address);
        self.completions.producer().store(index.wrapping_add(1), Ordering::Release);
    }

    fn complete(&mut self, nth: usize) {
        if !self.in_driver.is_empty() {
            let frame = self.in_driver.swap_remove(nth % self.in_driver.len());
            assert_eq!(
                self.bytes(frame.address, frame.bytes.len()),
                frame.bytes,
                "a frame was written while the kernel held it"
            );
            self.post_completion(frame.address);
        }
    }

    fn kick(&mut self, fates: &mut VecDeque<Fate>) -> Result<(), Errno> {
        if self.down {
            return Err(Errno::NETDOWN);
        }
        let mut sent_any = false;
        let mut budget = BUDGET;
        let answer = loop {
            if !self.has_descriptor() {
                self.publish();
                break Ok(());
            }
            if budget == 0 {
                break Err(Errno::AGAIN);
            }
            budget -= 1;
            let reserved = self.unread_completions() + self.in_driver.len() as u32;
            if reserved >= self.completions.capacity() {
                break Err(Errno::AGAIN);
            }
            let fate = fates.pop_front().unwrap_or(Fate::Sent);
            match fate {
                Fate::Busy => break Err(Errno::AGAIN),
                Fate::NoMemory => break Err(Errno::NOBUFS),
                Fate::Sent | Fate::Dropped { .. } => {}
            }
            let XdpDesc { addr, len, .. } = self.tx.read(self.consumer);
            assert!(addr.is_multiple_of(FRAME_BYTES as u64) && len as usize <= FRAME_BYTES);
            assert!(
                self.in_driver.iter().all(|held| held.address != addr),
                "a frame was queued while the kernel held it"
            );
            let bytes = self.bytes(addr, len as usize);
            self.consumer = self.consumer.wrapping_add(1);
            self.in_driver.push(InDriver { address: addr, bytes: bytes.clone() });
            if let Fate::Dropped { late } = fate {
                self.consumed.push((bytes, Outcome::Dropped));
                // Old kernels show the drop by nothing but its completion.
                if !late || self.lazy {
                    self.complete(self.in_driver.len() - 1);
                }
                break Err(Errno::BUSY);
            }
            self.consumed.push((bytes, Outcome::Sent));
            sent_any = true;
        };
        if sent_any && !self.lazy {
            self.publish();
        }
        answer
    }

    /// Addresses of which a completion would be a lie: everything but what the
    /// driver holds, what it was already told, and what it may read.
    fn lies(&self, frames: u32) -> Vec<u64> {
        let mut true_ones: HashSet<u64> = self.in_driver.iter().map(|f| f.address).collect();
        let mut index = self.consumer;
        while index != self.tx.producer().load(Ordering::Acquire) {
            true_ones.insert(self.tx.read(index).addr);
            index = index.wrapping_add(1);
        }
        let mut index = self.completions.consumer().load(Ordering::Acquire);
        while index != self.completions.producer().load(Ordering::Relaxed) {
            true_ones.insert(self.completions.read(index));
            index = index.wrapping_add(1);
        }
        let mut lies: Vec<u64> = (0..u64::from(frames))
            .map(|frame| frame * FRAME_BYTES as u64)
            .filter(|address| !true_ones.contains(address))
            .collect();
        lies.extend([1, FRAME_BYTES as u64 + 8, u64::from(frames) * FRAME_BYTES as u64, u64::MAX]);
        lies
    }
}

fn queue_and_kernel(frames: u32, first: u32, lazy: bool) -> (TxQueue, Kernel) {
    let area = Area::heap(FRAME_BYTES * frames as usize);
    let (umem, free) = Umem::new(area, FRAME_BYTES, frames).unwrap();
    let memory = umem.base();
    let (tx, completions, tx_end, completion_end) =
        kernel_end::rings(frames.next_power_of_two(), first);
    let kernel = Kernel {
        tx: tx_end,
        completions: completion_end,
        memory,
        consumer: first,
        lazy,
        down: false,
        in_driver: Vec::new(),
        consumed: Vec::new(),
    };
    (TxQueue::new(umem, free, tx, completions), kernel)
}

/// A frame that no other push makes.
fn contents(number: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![number as u8; len];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    bytes
}

#[derive(Clone, Debug)]
enum Op {
    Push { len: usize },
    Flush { fates: Vec<Fate> },
    Complete { nth: usize },
    Lie { nth: usize },
    Reap,
    Link { down: bool },
}

fn any_op() -> impl Strategy<Value = Op> {
    let fate = prop_oneof![
        6 => Just(Fate::Sent),
        2 => any::<bool>().prop_map(|late| Fate::Dropped { late }),
        1 => Just(Fate::Busy),
        1 => Just(Fate::NoMemory),
    ];
    prop_oneof![
        8 => (8usize..80).prop_map(|len| Op::Push { len }),
        4 => proptest::collection::vec(fate, 0..12).prop_map(|fates| Op::Flush { fates }),
        8 => any::<usize>().prop_map(|nth| Op::Complete { nth }),
        2 => any::<usize>().prop_map(|nth| Op::Lie { nth }),
        3 => Just(Op::Reap),
        1 => any::<bool>().prop_map(|down| Op::Link { down }),
    ]
}

/// The queue, its kernel, and what was asked of them.
struct Trial {
    queue: TxQueue,
    kernel: Kernel,
    frames: u32,
    pushed: Vec<Vec<u8>>,
    told: Vec<(Tag, Outcome)>,
}

impl Trial {
    fn new(frames: u32, first: u32, lazy: bool) -> Self {
        let (queue, kernel) = queue_and_kernel(frames, first, lazy);
        Self { queue, kernel, frames, pushed: Vec::new(), told: Vec::new() }
    }

    fn push(&mut self, len: usize) {
        let number = self.pushed.len() as u64;
        let bytes = contents(number, len.max(8));
        let (free_before, _) = self.queue.frames();
        let unread = self.kernel.unread_completions();
        let result = self.queue.push(Tag(number), MTU_BYTES, &mut |slot| {
            let fits = len.min(slot.len());
            slot[..fits].copy_from_slice(&bytes[..fits]);
            len
        });
        match result {
            Ok(()) => {
                assert!((14..=14 + MTU_BYTES as usize).contains(&len));
                self.pushed.push(bytes[..len].to_vec());
            }
            Err(PushError::Full) => assert!(
                (free_before == 0 && unread == 0)
                    || self.queue.queued() == self.frames.next_power_of_two() as usize
                    || self.queue.frames().0 == 0
            ),
            Err(PushError::TooLong { len_bytes, limit_bytes }) => {
                assert!(len_bytes == len && len > 54 && limit_bytes == 54);
            }
            Err(PushError::TooShort { len_bytes, .. }) => assert!(len_bytes == len && len < 14),
        }
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Push { len } => self.push(len),
            Op::Flush { fates } => {
                let mut fates = fates.into();
                let kernel = &mut self.kernel;
                let idle = kernel.tx.producer().load(Ordering::Relaxed);
                let result = self.queue.flush(|| kernel.kick(&mut fates));
                let pending = idle != self.kernel.consumer || self.queue.queued() > 0;
                if !self.kernel.down || !pending {
                    assert_eq!(result, Ok(()));
                }
            }
            Op::Complete { nth } => self.kernel.complete(nth),
            Op::Lie { nth } => {
                let lies = self.kernel.lies(self.frames);
                let reserved =
                    self.kernel.unread_completions() + self.kernel.in_driver.len() as u32;
                if reserved < self.kernel.completions.capacity() {
                    self.reap();
                    let before = self.queue.frames();
                    self.kernel.post_completion(lies[nth % lies.len()]);
                    // At once: later the address may be true.
                    self.reap();
                    assert_eq!(self.queue.frames(), before, "a lie was believed");
                }
            }
            Op::Reap => self.reap(),
            Op::Link { down } => self.kernel.down = down,
        }
        self.check();
    }

    fn reap(&mut self) {
        let told = &mut self.told;
        self.queue.reap(&mut |tag, outcome| told.push((tag, outcome)));
    }

    fn check(&self) {
        let (free, held) = self.queue.frames();
        assert_eq!(free + held, self.frames as usize, "a frame was lost or doubled");
        assert_eq!(self.queue.queued() + self.told.len(), self.pushed.len());
        self.check_told();
    }

    fn check_told(&self) {
        for (number, (tag, outcome)) in self.told.iter().enumerate() {
            assert_eq!(tag.0, number as u64, "out of order");
            let (bytes, really) = &self.kernel.consumed[number];
            assert_eq!((bytes, really), (&self.pushed[number], outcome));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn nothing_is_lost_doubled_or_misreported(
        ops in proptest::collection::vec(any_op(), 1..150),
        frames in prop_oneof![Just(1u32), Just(5), Just(8)],
        first in prop_oneof![Just(0u32), Just(u32::MAX - 7), Just(i32::MAX as u32 - 7)],
        lazy in any::<bool>(),
        give_up in any::<bool>(),
    ) {
        let mut trial = Trial::new(frames, first, lazy);
        for op in ops {
            trial.apply(op);
        }
        if give_up {
            let mut unsent = Vec::new();
            trial.queue.abandon(&mut |tag, outcome| match outcome {
                Some(outcome) => trial.told.push((tag, outcome)),
                None => unsent.push(tag.0),
            });
            trial.check_told();
            let told = trial.told.len() as u64;
            prop_assert_eq!(unsent, (told..trial.pushed.len() as u64).collect::<Vec<_>>());
            if !lazy {
                prop_assert_eq!(trial.kernel.consumed.len() as u64, told);
            }
            prop_assert_eq!(trial.queue.queued(), 0);
            let refused = trial.queue.push(Tag(0), MTU_BYTES, &mut |_| 20);
            prop_assert!(matches!(refused, Err(PushError::Full)));
            prop_assert_eq!(trial.queue.flush(|| panic!("a kick after giving up")), Ok(()));
            // Late completions of what was sent before do no harm.
            while !trial.kernel.in_driver.is_empty() {
                trial.kernel.complete(0);
            }
            trial.queue.reap(&mut |_, _| panic!("told after giving up"));
            let (free, held) = trial.queue.frames();
            prop_assert_eq!(free + held, frames as usize);
        } else {
            // Whatever happened: with a working device everything leaves and
            // every frame comes home.
            trial.kernel.down = false;
            for _ in 0..64 {
                trial.apply(Op::Flush { fates: Vec::new() });
                trial.apply(Op::Complete { nth: 0 });
            }
            trial.reap();
            trial.check();
            prop_assert_eq!(trial.told.len(), trial.pushed.len());
            prop_assert_eq!(trial.queue.frames(), (frames as usize, 0));
        }
    }
}

#[test]
fn a_queue_that_the_device_lost_is_an_error() {
    let (mut queue, _kernel) = queue_and_kernel(4, 0, false);
    queue.push(Tag(1), MTU_BYTES, &mut |_| 20).unwrap();
    let mut kicks = 0;
    let result = queue.flush(|| {
        kicks += 1;
        Ok(())
    });
    assert_eq!((result, kicks), (Err(Errno::NXIO), IDLE_KICKS_MAX));
    assert_eq!(queue.queued(), 1);
}

#[test]
fn errors_that_pass_are_retried_a_few_times_and_then_left() {
    for error in [Errno::AGAIN, Errno::NOBUFS, Errno::NOMEM, Errno::INTR] {
        let (mut queue, _kernel) = queue_and_kernel(4, 0, false);
        queue.push(Tag(1), MTU_BYTES, &mut |_| 20).unwrap();
        let mut kicks = 0;
        let result = queue.flush(|| {
            kicks += 1;
            Err(error)
        });
        assert_eq!((result, kicks), (Ok(()), IDLE_KICKS_MAX));
        queue.reap(&mut |_, _| panic!("nothing was taken"));
        assert_eq!(queue.queued(), 1);
    }
}

#[test]
fn errors_that_stay_are_told_at_once() {
    for error in [Errno::NETDOWN, Errno::NXIO, Errno::BADF] {
        let (mut queue, mut kernel) = queue_and_kernel(4, 0, false);
        queue.push(Tag(1), MTU_BYTES, &mut |_| 20).unwrap();
        let mut kicks = 0;
        let result = queue.flush(|| {
            kicks += 1;
            Err(error)
        });
        assert_eq!((result, kicks, queue.queued()), (Err(error), 1, 1));
        // It is offered again, without being pushed again.
        assert_eq!(queue.flush(|| kernel.kick(&mut VecDeque::new())), Ok(()));
        assert_eq!(kernel.consumed.len(), 1);
    }
}

#[test]
fn nothing_to_send_costs_no_system_call() {
    let (mut queue, mut kernel) = queue_and_kernel(4, 0, false);
    assert_eq!(queue.flush(|| panic!("kicked")), Ok(()));
    queue.push(Tag(1), MTU_BYTES, &mut |_| 20).unwrap();
    let mut kicks = 0;
    queue
        .flush(|| {
            kicks += 1;
            kernel.kick(&mut VecDeque::new())
        })
        .unwrap();
    assert_eq!(kicks, 1);
    assert_eq!(queue.flush(|| panic!("kicked")), Ok(()));
}

/// The kernel on another thread, as a driver that polls by itself: what it
/// reads must be whole (acquire and release on real memory).
#[test]
fn a_kernel_on_another_cpu_sees_whole_frames() {
    const DATAGRAMS: u64 = 20_000;
    let (mut queue, mut kernel) = queue_and_kernel(16, u32::MAX - 100, false);
    let stop = AtomicBool::new(false);
    let mut told = 0;
    let kernel = std::thread::scope(|scope| {
        let polling = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let _ = kernel.kick(&mut VecDeque::new());
                kernel.complete(kernel.consumed.len());
                std::thread::yield_now();
            }
            kernel
        });
        let mut pushed = 0;
        while told < DATAGRAMS {
            if pushed < DATAGRAMS {
                let bytes = contents(pushed, 14 + (pushed % 40) as usize);
                let result = queue.push(Tag(pushed), MTU_BYTES, &mut |slot| {
                    slot[..bytes.len()].copy_from_slice(&bytes);
                    bytes.len()
                });
                pushed += u64::from(result.is_ok());
            }
            queue.tx.publish();
            queue.reap(&mut |tag, outcome| {
                assert_eq!((tag, outcome), (Tag(told), Outcome::Sent));
                told += 1;
            });
            std::thread::yield_now();
        }
        stop.store(true, Ordering::Relaxed);
        polling.join().unwrap()
    });
    for (number, (bytes, _)) in kernel.consumed.iter().enumerate() {
        let len = 14 + number % 40;
        assert_eq!(*bytes, contents(number as u64, len));
    }
}
