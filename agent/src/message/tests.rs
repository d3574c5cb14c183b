use proptest::prelude::*;

use super::*;
use crate::{
    netconsole::{escape::unescape_into, parse_header},
    receive::{Event, Receiver, render},
};

const SENDER: Sender<'_> = Sender {
    at: SystemTime::UNIX_EPOCH,
    host: "web1.example",
    device: Some("eth0"),
    queue: Some(3),
    next_hop: Some([2, 0, 0, 0, 0, 0xfe]),
    version: "0.1.0",
};

fn composed(kind: Kind, text: &[u8], extra: &[u8]) -> Vec<u8> {
    let mut out = [0; DATAGRAM_MAX_BYTES];
    let len = compose_into(&mut out, kind, text, extra).expect("it fits");
    out[..len].to_vec()
}

/// netconsd's own rule for the first fields (`release_prepended` and `parse_packet` of
/// `ncrx/libncrx.c`), which takes more for a number than our decoder: white space, a sign, an
/// empty field. True if it would go on to the sequence number.
fn netconsd_reads_a_priority(packet: &[u8]) -> bool {
    let Some(end) = packet.iter().position(|byte| *byte == b';' || *byte == 0) else {
        return false;
    };
    if packet[end] == 0 || end >= 1024 {
        return false;
    }
    let header = &packet[..end];
    let window = &header[..header.len().min(64)];
    let at = |wanted: u8| window.iter().position(|byte| *byte == wanted);
    let released = matches!((at(b'.'), at(b',')), (Some(dot), Some(comma)) if dot < comma);
    let mut fields = header.split(|byte| *byte == b',');
    let field = if released { fields.nth(1) } else { fields.next() };
    let Some(field) = field else { return true };
    let digits = field.trim_ascii_start();
    let digits = digits.strip_prefix(b"-").or(digits.strip_prefix(b"+")).unwrap_or(digits);
    digits.iter().all(|byte| byte.is_ascii_hexdigit() || matches!(byte, b'x' | b'X'))
}

/// Texts that look like headers, and everything that headers are made of.
fn texts() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just(b"6,10,1000,-;text".to_vec()),
        Just(b"6.12.0,6,10,1000,-,ncfrag=0/20;".to_vec()),
        Just(b",ncfrag=0/9".to_vec()),
        Just(b",6,1,1,-".to_vec()),
        Just(b"6,".to_vec()),
        Just(b";".to_vec()),
        Just(b".".to_vec()),
        Just(b",".to_vec()),
        Just(b"\n".to_vec()),
        Just(b"\0".to_vec()),
        Just(b"=".to_vec()),
        Just(b"ncemg=1".to_vec()),
        proptest::collection::vec(any::<u8>(), 0..8),
    ];
    proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn no_text_is_ever_a_record(text in texts(), extra in texts(), which in 0..Kind::ALL.len()) {
        let mut out = [0; DATAGRAM_MAX_BYTES];
        let kind = Kind::ALL[which];
        prop_assume!(check(kind, &text, extra.len()).is_ok());
        let len = compose_into(&mut out, kind, &text, &extra).expect("it was checked");
        let packet = &out[..len];
        prop_assert!(parse_header(packet).is_err());
        prop_assert!(!netconsd_reads_a_priority(packet));
        // One line of text, which gives the text back.
        let line_len = packet.iter().position(|byte| *byte == b'\n').expect("a line");
        prop_assert_eq!(&packet[line_len + 1..], &extra[..]);
        let escaped = &packet[kind.prefix().len()..line_len];
        prop_assert!(escaped.iter().all(|byte| (0x20..0x7f).contains(byte)));
        let mut back = vec![0; escaped.len()];
        let back_len = unescape_into(escaped, &mut back);
        prop_assert_eq!(&back[..back_len], &text[..]);
    }

    #[test]
    fn it_fits_or_the_limit_is_told(
        text in proptest::collection::vec(any::<u8>(), 0..1100),
        extra_bytes in 0..1100usize,
        room in 0..1200usize,
    ) {
        let extra = vec![b'e'; extra_bytes];
        let mut out = vec![0; room];
        match compose_into(&mut out, Kind::Message, &text, &extra) {
            Ok(len) => {
                prop_assert!(len <= room && len <= DATAGRAM_MAX_BYTES);
                prop_assert!(escaped_len(&text) <= text_max_bytes(Kind::Message, extra_bytes));
            }
            Err(MessageError::TooLong { needed_bytes, limit_bytes, .. }) => {
                prop_assert_eq!(needed_bytes, escaped_len(&text));
                let others = Kind::Message.prefix().len() + 1 + extra_bytes;
                prop_assert!(needed_bytes > limit_bytes || others > room.min(DATAGRAM_MAX_BYTES));
                prop_assert!(out.iter().all(|byte| *byte == 0), "untouched");
            }
        }
    }
}

#[test]
fn the_rule_for_netconsd_knows_a_record_when_it_sees_one() {
    for record in [
        &b"6,10,1000,-;text"[..],
        b"6.12.0-rc1,6,10,1000,-;text",
        b"0x1e,1,1;x",
        b" 6,1,1;x",
        b",1,1;x",
        b"6;x",
    ] {
        assert!(netconsd_reads_a_priority(record), "{}", record.escape_ascii());
    }
    for text in [&b"ping; 1,2"[..], b"no header at all", b"6,10,1000"] {
        assert!(!netconsd_reads_a_priority(text), "{}", text.escape_ascii());
    }
}

#[test]
fn a_message_is_a_line_and_the_extra_data_behind_it() {
    let packet = composed(Kind::Message, b"deploy 7, a\\b\n\x1b[31m", b" rack=r12\n cpu=3\n");
    let expected =
        b"netconsole-agent, message: deploy 7, a\\x5cb\\x0a\\x1b[31m\n rack=r12\n cpu=3\n";
    assert_eq!(packet, expected);
    let mut prefixes = Kind::ALL.map(Kind::prefix);
    prefixes.sort_unstable();
    assert!(prefixes.windows(2).all(|pair| pair[0] != pair[1]));
}

#[test]
fn the_limit_is_exact() {
    let extra = b" rack=r12\n";
    let limit = text_max_bytes(Kind::Notice, extra.len());
    assert_eq!(composed(Kind::Notice, &vec![b'x'; limit], extra).len(), DATAGRAM_MAX_BYTES);
    let error = compose_into(&mut [0; 2000], Kind::Notice, &vec![b'x'; limit + 1], extra);
    let error = error.expect_err("one byte too long");
    let (needed_bytes, limit_bytes) = (limit + 1, limit);
    assert_eq!(error, MessageError::TooLong { needed_bytes, limit_bytes, extra_bytes: 10 });
    assert!(error.to_string().contains(&format!("room for {limit} ")), "{error}");
    assert_eq!(text_max_bytes(Kind::Ping, 5000), 0);
    assert!(check(Kind::Ping, b"", 5000).is_err());
}

#[test]
fn pings_and_keepalives_say_where_they_come_from() {
    assert_eq!(
        ping(0xab, &SENDER),
        "nonce=00000000000000ab time=1970-01-01T00:00:00.000Z host=web1.example device=eth0 \
         queue=3 next_hop=02:00:00:00:00:fe version=0.1.0"
    );
    let unknown = Sender { device: None, queue: None, next_hop: None, host: "a b=c", ..SENDER };
    assert_eq!(
        keepalive(Duration::from_secs(90), &unknown),
        "uptime_s=90 time=1970-01-01T00:00:00.000Z host=a?b?c version=0.1.0"
    );
    // The longest names leave room for extra data.
    let host = "h".repeat(300);
    let long = Sender { host: &host, device: Some("fifteen-letters"), ..SENDER };
    assert!(check(Kind::Ping, ping(u64::MAX, &long).as_bytes(), 600).is_ok());
}

#[test]
fn the_receiver_shows_it_as_text() {
    let packet = composed(Kind::Message, b"6,1,1,-;hello", b" rack=r12\n");
    let mut events = Vec::new();
    let source = std::net::Ipv4Addr::LOCALHOST.into();
    Receiver::new().datagram(Duration::ZERO, source, &packet, &mut events);
    assert!(matches!(events[..], [Event::Plain(..)]), "{events:?}");
    assert_eq!(
        render::text(&events[0]),
        "127.0.0.1 - - netconsole-agent, message: 6,1,1,-;hello\n               rack=r12\n"
    );
}
