//! Loads and attaches the programs, and tells in plain words what was refused.

use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
};

use agent_common::{Offsets, SHED_LEVELS, counter};
use aya::{
    Btf as AyaBtf, Ebpf, EbpfLoader,
    maps::{Map, PerCpuArray},
    programs::{BtfTracePoint, FEntry, KProbe, Program, ProgramError, RawTracePoint},
};

use super::{
    Alarm, Doorbell, MappedRing, RingView,
    allocator::give_free_pages_back,
    refusal::{Refusal, chain, explain},
};
use crate::capture::{btf::Btf, offsets};

/// Size of the doorbell's ring, as the object declares it.
const DOORBELL_BYTES: usize = 4096;
/// Size of the ring for netdev events, as the object declares it.
const NETDEV_BYTES: usize = 64 << 10;

/// The size that a ring really has. The kernel takes whole pages alone (`ringbuf_map_alloc`,
/// kernel/bpf/ringbuf.c), and the loader enlarges what is smaller: on arm64 a page may have 64 KiB.
fn real_bytes(declared_bytes: usize) -> usize {
    declared_bytes.max(rustix::param::page_size())
}

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/agent-ebpf"));

/// Why a hook, or the programs as a whole, cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The object was refused as a whole: maps could not be made.
    #[error("the kernel refused the eBPF maps: {0} (needs CAP_BPF and CONFIG_BPF_SYSCALL=y)")]
    Object(String),
    /// None of the hooks of the wanted kind could be attached.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Refused(Vec<Refusal>),
    /// A map of the object is missing or has another type.
    #[error("the eBPF object has no map {0} of the expected type; it belongs to another version")]
    Map(&'static str),
    /// Shared memory could not be mapped.
    #[error("cannot map the eBPF map {map}: {source}")]
    Mmap {
        /// Map that was to be mapped.
        map: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// How records reach the programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordHook {
    /// fentry on `prb_commit` and `prb_final_commit`.
    CommitFentry,
    /// kprobe on the same.
    CommitKprobe,
    /// BTF tracepoint `printk:console`.
    TracepointBtf,
    /// Raw tracepoint `printk:console`.
    TracepointRaw,
}

impl RecordHook {
    /// The words used in `status` and in the log.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::CommitFentry => "fentry prb_commit, prb_final_commit",
            Self::CommitKprobe => "kprobe prb_commit, prb_final_commit",
            Self::TracepointBtf => "tp_btf printk:console",
            Self::TracepointRaw => "raw_tp printk:console",
        }
    }
}

/// How netdev events reach the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetdevHook {
    /// fentry on `call_netdevice_notifiers_info`.
    Fentry,
    /// kprobe on the same.
    Kprobe,
}

/// How a panic is proved, besides the kernel's `panic_cpu`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PanicHook {
    /// fentry on `vpanic`, which newer kernels have.
    Fentry,
    /// kprobe on `panic`.
    Kprobe,
}

impl PanicHook {
    /// The words used in `status` and in the log.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Fentry => "fentry vpanic",
            Self::Kprobe => "kprobe panic",
        }
    }
}

/// The counters of the programs, summed over CPUs (see [`agent_common::counter`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Records written to the ring.
    pub captured: u64,
    /// Records that found the ring full.
    pub ring_full: u64,
    /// Records that were left out while the ring filled up, from debug on to more severe ones.
    pub shed: [u64; SHED_LEVELS as usize],
    /// Reads of kernel memory that failed.
    pub read_error: u64,
    /// Times the doorbell was rung.
    pub doorbell: u64,
    /// Netdev events written.
    pub netdev: u64,
    /// Netdev events that found their ring full.
    pub netdev_full: u64,
    /// Runs that the kernel skipped because the program was running already.
    pub recursion_misses: u64,
}

/// The loaded object with what is attached. Dropping it detaches everything.
pub struct Probes {
    ebpf: Ebpf,
    kernel_btf: Option<AyaBtf>,
    ring_bytes: usize,
    /// Why the commit hooks cannot be used, if their layout is not known.
    pub(super) commit_unknown: Option<String>,
    pub(super) netdev_unknown: Option<String>,
    pub(super) attached: BTreeMap<&'static str, OwnedFd>,
}

impl Probes {
    /// Creates the maps (the ring of records with `ring_bytes` bytes) and looks up the
    /// kernel's layouts. Attaches nothing.
    ///
    /// # Errors
    /// If the kernel refuses the maps.
    pub fn load(ring_bytes: u32) -> Result<Self, ProbeError> {
        let mut layout = Offsets {
            own_netns_inum: rustix::fs::stat("/proc/self/ns/net")
                .map(|stat| stat.st_ino as u32)
                .unwrap_or(0),
            ring_sixteenth_bytes: ring_bytes / 16,
            ..Offsets::default()
        };
        let (commit_unknown, netdev_unknown) = match Btf::of_running_kernel() {
            Ok(btf) => {
                if let Err(error) = offsets::task(&btf, &mut layout) {
                    tracing::info!(%error, "Names of cgroups are not known on this kernel.");
                }
                (
                    offsets::printk(&btf, &mut layout).err().map(|error| error.to_string()),
                    offsets::netdev(&btf, &mut layout).err().map(|error| error.to_string()),
                )
            }
            Err(error) => (Some(error.to_string()), Some(error.to_string())),
        };
        let ebpf = EbpfLoader::new()
            .override_global("OFFSETS", &layout, true)
            .map_max_entries("RECORDS", ring_bytes)
            .load(OBJECT)
            .map_err(|error| ProbeError::Object(chain(&error)))?;
        Ok(Self {
            ebpf,
            kernel_btf: AyaBtf::from_sys_fs().ok(),
            ring_bytes: real_bytes(ring_bytes as usize),
            commit_unknown,
            netdev_unknown,
            attached: BTreeMap::new(),
        })
    }

    /// Attaches the commit hooks: fentry, else kprobe.
    ///
    /// # Errors
    /// [`ProbeError::Refused`] with what was tried.
    pub fn attach_commit(&mut self) -> Result<RecordHook, ProbeError> {
        if let Some(cause) = &self.commit_unknown {
            return Err(ProbeError::Refused(vec![Refusal {
                hook: "prb_commit".to_owned(),
                cause: cause.clone(),
                errno: None,
            }]));
        }
        let fentry =
            [("printk_commit_fentry", "prb_commit"), ("printk_final_fentry", "prb_final_commit")];
        let kprobe =
            [("printk_commit_kprobe", "prb_commit"), ("printk_final_kprobe", "prb_final_commit")];
        self.first_of([(RecordHook::CommitFentry, &fentry), (RecordHook::CommitKprobe, &kprobe)])
    }

    /// Attaches the printk tracepoint: with BTF, else raw.
    ///
    /// # Errors
    /// [`ProbeError::Refused`] with what was tried.
    pub fn attach_tracepoint(&mut self) -> Result<RecordHook, ProbeError> {
        self.first_of([
            (RecordHook::TracepointBtf, &[("printk_tp_btf", "console")]),
            (RecordHook::TracepointRaw, &[("printk_raw_tp", "console")]),
        ])
    }

    /// Attaches the hook for netdev events: fentry, else kprobe.
    ///
    /// # Errors
    /// [`ProbeError::Refused`] with what was tried.
    pub fn attach_netdev(&mut self) -> Result<NetdevHook, ProbeError> {
        let function = "call_netdevice_notifiers_info";
        if let Some(cause) = &self.netdev_unknown {
            return Err(ProbeError::Refused(vec![Refusal {
                hook: function.to_owned(),
                cause: cause.clone(),
                errno: None,
            }]));
        }
        self.first_of([
            (NetdevHook::Fentry, &[("netdev_fentry", function)]),
            (NetdevHook::Kprobe, &[("netdev_kprobe", function)]),
        ])
    }

    /// Attaches the hook that proves a panic: fentry, else kprobe.
    ///
    /// # Errors
    /// [`ProbeError::Refused`] with what was tried.
    pub fn attach_panic(&mut self) -> Result<PanicHook, ProbeError> {
        self.first_of([
            (PanicHook::Fentry, &[("panic_fentry", "vpanic")]),
            (PanicHook::Kprobe, &[("panic_kprobe", "panic")]),
        ])
    }

    /// Attaches the first set of programs that the kernel takes whole.
    fn first_of<H: Copy, const N: usize>(
        &mut self,
        choices: [(H, &[(&'static str, &'static str)]); N],
    ) -> Result<H, ProbeError> {
        let mut refusals = Vec::new();
        for (hook, programs) in choices {
            match programs.iter().try_for_each(|(program, at)| self.attach(program, at)) {
                Ok(()) => return Ok(hook),
                Err(refusal) => {
                    // A half-attached set would capture some records twice.
                    for (program, _) in programs {
                        self.detach(program);
                    }
                    refusals.push(refusal);
                }
            }
        }
        Err(ProbeError::Refused(refusals))
    }

    pub(super) fn attach(&mut self, name: &'static str, at: &'static str) -> Result<(), Refusal> {
        let refused =
            |kind: &str, (cause, errno)| Refusal { hook: format!("{kind} {at}"), cause, errno };
        let Self { ebpf, kernel_btf, attached, .. } = self;
        let Some(program) = ebpf.program_mut(name) else {
            let cause = format!("the eBPF object has no program {name}");
            return Err(refused("program", (cause, None)));
        };
        let no_btf =
            || Err(("the kernel has no type information (CONFIG_DEBUG_INFO_BTF)".to_owned(), None));
        let explained = |result: Result<(), ProgramError>| result.map_err(|error| explain(&error));
        let (kind, result) = match program {
            Program::FEntry(program) => (
                "fentry",
                match kernel_btf {
                    Some(btf) => explained(load_fentry(program, at, btf)),
                    None => no_btf(),
                },
            ),
            Program::BtfTracePoint(program) => (
                "tp_btf",
                match kernel_btf {
                    Some(btf) => explained(load_tp_btf(program, at, btf)),
                    None => no_btf(),
                },
            ),
            Program::RawTracePoint(program) => ("raw_tp", explained(load_raw_tp(program, at))),
            Program::KProbe(program) => ("kprobe", explained(load_kprobe(program, at))),
            _ => (
                "program",
                Err(("the eBPF object has a program of an unknown type".to_owned(), None)),
            ),
        };
        result.map_err(|cause| refused(kind, cause))?;
        if let Some(fd) = program.fd().ok().and_then(|fd| fd.as_fd().try_clone_to_owned().ok()) {
            attached.insert(name, fd);
        }
        Ok(())
    }

    pub(super) fn detach(&mut self, name: &str) {
        self.attached.remove(name);
        // Not loaded is fine: then nothing is attached either.
        let _ = match self.ebpf.program_mut(name) {
            Some(Program::FEntry(program)) => program.unload(),
            Some(Program::KProbe(program)) => program.unload(),
            Some(Program::BtfTracePoint(program)) => program.unload(),
            Some(Program::RawTracePoint(program)) => program.unload(),
            _ => Ok(()),
        };
    }

    /// Frees what only attaching needs: the kernel's type information is the
    /// largest thing in the process's memory.
    pub fn attached_all(&mut self) {
        self.kernel_btf = None;
        give_free_pages_back();
    }

    /// Maps the ring of records, with two more looks into it.
    ///
    /// # Errors
    /// If it was taken before or cannot be mapped.
    pub fn take_records(&mut self) -> Result<(MappedRing, [RingView; 2]), ProbeError> {
        let map = self.take_ring("RECORDS")?;
        let view = || RingView::new(map.as_fd(), self.ring_bytes);
        MappedRing::new(map.as_fd(), self.ring_bytes)
            .and_then(|ring| Ok((ring, [view()?, view()?])))
            .map_err(|source| ProbeError::Mmap { map: "RECORDS", source })
    }

    /// Maps what the programs and the agent tell each other in a panic.
    ///
    /// # Errors
    /// If it was taken before or cannot be mapped.
    pub fn take_alarm(&mut self) -> Result<Alarm, ProbeError> {
        match self.ebpf.take_map("LAST_WORDS") {
            Some(Map::Array(map)) => Alarm::new(map.fd().as_fd())
                .map_err(|source| ProbeError::Mmap { map: "LAST_WORDS", source }),
            _ => Err(ProbeError::Map("LAST_WORDS")),
        }
    }

    /// Maps the doorbell and the sleeper's flag.
    ///
    /// # Errors
    /// If they were taken before or cannot be mapped.
    pub fn take_doorbell(&mut self) -> Result<Doorbell, ProbeError> {
        let ring = self.take_ring("DOORBELL")?;
        let flag = match self.ebpf.take_map("SLEEPER") {
            Some(Map::Array(map)) => map.fd().as_fd().try_clone_to_owned(),
            _ => return Err(ProbeError::Map("SLEEPER")),
        };
        flag.and_then(|flag| Doorbell::new(ring.as_fd(), real_bytes(DOORBELL_BYTES), flag.as_fd()))
            .map_err(|source| ProbeError::Mmap { map: "DOORBELL", source })
    }

    /// Maps the ring of netdev events, with a descriptor to wait on.
    ///
    /// # Errors
    /// If it was taken before or cannot be mapped.
    pub fn take_netdev_events(&mut self) -> Result<(OwnedFd, MappedRing), ProbeError> {
        let fd = self.take_ring("NETDEV_EVENTS")?;
        let ring = MappedRing::new(fd.as_fd(), real_bytes(NETDEV_BYTES))
            .map_err(|source| ProbeError::Mmap { map: "NETDEV_EVENTS", source })?;
        Ok((fd, ring))
    }

    fn take_ring(&mut self, name: &'static str) -> Result<OwnedFd, ProbeError> {
        match self.ebpf.take_map(name) {
            Some(Map::RingBuf(map)) => map
                .fd()
                .as_fd()
                .try_clone_to_owned()
                .map_err(|source| ProbeError::Mmap { map: name, source }),
            _ => Err(ProbeError::Map(name)),
        }
    }

    /// Connects the programs' own messages to the agent's log. The caller polls it.
    ///
    /// # Errors
    /// If the object has no log map, or it was taken before.
    pub fn take_log(&mut self) -> Result<aya_log::EbpfLogger<&'static dyn log::Log>, String> {
        aya_log::EbpfLogger::init(&mut self.ebpf).map_err(|error| chain(&error))
    }

    /// Reads the programs' counters.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let read = |index: u32| -> u64 {
            let Some(Ok(map)) = self.ebpf.map("COUNTERS").map(PerCpuArray::<_, u64>::try_from)
            else {
                return 0;
            };
            map.get(&index, 0).map(|values| values.iter().sum()).unwrap_or(0)
        };
        Counters {
            captured: read(counter::CAPTURED),
            ring_full: read(counter::RING_FULL),
            shed: std::array::from_fn(|milder| read(counter::SHED + milder as u32)),
            read_error: read(counter::READ_ERROR),
            doorbell: read(counter::DOORBELL),
            netdev: read(counter::NETDEV),
            netdev_full: read(counter::NETDEV_FULL),
            recursion_misses: self.attached.values().filter_map(recursion_misses).sum(),
        }
    }
}

/// `recursion_misses` of a program (`bpf_prog_show_fdinfo`, kernel/bpf/syscall.c, Linux 5.12).
fn recursion_misses(fd: &OwnedFd) -> Option<u64> {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).ok()?;
    let line = info.lines().find(|line| line.starts_with("recursion_misses:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

fn load_fentry(program: &mut FEntry, at: &str, btf: &AyaBtf) -> Result<(), ProgramError> {
    program.load(at, btf)?;
    program.attach().map(drop)
}

fn load_tp_btf(program: &mut BtfTracePoint, at: &str, btf: &AyaBtf) -> Result<(), ProgramError> {
    program.load(at, btf)?;
    program.attach().map(drop)
}

fn load_raw_tp(program: &mut RawTracePoint, at: &str) -> Result<(), ProgramError> {
    program.load()?;
    program.attach(at).map(drop)
}

fn load_kprobe(program: &mut KProbe, at: &str) -> Result<(), ProgramError> {
    program.load()?;
    program.attach(at, 0).map(drop)
}
