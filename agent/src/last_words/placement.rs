//! Which CPUs pump and understudy run on: never the same one, so that whichever CPU panics, one of
//! them is elsewhere.
//!
//! The understudy has one CPU for itself (the last one that the process may use), and the pump all the
//! others: so the scheduler may still move the pump away from work that is more urgent.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Where the two run.
#[derive(Clone, Copy, Debug)]
pub struct Placement {
    pump: CpuSet,
    understudy: u32,
}

impl Placement {
    /// For the CPUs that this process may use now; `None` if it is only one, where nobody is left
    /// when that one panics.
    #[must_use]
    pub fn of_this_process() -> Option<Self> {
        Self::among(&sched_getaffinity(None).ok()?)
    }

    fn among(allowed: &CpuSet) -> Option<Self> {
        let mut cpus = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu));
        let first = cpus.next()?;
        let last = cpus.next_back()?;
        let mut pump = *allowed;
        pump.unset(last);
        debug_assert!(pump.is_set(first));
        Some(Self { pump, understudy: u32::try_from(last).ok()? })
    }

    /// The CPU of the understudy.
    #[must_use]
    pub fn understudy(&self) -> u32 {
        self.understudy
    }

    /// Places the calling thread, which is the pump.
    ///
    /// # Errors
    /// That of `sched_setaffinity(2)`, `EINVAL` if all these CPUs went offline meanwhile.
    pub fn place_pump(&self) -> rustix::io::Result<()> {
        sched_setaffinity(None, &self.pump)
    }

    /// Places the calling thread, which is the understudy.
    ///
    /// # Errors
    /// As of [`Self::place_pump`].
    pub fn place_understudy(&self) -> rustix::io::Result<()> {
        let mut one = CpuSet::new();
        one.set(self.understudy as usize);
        sched_setaffinity(None, &one)
    }
}

/// The CPU that the calling thread runs on.
#[must_use]
pub fn current_cpu() -> u32 {
    u32::try_from(rustix::thread::sched_getcpu()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(cpus: &[usize]) -> CpuSet {
        let mut set = CpuSet::new();
        cpus.iter().for_each(|cpu| set.set(*cpu));
        set
    }

    #[test]
    fn the_two_never_share_a_cpu() {
        assert!(Placement::among(&set(&[])).is_none());
        assert!(Placement::among(&set(&[5])).is_none());
        let two = Placement::among(&set(&[0, 1])).unwrap();
        assert_eq!((two.pump, two.understudy()), (set(&[0]), 1));
        let some = Placement::among(&set(&[2, 3, 7])).unwrap();
        assert_eq!((some.pump, some.understudy()), (set(&[2, 3]), 7));
    }

    #[test]
    fn a_thread_goes_where_it_is_placed() {
        std::thread::spawn(|| {
            let Some(placement) = Placement::of_this_process() else { return };
            placement.place_understudy().unwrap();
            assert_eq!(current_cpu(), placement.understudy());
            // The pump's CPUs, from here.
            placement.place_pump().unwrap();
            assert_ne!(current_cpu(), placement.understudy());
        })
        .join()
        .unwrap();
    }
}
