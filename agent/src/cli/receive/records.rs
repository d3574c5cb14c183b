//! Records: datagrams of netconsole senders to lines on standard output.

use std::io::{self, Write};
use std::net::IpAddr;
use std::time::Duration;

use super::socket::Intake;
use crate::receive::{Event, Receiver, Summary, render};

/// The receiver and the printer, between them what happened since the last turn.
pub(super) struct Records<W> {
    receiver: Receiver,
    events: Vec<Event>,
    printer: Printer<W>,
}

impl<W: Write> Records<W> {
    /// Prints to `out`, as JSON or for people, up to `count` records.
    pub(super) fn new(json: bool, count: Option<u64>, out: W) -> Self {
        let printer = Printer { json, left: count, out };
        Self { receiver: Receiver::new(), events: Vec::new(), printer }
    }

    /// Prints what there was in all.
    ///
    /// # Errors
    /// If standard output fails.
    pub(super) fn summary(&mut self) -> io::Result<()> {
        self.printer.summary(&self.receiver.summary())
    }
}

impl<W: Write> Intake for Records<W> {
    fn datagram(&mut self, now: Duration, source: IpAddr, bytes: &[u8]) {
        self.receiver.datagram(now, source, bytes, &mut self.events);
    }

    fn next_deadline(&self) -> Option<Duration> {
        self.receiver.next_deadline()
    }

    fn turn(&mut self, now: Duration, last: bool) -> io::Result<bool> {
        self.receiver.tick(now, &mut self.events);
        if last {
            self.receiver.finish(&mut self.events);
        }
        let more = self.printer.events(&self.events)?;
        self.events.clear();
        Ok(more)
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
    fn summary(&mut self, summary: &Summary) -> io::Result<()> {
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
    use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
    use std::time::Instant;

    use super::super::socket::{drive, listen};
    use super::*;
    use crate::cli::receive::Gone;

    fn received(args: &[(&[u8], u64)], json: bool, count: Option<u64>) -> (String, Summary) {
        let socket = listen(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0)).expect("a socket");
        let address = socket.local_addr().expect("an address");
        let sender = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        for &(datagram, times) in args {
            for _ in 0..times {
                sender.send_to(datagram, address).expect("sent");
            }
        }
        let mut records = Records::new(json, count, Vec::new());
        // With a count, the time is only a safeguard.
        let millis = if count.is_some() { 20_000 } else { 400 };
        drive(socket, Some(Duration::from_millis(millis)), &mut records).expect("received");
        let summary = records.receiver.summary();
        (String::from_utf8(records.printer.out).expect("UTF-8"), summary)
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
        let mut records = Records::new(true, None, Gone);
        let error = records.summary().expect_err("gone");
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
}
