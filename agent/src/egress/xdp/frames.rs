//! Frames of the transmit memory (UMEM) and who may touch them.
//!
//! Each frame has exactly one token. Bytes are reachable only through a
//! [`FreeFrame`]; handing a frame to the kernel turns its token into a
//! [`QueuedFrame`], which opens nothing, lies in the `KernelFrames` table, and becomes a
//! [`FreeFrame`] again only when the completion ring names its address. So safe
//! code cannot write a frame that the kernel may be reading.
//!
//! This module does not know rings: `queue` does.

#![allow(unsafe_code, reason = "frames are pieces of memory shared with the kernel")]

use super::sys::Area;

/// A frame that belongs to us. Neither `Copy` nor `Clone`.
#[derive(Debug, PartialEq, Eq)]
pub struct FreeFrame(u32);

/// A frame that the kernel may read: its descriptor has this TX index.
#[derive(Debug)]
pub struct QueuedFrame {
    frame: u32,
    tx_index: u32,
}

impl FreeFrame {
    /// Gives the frame up to the kernel.
    #[must_use]
    pub fn queued(self, tx_index: u32) -> QueuedFrame {
        QueuedFrame { frame: self.0, tx_index }
    }
}

/// The transmit memory.
pub struct Umem {
    area: Area,
    /// Frames are as long as two to this power, in bytes.
    frame_shift: u32,
    frames: u32,
}

impl Umem {
    /// Cuts `area` into frames and makes the token of each; `None` if it is too
    /// small for them, or if their size is not a power of two.
    pub(super) fn new(
        area: Area,
        frame_bytes: usize,
        frames: u32,
    ) -> Option<(Self, Vec<FreeFrame>)> {
        let len_bytes = frame_bytes.checked_mul(frames as usize)?;
        if len_bytes > area.len_bytes() || !frame_bytes.is_power_of_two() {
            return None;
        }
        // Last in, first out: the frame used last is still in the cache.
        let tokens = (0..frames).rev().map(FreeFrame).collect();
        Some((Self { area, frame_shift: frame_bytes.trailing_zeros(), frames }, tokens))
    }

    /// Bytes per frame.
    #[must_use]
    pub fn frame_bytes(&self) -> usize {
        1 << self.frame_shift
    }

    /// Number of frames.
    #[must_use]
    pub fn frames(&self) -> u32 {
        self.frames
    }

    /// Start of the memory, as it is registered with the kernel.
    #[must_use]
    pub fn base(&self) -> *const u8 {
        self.area.base().as_ptr()
    }

    /// Address of a frame, as it is written into a descriptor.
    #[must_use]
    pub fn address(&self, frame: &FreeFrame) -> u64 {
        u64::from(frame.0) << self.frame_shift
    }

    /// The bytes of a frame that belongs to us. Empty for a token of another
    /// memory that this one has no frame for.
    pub fn bytes_mut<'a>(&'a mut self, frame: &'a mut FreeFrame) -> &'a mut [u8] {
        if frame.0 >= self.frames {
            return &mut [];
        }
        let offset = (frame.0 as usize) << self.frame_shift;
        // SAFETY: `new` checked that the frames lie in the area. The area is
        // borrowed mutably through `self`, so there is one slice at a time, and
        // the kernel never writes: there are no receive frames. That it reads
        // no half-written frame follows from the token, which is not queued.
        unsafe {
            std::slice::from_raw_parts_mut(
                self.area.base().as_ptr().add(offset),
                self.frame_bytes(),
            )
        }
    }
}

/// Tokens of the frames that the kernel holds, by frame.
pub(super) struct KernelFrames {
    held: Box<[Option<QueuedFrame>]>,
    frame_shift: u32,
}

impl KernelFrames {
    pub(super) fn new(umem: &Umem) -> Self {
        let held = (0..umem.frames()).map(|_| None).collect();
        Self { held, frame_shift: umem.frame_shift }
    }

    /// Number of frames that the kernel holds.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.held.iter().flatten().count()
    }

    /// Keeps the token while the kernel has the frame.
    pub(super) fn hold(&mut self, token: QueuedFrame) {
        if let Some(place) = self.held.get_mut(token.frame as usize) {
            *place = Some(token);
        }
    }

    /// Takes the frame at a completed address back, with the TX index of its
    /// descriptor. `None` if the kernel cannot have meant it: no such frame,
    /// not held, or `can_be` says that the descriptor was not published yet.
    pub(super) fn take_back(
        &mut self,
        address: u64,
        can_be: impl FnOnce(u32) -> bool,
    ) -> Option<(FreeFrame, u32)> {
        let frame = address >> self.frame_shift;
        if frame << self.frame_shift != address {
            return None;
        }
        let frame = usize::try_from(frame).ok()?;
        let token = self.held.get_mut(frame)?.take_if(|token| can_be(token.tx_index))?;
        Some((FreeFrame(token.frame), token.tx_index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_comes_back_once() {
        let (umem, mut free) = Umem::new(Area::heap(4 * 64), 64, 4).unwrap();
        let mut kernel = KernelFrames::new(&umem);
        let frame = free.pop().unwrap();
        let address = umem.address(&frame);
        kernel.hold(frame.queued(9));
        assert_eq!(kernel.take_back(address + 1, |_| true), None);
        assert_eq!(kernel.take_back(4 * 64, |_| true), None);
        assert_eq!(kernel.take_back(u64::MAX - 63, |_| true), None);
        assert_eq!(kernel.take_back(address, |tx_index| tx_index != 9), None);
        assert_eq!(kernel.count(), 1);
        let (frame, tx_index) = kernel.take_back(address, |_| true).unwrap();
        assert_eq!((umem.address(&frame), tx_index), (address, 9));
        assert_eq!(kernel.take_back(address, |_| true), None);
        assert_eq!(kernel.count(), 0);
    }

    #[test]
    fn frames_do_not_overlap() {
        let (mut umem, mut free) = Umem::new(Area::heap(4 * 64), 64, 4).unwrap();
        for (value, frame) in (1..).zip(&mut free) {
            umem.bytes_mut(frame).fill(value);
        }
        for (value, frame) in (1..).zip(&mut free) {
            assert_eq!(umem.bytes_mut(frame), [value; 64]);
        }
        assert!(Umem::new(Area::heap(255), 64, 5).is_none());
    }
}
