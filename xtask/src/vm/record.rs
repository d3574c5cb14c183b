//! Records of `/dev/kmsg`, and what netconsole makes of them.
//!
//! This is written from the kernel (`drivers/net/netconsole.c`,
//! `kernel/printk/printk.c`) and shares nothing with the agent, so that a
//! mistake there cannot hide behind the same mistake here. It is for tests: it
//! allocates, and is as plain as it can be.

use anyhow::{Context, Result, ensure};

/// `MAX_PRINT_CHUNK` of netconsole.c: the longest datagram in bytes.
const DATAGRAM_MAX_BYTES: usize = 1000;
/// `PRINTK_MESSAGE_MAX` of kernel/printk/internal.h: the longest record with its
/// header in bytes (8192 before 6.3, which no record gets near).
const RECORD_MAX_BYTES: usize = 2048;

/// How far the agent's clock may be from printk's in an approximated record.
const APPROXIMATION_US: u64 = 50_000;

/// A record as `/dev/kmsg` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) seq: u64,
    pub(crate) timestamp_us: u64,
    /// syslog facility; 0 is the kernel itself.
    pub(crate) facility: u64,
    /// syslog level.
    pub(crate) level: u64,
    /// Everything before the `;`.
    pub(crate) header: Vec<u8>,
    /// Everything after it: the escaped text and the dictionary.
    pub(crate) body: Vec<u8>,
    /// The kernel cut the record because it was too long once escaped:
    /// `/dev/kmsg` shows only a part of the text. The final newline may still be
    /// there, behind half an escape.
    pub(crate) is_cut: bool,
}

impl Record {
    /// Takes a record apart.
    pub(crate) fn parse(raw: &[u8]) -> Result<Self> {
        let end = raw.iter().position(|&byte| byte == b';').context("no ; in a record")?;
        let header = std::str::from_utf8(&raw[..end]).context("a header that is no text")?;
        let mut fields = header.split(',');
        let mut number = |name: &str| -> Result<u64> {
            let field = fields.next().with_context(|| format!("no {name} in {header}"))?;
            field.parse().with_context(|| format!("{name} of {header}"))
        };
        let (priority, seq, timestamp_us) =
            (number("priority")?, number("seq")?, number("timestamp")?);
        Ok(Self {
            seq,
            timestamp_us,
            facility: priority >> 3,
            level: priority & 7,
            header: header.as_bytes().to_vec(),
            body: raw[end + 1..].to_vec(),
            is_cut: raw.len() == RECORD_MAX_BYTES,
        })
    }

    /// The text without its dictionary, not escaped. An escape at its end that the
    /// kernel cut off is left out.
    pub(crate) fn text(&self) -> Vec<u8> {
        let mut rest = self.body.split(|&byte| byte == b'\n').next().unwrap_or_default();
        let mut text = Vec::new();
        while let [first, tail @ ..] = rest {
            // The kernel writes a backslash itself as an escape, too.
            if *first != b'\\' {
                text.push(*first);
                rest = tail;
                continue;
            }
            let digits = tail.strip_prefix(b"x").and_then(|tail| tail.first_chunk::<2>());
            let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok());
            let Some(byte) = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) else {
                break;
            };
            text.push(byte);
            rest = &rest[4..];
        }
        text
    }

    /// A continuation that could not be put behind its beginning.
    pub(crate) fn is_continuation(&self) -> bool {
        self.header.ends_with(b",c") || self.header.windows(3).any(|part| part == b",c,")
    }

    /// The same record as the agent may send it where `/dev/kmsg` told its half too
    /// late: with the default level (4), a time that the agent took itself, and no
    /// dictionary.
    pub(crate) fn approximated(&self, timestamp_us: u64) -> Result<Self> {
        ensure!(
            timestamp_us.abs_diff(self.timestamp_us) <= APPROXIMATION_US,
            "seq {}: the time {timestamp_us} is not near {}",
            self.seq,
            self.timestamp_us
        );
        let text = self.body.split_inclusive(|&byte| byte == b'\n').next().unwrap_or_default();
        Ok(Self {
            timestamp_us,
            header: format!("4,{},{timestamp_us},-,approx=1", self.seq).into_bytes(),
            body: text.to_vec(),
            ..self.clone()
        })
    }

    /// The datagrams of a basic target: the text as a console prints it into a
    /// buffer of `buffer_bytes` (`record_print_text`), cut where it is too long.
    pub(crate) fn basic(&self, buffer_bytes: usize) -> Vec<Vec<u8>> {
        let (seconds, micros) = (self.timestamp_us / 1_000_000, self.timestamp_us % 1_000_000);
        let prefix = format!("[{seconds:5}.{micros:06}] ");
        let whole = self.text();
        let mut text = whole.as_slice();
        let mut printed = Vec::new();
        let mut truncated = false;
        loop {
            let line_bytes = match text.iter().position(|&byte| byte == b'\n') {
                Some(at) => at,
                None if truncated => break,
                None => text.len(),
            };
            // For the newline and a NUL.
            let used = printed.len() + prefix.len() + 2;
            if used + text.len() > buffer_bytes {
                if used + line_bytes > buffer_bytes {
                    break;
                }
                text = &text[..buffer_bytes - used];
                truncated = true;
            }
            printed.extend_from_slice(prefix.as_bytes());
            printed.extend_from_slice(&text[..line_bytes]);
            printed.push(b'\n');
            let Some(rest) = text.get(line_bytes + 1..) else { break };
            text = rest;
        }
        printed.chunks(DATAGRAM_MAX_BYTES).map(<[u8]>::to_vec).collect()
    }
}

/// `header;body` in as many datagrams as it takes (`send_fragmented_body`).
pub(crate) fn fragments(header: &[u8], body: &[u8]) -> Vec<Vec<u8>> {
    if header.len() + 1 + body.len() <= DATAGRAM_MAX_BYTES {
        return vec![[header, b";", body].concat()];
    }
    let mut datagrams = Vec::new();
    let mut offset = 0;
    while offset < body.len() {
        let field = format!(",ncfrag={offset}/{};", body.len());
        let mut datagram = [header, field.as_bytes()].concat();
        let end = body.len().min(offset + DATAGRAM_MAX_BYTES - datagram.len());
        datagram.extend_from_slice(&body[offset..end]);
        datagrams.push(datagram);
        offset = end;
    }
    datagrams
}

/// A message of an extended target, put together from its datagrams.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) seq: u64,
    /// With the release, without `ncfrag`.
    pub(crate) header: Vec<u8>,
    pub(crate) body: Vec<u8>,
    /// As they came.
    pub(crate) datagrams: Vec<Vec<u8>>,
}

impl Message {
    /// The time in microseconds, if the message says that it is approximated.
    pub(crate) fn approximated_at(&self) -> Option<u64> {
        let header = std::str::from_utf8(&self.header).ok()?;
        header.strip_suffix(",-,approx=1")?.rsplit(',').next()?.parse().ok()
    }

    /// Whether a line of the body begins with `start`.
    pub(crate) fn body_has(&self, start: &str) -> bool {
        self.body.split(|&byte| byte == b'\n').any(|line| line.starts_with(start.as_bytes()))
    }
}

/// Puts the messages of one target together; `with_release` tells whether the
/// first field is a release.
///
/// # Errors
/// A datagram that is none of netconsole's, or fragments that do not follow one
/// another: on the VM's network nothing is lost or overtaken.
pub(crate) fn messages(datagrams: &[&[u8]], with_release: bool) -> Result<Vec<Message>> {
    let mut messages: Vec<Message> = Vec::new();
    // How much of the last message is still to come.
    let mut missing_bytes = 0;
    for &datagram in datagrams {
        let shown = String::from_utf8_lossy(datagram);
        let end = datagram.iter().position(|&byte| byte == b';');
        let end = end.with_context(|| format!("no header in {shown:?}"))?;
        let header = std::str::from_utf8(&datagram[..end]).context("a header that is no text")?;
        let (header, fragment) = match header.split_once(",ncfrag=") {
            Some((header, fragment)) => (header, Some(fragment)),
            None => (header, None),
        };
        let payload = &datagram[end + 1..];
        if missing_bytes > 0 {
            let message = messages.last_mut().context("a fragment of nothing")?;
            let expected = format!("{}/{}", message.body.len(), message.body.len() + missing_bytes);
            ensure!(
                header.as_bytes() == message.header && fragment == Some(&expected),
                "fragment {expected} of seq {} was expected, not {shown:?}",
                message.seq
            );
            missing_bytes = missing_bytes
                .checked_sub(payload.len())
                .with_context(|| format!("too long a fragment: {shown:?}"))?;
            message.body.extend_from_slice(payload);
            message.datagrams.push(datagram.to_vec());
            continue;
        }
        let mut fields = header.split(',').skip(usize::from(with_release));
        let seq = fields.nth(1).and_then(|seq| seq.parse().ok());
        if let Some(fragment) = fragment {
            let total = fragment.strip_prefix("0/").and_then(|total| total.parse::<usize>().ok());
            let total = total.with_context(|| format!("not a first fragment: {shown:?}"))?;
            missing_bytes = total
                .checked_sub(payload.len())
                .with_context(|| format!("too long a fragment: {shown:?}"))?;
        }
        messages.push(Message {
            seq: seq.with_context(|| format!("no seq in {shown:?}"))?,
            header: header.as_bytes().to_vec(),
            body: payload.to_vec(),
            datagrams: vec![datagram.to_vec()],
        });
    }
    ensure!(missing_bytes == 0, "the last message lacks {missing_bytes} bytes");
    Ok(messages)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The datagrams of an extended target that prefixes `release` and appends
    /// `extra`.
    fn extended(record: &Record, release: Option<&str>, extra: &[u8]) -> Vec<Vec<u8>> {
        let prefix = release.map(|release| format!("{release},")).unwrap_or_default();
        let header = [prefix.as_bytes(), &record.header].concat();
        fragments(&header, &[&record.body, extra].concat())
    }

    fn record(text: &str) -> Record {
        Record::parse(format!("14,431,6162721,-;{text}\n").as_bytes()).unwrap()
    }

    #[test]
    fn takes_a_record_apart() {
        let raw = b"2046,7,1234567,c;back\\x5cslash\\x09tab \n SUBSYSTEM=pci\n";
        let record = Record::parse(raw).unwrap();
        assert_eq!((record.facility, record.seq, record.timestamp_us), (255, 7, 1_234_567));
        assert_eq!(record.text(), b"back\\slash\ttab ");
        assert_eq!(record.basic(2048), [b"[    1.234567] back\\slash\ttab \n"]);
        assert_eq!(extended(&record, None, b""), [raw]);
        assert!(Record::parse(b"6,7;x").is_err());
    }

    #[test]
    fn knows_a_record_that_was_cut() {
        // As a stock 6.12 kernel shows 900 bytes of 0x01.
        let header = "14,1222,5610176,-;";
        let escapes = (RECORD_MAX_BYTES - header.len()) / 4;
        let mut raw = format!("{header}{}", r"\x01".repeat(escapes));
        raw.push_str(&"\\x0"[..RECORD_MAX_BYTES - 1 - raw.len()]);
        raw.push('\n');
        let record = Record::parse(raw.as_bytes()).unwrap();
        assert!(record.is_cut);
        assert_eq!(record.text(), vec![1; escapes]);
        assert!(!Record::parse(&raw.as_bytes()[1..]).unwrap().is_cut);
    }

    /// The lengths that a stock 7.2 kernel sent for a text of 1006 bytes with 86
    /// bytes of data behind it: `ncfrag=0/1093` and `ncfrag=969/1093`.
    #[test]
    fn cuts_where_the_kernel_cuts() {
        let record = record(&"C".repeat(1006));
        let datagrams = extended(&record, None, &[b'x'; 86]);
        let starts: Vec<_> = datagrams.iter().map(|datagram| &datagram[..32]).collect();
        assert_eq!(
            starts,
            [b"14,431,6162721,-,ncfrag=0/1093;C", b"14,431,6162721,-,ncfrag=969/1093"]
        );
        assert_eq!(datagrams[0].len(), 1000);
        // And with the release: 950.
        let datagrams = extended(&record, Some("7.2.12+deb13-amd64"), b"");
        assert!(datagrams[1].starts_with(b"7.2.12+deb13-amd64,14,431,6162721,-,ncfrag=950/1007;"));
    }

    #[test]
    fn puts_together_what_was_cut() {
        let long = record(&"C".repeat(1006));
        let short = Record::parse(b"6,432,6162722,-;short\n").unwrap();
        let mut datagrams = extended(&long, Some("6.12.1"), b" k=v\n");
        datagrams.extend(extended(&short, Some("6.12.1"), b""));
        let borrowed: Vec<&[u8]> = datagrams.iter().map(Vec::as_slice).collect();
        let found = messages(&borrowed, true).unwrap();
        assert_eq!(found.iter().map(|message| message.seq).collect::<Vec<_>>(), [431, 432]);
        assert!(found[0].body.ends_with(b"C\n k=v\n") && found[0].body.len() == 1012);
        assert_eq!(found[0].datagrams, datagrams[..2]);
        assert!(messages(&[borrowed[0], borrowed[2]], true).is_err());
        assert!(messages(&borrowed[1..], true).is_err());
        assert!(messages(&borrowed[..1], true).is_err());
    }

    #[test]
    fn every_line_of_a_record_gets_the_prefix() {
        let record = record("two\\x0alines\\x0a");
        let printed = b"[    6.162721] two\n[    6.162721] lines\n[    6.162721] \n";
        assert_eq!(record.basic(2048), [printed]);
        // With its NUL it fits to the byte; else the lines that do not fit are left out.
        assert_eq!(record.basic(printed.len() + 1), [printed]);
        assert_eq!(record.basic(printed.len()), [&printed[..40]]);
        assert_eq!(record.basic(25), [&printed[..19]]);
    }
}
