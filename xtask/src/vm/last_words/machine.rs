//! The VM of a crash and its processes: QEMU's arguments and the lines that lead to it. What
//! happens in it is `guest`'s business.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Child;
use std::sync::mpsc::Sender;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::AFTER_CRASH;
use super::guest::Plan;

/// The store of pstore.
pub(super) const STORE_BYTES: u64 = 1 << 20;
/// How much of the log pstore keeps: all that comes behind the mark, and more.
const KMSG_BYTES: u32 = 128 << 10;
const CONNECT_LIMIT: Duration = Duration::from_secs(60);

/// Passes the lines of `from` on, and keeps them in a file.
pub(super) fn read_lines<E: Send + 'static>(
    from: impl Read + Send + 'static,
    to: Sender<E>,
    mut copy: File,
    event: fn(String) -> E,
) {
    thread::spawn(move || {
        for line in BufReader::new(from).split(b'\n').map_while(Result::ok) {
            // The copy is only there to be looked at.
            drop(copy.write_all(&line).and_then(|()| copy.write_all(b"\n")));
            if to.send(event(String::from_utf8_lossy(&line).into_owned())).is_err() {
                return;
            }
        }
    });
}

/// Connects to a socket that QEMU is about to make.
pub(super) fn connect(socket: &Path, qemu: &mut Child, log: &Path) -> Result<UnixStream> {
    let start = Instant::now();
    loop {
        match UnixStream::connect(socket) {
            Ok(stream) => return Ok(stream),
            Err(error) => {
                let ended = qemu.try_wait().context("look after QEMU")?;
                ensure!(ended.is_none(), "QEMU did not start: {}", said(log));
                ensure!(
                    start.elapsed() < CONNECT_LIMIT,
                    "connect to {}: {error}",
                    socket.display()
                );
                thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

/// What a program wrote to its log.
pub(super) fn said(log: &Path) -> String {
    fs::read_to_string(log).unwrap_or_default().trim().to_owned()
}

/// QEMU's arguments; its sockets are in a directory of their own.
pub(super) fn arguments(plan: &Plan<'_>, sockets: &Path) -> Vec<OsString> {
    let joined = |parts: &[&dyn AsRef<OsStr>]| {
        let mut text = OsString::new();
        parts.iter().for_each(|part| text.push(part.as_ref()));
        text
    };
    let socket = |name: &str| sockets.join(name);
    let file = |name: &str| plan.dir.join(name);
    let append = format!(
        "console=ttyS0 quiet net.ifnames=0 pstore.kmsg_bytes={KMSG_BYTES} \
         lw_subject={} lw_crash={} lw_cpu={} lw_panic={} lw_after={} lw_dump={}",
        plan.subject.name(),
        plan.crash.name,
        plan.cpu,
        plan.crash.panic_timeout_s,
        if AFTER_CRASH { "yes" } else { "no" },
        if plan.crash.dump.is_some() { "yes" } else { "no" }
    );
    let fixed = "-M q35 -accel tcg,thread=multi,tb-size=256 -cpu max -smp 2 -m 768 -nodefaults \
                 -display none -device virtio-net-pci,netdev=net0,csum=off \
                 -device acpi-erst,memdev=erst -serial chardev:console -serial chardev:line \
                 -mon chardev=monitor,mode=readline";
    let mut arguments: Vec<OsString> = fixed.split_whitespace().map(OsString::from).collect();
    let with_value: [(&str, OsString); 9] = [
        (
            "-netdev",
            joined(&[
                &"dgram,id=net0,local.type=unix,local.path=",
                &socket("net"),
                &",remote.type=unix,remote.path=",
                &socket("peer"),
            ]),
        ),
        ("-object", joined(&[&"filter-dump,id=dump0,netdev=net0,file=", &file("net.pcap")])),
        (
            "-object",
            joined(&[
                &format!("memory-backend-file,id=erst,share=on,size={STORE_BYTES},mem-path="),
                &file("erst"),
            ]),
        ),
        ("-chardev", joined(&[&"file,id=console,path=", &file("console.log")])),
        // The guest waits until somebody listens: no word of it is lost.
        ("-chardev", joined(&[&"socket,id=line,server=on,wait=on,path=", &socket("line")])),
        ("-chardev", joined(&[&"socket,id=monitor,server=on,wait=off,path=", &socket("monitor")])),
        ("-kernel", plan.kernel.image.clone().into()),
        ("-initrd", plan.initramfs.into()),
        ("-append", append.into()),
    ];
    for (option, value) in with_value {
        arguments.extend([option.into(), value]);
    }
    arguments
}

/// A child process that ends when it is dropped.
pub(super) struct Guard(pub(super) Child);

impl Drop for Guard {
    fn drop(&mut self) {
        // Both fail only if it has been reaped already.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
