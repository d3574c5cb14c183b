//! The socket that a receiver listens on, and the loop around it until it is to end.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with, sockopt};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Asked for, so that a boot log of some thousand records fits at once.
const RECEIVE_BUFFER_BYTES: usize = 8 << 20;
/// Longest UDP payload.
const DATAGRAM_BUFFER_BYTES: usize = 65_536;
/// Datagrams taken before what they led to is written out.
const BATCH: usize = 256;

/// All addresses of this host.
pub(super) const fn any_address(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port)
}

/// What is done with datagrams. Times count from the start of [`drive`].
pub(super) trait Intake {
    /// Takes one; it may come from any source and hold any bytes.
    fn datagram(&mut self, now: Duration, source: IpAddr, bytes: &[u8]);
    /// When [`Intake::turn`] has something to do without a datagram.
    fn next_deadline(&self) -> Option<Duration>;
    /// Writes out what is due, or all if it is the `last` turn; false if that was enough.
    ///
    /// # Errors
    /// If standard output fails.
    fn turn(&mut self, now: Duration, last: bool) -> io::Result<bool>;
}

/// Gives datagrams to `intake` until it has enough, the time is over, or SIGINT or SIGTERM comes.
///
/// # Errors
/// If the socket, a signal or the intake fails.
pub(super) fn drive(
    socket: UdpSocket,
    duration: Option<Duration>,
    intake: &mut impl Intake,
) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting the event loop")?;
    runtime.block_on(async {
        let socket = tokio::net::UdpSocket::from_std(socket).context("watching the socket")?;
        let stop = Stop::new(duration)?;
        receive(&socket, stop, intake).await
    })
}

async fn receive(
    socket: &tokio::net::UdpSocket,
    mut stop: Stop,
    intake: &mut impl Intake,
) -> anyhow::Result<()> {
    let start = Instant::now();
    let mut buffer = vec![0; DATAGRAM_BUFFER_BYTES];
    loop {
        let deadline = intake.next_deadline();
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
                Ok((len, from)) => intake.datagram(start.elapsed(), from.ip(), &buffer[..len]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error).context("receiving a datagram"),
            }
        }
        let more = intake.turn(start.elapsed(), stopped)?;
        if stopped || !more {
            return Ok(());
        }
    }
}

/// A socket that takes IPv4 as well if it listens on `[::]`, with a large buffer.
pub(super) fn listen(address: SocketAddr) -> anyhow::Result<UdpSocket> {
    let mut opened = open(address);
    let any = address == any_address(address.port());
    if any && matches!(opened, Err(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL)) {
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

#[cfg(test)]
mod tests {
    use super::*;

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
