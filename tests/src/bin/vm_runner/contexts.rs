//! Records out of contexts that user space cannot print from: hard interrupts, NMIs, printk
//! inside of printk, and continuations of several CPUs at once. All by means of stock
//! kernels; that they really came from there, the host sees from their texts.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use super::{
    DISTURBER_CPU, LIMIT, PIECES, WRITER_CPU, join, on_thread, say, set, settle, sysrq_help, tool,
    write,
};

const TRACING: &str = "/sys/kernel/tracing";
/// Functions on the way of a record, the best first: in `printk_sprint` its place in the ring
/// is reserved and not committed yet.
const INSIDE_OF_PRINTK: [&str; 3] = ["printk_sprint", "prb_reserve", "vprintk_store"];

/// Ports of the keyboard controller, and its command that puts a byte where the keyboard's
/// are read, with its interrupt (Intel 8042; QEMU's `hw/input/pckbd.c`).
const I8042_DATA: u64 = 0x60;
const I8042_COMMAND: u64 = 0x64;
const WRITE_OUTPUT_BUFFER: u8 = 0xd2;
const OUTPUT_FULL: u8 = 1 << 0;
const INPUT_FULL: u8 = 1 << 1;
/// Scan codes (set 1); a key that is let go has bit 7 set.
const KEY_ALT: u8 = 0x38;
const KEY_SYSRQ: u8 = 0x54;
const KEY_H: u8 = 0x23;
const KEY_L: u8 = 0x26;
const KEY_P: u8 = 0x19;
const LET_GO: u8 = 0x80;

/// How many records must be pieces of broken texts.
const PIECES_WANTED: u64 = 1;
const PIECES_ROUNDS_MAX: u32 = 30;

/// Allows what the records need.
pub(super) fn prepare() -> Result<()> {
    set(Path::new("/proc/sys/kernel/sysrq"), "1")?;
    for module in ["i8042", "atkbd"] {
        // Where it is built in there is none; a keyboard that is missing is seen below.
        if let Err(error) = tool("modprobe", &[module]) {
            say(&format!("modprobe: {error:#}"));
        }
    }
    Ok(())
}

/// Makes the kernel log them.
pub(super) fn log_records() -> Result<()> {
    from_nmi().context("from NMIs")?;
    from_interrupts().context("from interrupts")?;
    inside_of_printk().context("inside of printk")?;
    continuations_of_two_cpus().context("continuations")
}

/// Texts that are as long as the kernel takes them; before 6.3 it takes less.
pub(super) fn longest_records() -> Result<()> {
    for length in 986..=1030 {
        let record = format!("<14>{}\n", super::filler(length));
        let refused = |error: &anyhow::Error| {
            let error = error.downcast_ref::<std::io::Error>();
            error.is_some_and(|error| error.kind() == ErrorKind::InvalidInput)
        };
        if let Err(error) = write(record)
            && !refused(&error)
        {
            return Err(error);
        }
    }
    Ok(())
}

/// The backtraces of all CPUs: the others, of which one is busy, print theirs in an NMI.
fn from_nmi() -> Result<()> {
    let over = Arc::new(AtomicBool::new(false));
    let busy = on_thread("vm_busy", DISTURBER_CPU, {
        let over = Arc::clone(&over);
        move || {
            while !over.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
            Ok(())
        }
    })?;
    let asked = (0..3).try_for_each(|_| {
        thread::sleep(Duration::from_millis(20));
        fs::write("/proc/sysrq-trigger", "l").context("ask for the backtraces")
    });
    over.store(true, Ordering::Relaxed);
    join(busy).and(asked)
}

/// The sysrq keys of the keyboard: its interrupt prints a help text in pieces, the registers
/// of what it interrupted, and has the other CPUs print their backtraces.
fn from_interrupts() -> Result<()> {
    let ports = OpenOptions::new().read(true).write(true).open("/dev/port");
    let ports = ports.context("open /dev/port")?;
    for key in [KEY_H, KEY_P, KEY_L, KEY_H] {
        for code in [KEY_ALT, KEY_SYSRQ, key, key | LET_GO, KEY_SYSRQ | LET_GO, KEY_ALT | LET_GO] {
            scan_code(&ports, code)?;
        }
    }
    // The last byte may still wait for its interrupt.
    wait_until_clear(&ports, OUTPUT_FULL | INPUT_FULL)
}

fn scan_code(ports: &File, code: u8) -> Result<()> {
    wait_until_clear(ports, OUTPUT_FULL | INPUT_FULL)?;
    ports.write_all_at(&[WRITE_OUTPUT_BUFFER], I8042_COMMAND).context("command the keyboard")?;
    wait_until_clear(ports, INPUT_FULL)?;
    ports.write_all_at(&[code], I8042_DATA).context("press a key")
}

fn wait_until_clear(ports: &File, bits: u8) -> Result<()> {
    let start = Instant::now();
    loop {
        let mut status = [0];
        ports.read_exact_at(&mut status, I8042_COMMAND).context("read the keyboard's status")?;
        if status[0] & bits == 0 {
            return Ok(());
        }
        ensure!(start.elapsed() < LIMIT, "the keyboard's driver does not read");
        thread::sleep(Duration::from_millis(1));
    }
}

/// A function of printk is told to dump the trace buffer, which the kernel does with printk,
/// while the record that called the function is half-way in the ring.
fn inside_of_printk() -> Result<()> {
    let file = |name: &str| Path::new(TRACING).join(name);
    let known = fs::read_to_string(file("available_filter_functions"));
    let known = known.context("list the functions that can be traced")?;
    let function = INSIDE_OF_PRINTK.iter().find(|name| known.lines().any(|line| line == **name));
    let function = function.context("no function of printk can be traced")?;
    say(&format!("INFO inside-of-printk {function}"));
    for round in 0..3 {
        set(&file("tracing_on"), "1")?;
        for number in 0..4 {
            set(&file("trace_marker"), &format!("inner {round}.{number}"))?;
        }
        command(&file("set_ftrace_filter"), &format!("{function}:dump"))?;
        let written = write(format!("<12>outer {round}\n"));
        command(&file("set_ftrace_filter"), &format!("!{function}:dump"))?;
        written?;
    }
    set(&file("tracing_on"), "1")
}

/// Adds to the commands of a file instead of replacing them.
fn command(file: &Path, command: &str) -> Result<()> {
    let opened = OpenOptions::new().append(true).open(file);
    let mut opened = opened.with_context(|| format!("open {}", file.display()))?;
    let written = opened.write_all(format!("{command}\n").as_bytes());
    written.with_context(|| format!("write {command} to {}", file.display()))
}

/// Two CPUs print texts in pieces at the same time until one has broken up the other's, which
/// is up to chance.
fn continuations_of_two_cpus() -> Result<()> {
    let before = PIECES.load(Ordering::Relaxed);
    for _ in 0..PIECES_ROUNDS_MAX {
        both_cpus_print_pieces()?;
        settle()?;
        if PIECES.load(Ordering::Relaxed) >= before + PIECES_WANTED {
            return Ok(());
        }
    }
    bail!("no text in pieces was broken up in {PIECES_ROUNDS_MAX} rounds")
}

/// The help of sysrq comes in thirty pieces, the state of the memory in more. One CPU goes on
/// with whole records, as fast as it can.
fn both_cpus_print_pieces() -> Result<()> {
    let start = Arc::new(AtomicBool::new(false));
    let on_cpu = |name: &str, cpu: usize, helps: u32, records: u32| {
        let start = Arc::clone(&start);
        on_thread(name, cpu, move || {
            let mut kmsg = OpenOptions::new().write(true).open("/dev/kmsg").context("open kmsg")?;
            while !start.load(Ordering::Acquire) {
                std::hint::spin_loop();
            }
            (0..helps).try_for_each(|_| sysrq_help())?;
            for number in 0..records {
                let record = format!("<14>disturbance by CPU {cpu}, {number}\n");
                kmsg.write_all(record.as_bytes()).context("write to /dev/kmsg")?;
            }
            fs::write("/proc/sysrq-trigger", "m").context("ask for the state of the memory")
        })
    };
    let threads =
        [on_cpu("vm_disturber", DISTURBER_CPU, 1, 60)?, on_cpu("vm_pieces", WRITER_CPU, 5, 0)?];
    start.store(true, Ordering::Release);
    threads.into_iter().try_for_each(join)
}
