//! `netconsole-agent receive`: what netconsole senders send, as lines.
//!
//! A socket, signals and standard output around `receive::Receiver`. It is a
//! tool to look with and a simple collector; it acknowledges nothing and stores
//! nothing.

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with, sockopt};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::receive::{Event, Receiver, Summary, render};

/// netconsole's default port of the remote side.
const LISTEN_DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 6666);
/// Asked for, so that a boot log of some thousand records fits at once.
const RECEIVE_BUFFER_BYTES: usize = 8 << 20;
/// Longest UDP payload.
const DATAGRAM_BUFFER_BYTES: usize = 65_536;
/// Datagrams taken before the lines are written out.
const BATCH: usize = 256;

/// Arguments of `receive`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  netconsole-agent receive
      print what arrives at UDP port 6666
  netconsole-agent receive --listen 192.0.2.10:1514 --json --for 10m | jq 'select(.level <= 3)'
      errors of the next ten minutes

Each line: source, sequence number, facility.level, seconds since boot of the source, text,
{dictionary}. Plain text (basic format) has `-` for what it lacks. Records are shown in the order
of their numbers; one that does not arrive within 200 ms is reported as missing.")]
pub(super) struct ReceiveArgs {
    /// Address and port to listen on; `[::]` takes IPv4 as well.
    #[arg(long, value_name = "ADDR:PORT", default_value_t = LISTEN_DEFAULT)]
    listen: SocketAddr,
    /// Print one JSON object per record.
    #[arg(long)]
    json: bool,
    /// Exit after so many records (plain lines count).
    #[arg(long, value_name = "N")]
    count: Option<NonZeroU64>,
    /// Exit after that time, such as `30s` or `10m`.
    #[arg(long = "for", value_name = "DURATION")]
    duration: Option<humantime::Duration>,
}

/// Receives until the count or the time is reached, or SIGINT or SIGTERM comes.
/// A reader of standard output that goes away ends it without an error.
///
/// # Errors
/// If the socket cannot be opened or fails, or if standard output fails.
pub(super) fn run(args: ReceiveArgs) -> anyhow::Result<()> {
    let socket = listen(args.listen)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting the event loop")?;
    let mut printer = Printer {
        json: args.json,
        left: args.count.map(NonZeroU64::get),
        out: io::BufWriter::new(io::stdout().lock()),
    };
    let summary = runtime.block_on(async {
        let socket = tokio::net::UdpSocket::from_std(socket).context("watching the socket")?;
        let stop = Stop::new(args.duration.map(Into::into))?;
        receive(&socket, stop, &mut printer).await
    });
    match summary.and_then(|summary| printer.summary(&summary)) {
        Err(error) if is_broken_pipe(&error) => Ok(()),
        result => result,
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let cause = error.downcast_ref::<io::Error>();
    cause.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// A socket that takes IPv4 as well if it listens on `[::]`, with a large buffer.
fn listen(address: SocketAddr) -> anyhow::Result<UdpSocket> {
    let mut opened = open(address);
    if address == LISTEN_DEFAULT && matches!(opened, Err(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL))
    {
        // A host without IPv6.
        opened = open(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port()));
    }
    let socket = opened.map_err(|error| {
        let remedy = match error {
            Errno::ADDRINUSE => "another program listens there; choose another port",
            Errno::ADDRNOTAVAIL => "no interface of this host has that address",
            Errno::ACCESS => "a port below 1024 needs CAP_NET_BIND_SERVICE",
            _ => "check --listen",
        };
        anyhow::Error::new(io::Error::from(error))
            .context(format!("cannot listen on UDP {address} ({remedy})"))
    })?;
    Ok(socket.into())
}

fn open(address: SocketAddr) -> Result<std::os::fd::OwnedFd, Errno> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::DGRAM, flags, None)?;
    if family == AddressFamily::INET6 {
        sockopt::set_ipv6_v6only(&socket, false)?;
    }
    // Beyond net.core.rmem_max with CAP_NET_ADMIN, else as far as that allows;
    // a smaller buffer only loses more in a burst, and the gaps are told.
    if sockopt::set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER_BYTES).is_err() {
        let _ = sockopt::set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER_BYTES);
    }
    bind(&socket, &address)?;
    Ok(socket)
}

/// What ends the reception besides the count.
struct Stop {
    interrupt: Signal,
    terminate: Signal,
    at: Option<tokio::time::Instant>,
}

impl Stop {
    /// Call within the runtime.
    fn new(after: Option<Duration>) -> anyhow::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).context("watching SIGINT")?,
            terminate: signal(SignalKind::terminate()).context("watching SIGTERM")?,
            // A time too far away to be told is no end.
            at: after.and_then(|after| tokio::time::Instant::now().checked_add(after)),
        })
    }

    async fn wait(&mut self) {
        let at = self.at;
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            () = sleep_until(at) => {}
        }
    }
}

/// For ever without a time.
async fn sleep_until(at: Option<tokio::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

async fn receive(
    socket: &tokio::net::UdpSocket,
    mut stop: Stop,
    printer: &mut Printer<impl Write>,
) -> anyhow::Result<Summary> {
    let start = Instant::now();
    let mut receiver = Receiver::new();
    let mut events = Vec::new();
    let mut buffer = vec![0; DATAGRAM_BUFFER_BYTES];
    loop {
        let deadline = receiver.next_deadline();
        let deadline = deadline.and_then(|at| start.checked_add(at)).map(Into::into);
        let stopped = tokio::select! {
            biased;
            () = stop.wait() => true,
            ready = socket.readable() => {
                ready.context("waiting for datagrams")?;
                false
            }
            () = sleep_until(deadline) => false,
        };
        for _ in 0..BATCH {
            match socket.try_recv_from(&mut buffer) {
                Ok((len, from)) => {
                    receiver.datagram(start.elapsed(), from.ip(), &buffer[..len], &mut events);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error).context("receiving a datagram"),
            }
        }
        receiver.tick(start.elapsed(), &mut events);
        if stopped {
            receiver.finish(&mut events);
        }
        let more = printer.events(&events)?;
        if stopped || !more {
            return Ok(receiver.summary());
        }
        events.clear();
    }
}

/// Writes events as lines.
struct Printer<W> {
    json: bool,
    /// Records still to be written, if they are counted.
    left: Option<u64>,
    out: W,
}

impl<W: Write> Printer<W> {
    /// Writes them out; false once the count is reached.
    fn events(&mut self, events: &[Event]) -> io::Result<bool> {
        for event in events {
            let line = if self.json { render::json(event) } else { render::text(event) };
            self.out.write_all(line.as_bytes())?;
            if matches!(event, Event::Record(..) | Event::Plain(..))
                && let Some(left) = &mut self.left
            {
                *left = left.saturating_sub(1);
                if *left == 0 {
                    break;
                }
            }
        }
        self.out.flush()?;
        Ok(self.left != Some(0))
    }

    /// JSON goes where the records go; the line for people goes to standard
    /// error, so that standard output holds nothing but records and gaps.
    fn summary(&mut self, summary: &Summary) -> anyhow::Result<()> {
        if self.json {
            self.out.write_all(render::summary_json(summary).as_bytes())?;
            self.out.flush()?;
        } else {
            // Without standard error there is nobody to tell.
            let _ = io::stderr().write_all(render::summary_text(summary).as_bytes());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(args: &[(&[u8], u64)], json: bool, count: Option<u64>) -> (String, Summary) {
        let socket = listen(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0)).expect("a socket");
        let address = socket.local_addr().expect("an address");
        let sender = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        for &(datagram, times) in args {
            for _ in 0..times {
                sender.send_to(datagram, address).expect("sent");
            }
        }
        let mut printer = Printer { json, left: count, out: Vec::new() };
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let summary = runtime.block_on(async {
            let socket = tokio::net::UdpSocket::from_std(socket).expect("a socket");
            // With a count, the time is only a safeguard.
            let millis = if count.is_some() { 20_000 } else { 400 };
            let stop = Stop::new(Some(Duration::from_millis(millis))).expect("signals");
            receive(&socket, stop, &mut printer).await.expect("received")
        });
        (String::from_utf8(printer.out).expect("UTF-8"), summary)
    }

    #[test]
    fn datagrams_become_lines_and_a_gap_is_told() {
        let (out, summary) = received(
            &[
                (b"6,10,1000001,-;first\n", 1),
                (b"4,12,1000002,-;third \\x1b[31m\n", 2),
                (b"plain \x1b[0m\n", 1),
            ],
            false,
            None,
        );
        assert_eq!(
            out,
            "127.0.0.1 10 kern.info [    1.000001] first\n\
             127.0.0.1 - - plain \\x1b[0m\n\
             127.0.0.1 -- 1 record missing: seq 11 --\n\
             127.0.0.1 12 kern.warn [    1.000002] third \\x1b[31m\n"
        );
        assert_eq!((summary.records, summary.missing), (2, 1));
        assert_eq!((summary.duplicates, summary.plain), (1, 1));
    }

    #[test]
    fn the_count_ends_it_and_json_is_one_object_per_line() {
        let before = Instant::now();
        let (out, _) = received(&[(b"hello", 3)], true, Some(2));
        assert_eq!(out.lines().count(), 2);
        assert!(before.elapsed() < Duration::from_secs(10));
        for line in out.lines() {
            let value: serde_json::Value = serde_json::from_str(line).expect("JSON");
            assert_eq!(value["text"], "hello");
        }
    }

    #[test]
    fn a_reader_that_went_away_is_no_error() {
        struct Gone;
        impl Write for Gone {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut printer = Printer { json: true, left: None, out: Gone };
        let error = printer.summary(&Summary::default()).expect_err("gone");
        assert!(is_broken_pipe(&error));
        assert!(!is_broken_pipe(&anyhow::anyhow!("other")));
    }

    #[test]
    fn a_port_in_use_is_named_with_the_remedy() {
        let taken = listen(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0)).expect("a socket");
        let address = taken.local_addr().expect("an address");
        let error = format!("{:#}", listen(address).expect_err("in use"));
        assert!(error.contains(&address.to_string()), "{error}");
        assert!(error.contains("choose another port"), "{error}");
    }

    #[test]
    fn the_default_takes_ipv4_and_ipv6_names() {
        let socket = listen(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0)).expect("a socket");
        let port = socket.local_addr().expect("an address").port();
        let sender = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        sender.send_to(b"x", ("127.0.0.1", port)).expect("sent");
        let mut buf = [0; 8];
        socket.set_nonblocking(false).expect("blocking");
        socket.set_read_timeout(Some(Duration::from_secs(2))).expect("a timeout");
        let (len, from) = socket.recv_from(&mut buf).expect("received");
        assert_eq!(len, 1);
        assert_eq!(from.ip().to_canonical(), Ipv4Addr::LOCALHOST);
    }
}
