//! `netconsole-agent receive`: what netconsole senders send as lines, or the dumps of netoops
//! senders as files.
//!
//! Sockets, signals, standard output and files around the pure `receive::Receiver` and
//! `netoops::Assembler`. It is a tool to look with and a simple collector; it acknowledges
//! nothing.

mod netoops;
mod records;
mod socket;

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::netoops::PORT as NETOOPS_PORT;
use netoops::Dumps;
use records::Records;
use socket::{any_address, drive, listen};

/// netconsole's default port of the remote side.
const NETCONSOLE_PORT: u16 = 6666;

/// Arguments of `receive`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  netconsole-agent receive
      print what arrives at UDP port 6666
  netconsole-agent receive --listen 192.0.2.10:1514 --json --for 10m | jq 'select(.level <= 3)'
      errors of the next ten minutes
  netconsole-agent receive --netoops --dir /var/crash
      write each dump that arrives at UDP port 2004 into a file

Each line: source, sequence number, facility.level, seconds since boot of the source, text,
{dictionary}. Plain text (basic format) has `-` for what it lacks. Records are shown in the order
of their numbers; one that does not arrive within 200 ms is reported as missing.

With --netoops each line is a dump: source, its number and kind, kernel, packets that arrived, those
that are missing, and the file. A dump is written when it is whole, when nothing of it has come for
5 s, or at the end. Its file has the name netoops-SOURCE-NUMBER-KIND-TIME.txt and replaces none;
a line in it tells where packets are missing.")]
pub(super) struct ReceiveArgs {
    /// Address and port to listen on; `[::]` takes IPv4 as well. Without it port 6666 of all
    /// addresses, or 2004 with --netoops.
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<SocketAddr>,
    /// Receive dumps of the kernel log from netoops senders, instead of records.
    #[arg(long)]
    netoops: bool,
    /// Folder for the files of the dumps.
    #[arg(long, value_name = "DIR", default_value = ".", requires = "netoops")]
    dir: PathBuf,
    /// Print one JSON object per record or dump.
    #[arg(long)]
    json: bool,
    /// Exit after so many records (plain lines count) or dumps.
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
/// If the socket cannot be opened or fails, if standard output fails, or if a dump could not be
/// written.
pub(super) fn run(args: ReceiveArgs) -> anyhow::Result<()> {
    let ReceiveArgs { listen: address, netoops, dir, json, count, duration } = args;
    let port = if netoops { NETOOPS_PORT } else { NETCONSOLE_PORT };
    let address = address.unwrap_or(any_address(port));
    let duration: Option<Duration> = duration.map(Into::into);
    let count = count.map(NonZeroU64::get);
    let out = io::BufWriter::new(io::stdout().lock());
    if netoops {
        // Before the socket: what is listened for can be kept.
        let mut dumps = Dumps::new(&dir, json, count, out)?;
        let socket = listen(address)?;
        let result = drive(socket, duration, &mut dumps);
        // Also when nobody reads the lines any more.
        dumps.write_rest();
        unless_broken_pipe(result.and_then(|()| Ok(dumps.summary()?)))?;
        return dumps.all_written();
    }
    let socket = listen(address)?;
    let mut records = Records::new(json, count, out);
    let result = drive(socket, duration, &mut records);
    unless_broken_pipe(result.and_then(|()| Ok(records.summary()?)))
}

fn unless_broken_pipe(result: anyhow::Result<()>) -> anyhow::Result<()> {
    match result {
        Err(error) if is_broken_pipe(&error) => Ok(()),
        result => result,
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let cause = error.downcast_ref::<io::Error>();
    cause.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// Standard output whose reader has gone away.
#[cfg(test)]
struct Gone;

#[cfg(test)]
impl std::io::Write for Gone {
    fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
        Err(std::io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_reader_that_went_away_is_no_error() {
        let gone = io::Error::from(io::ErrorKind::BrokenPipe);
        assert!(unless_broken_pipe(Err(gone.into())).is_ok());
        assert!(unless_broken_pipe(Err(anyhow::anyhow!("other"))).is_err());
        assert!(unless_broken_pipe(Ok(())).is_ok());
    }
}
