//! A DNS server with a few names, for tests: it answers over UDP and TCP as an
//! authoritative server does (RFC 1035), and misbehaves when told to. It follows no
//! delegations and knows no zones.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::{IpAddr, TcpListener, TcpStream, UdpSocket},
    path::Path,
    str::FromStr as _,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use hickory_proto::{
    op::{Message, Query, ResponseCode},
    rr::{Name, RData, Record, RecordType, rdata::CNAME},
};

use crate::netns::Namespace;

/// Longest answer by UDP without EDNS (RFC 1035, section 4.2.1).
const UDP_MAX_BYTES: usize = 512;

/// How the server behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// As it should.
    Good,
    /// It says nothing.
    Silent,
    /// It answers SERVFAIL.
    Failing,
    /// It says nothing to questions for AAAA.
    SilentOnAaaa,
    /// It answers SERVFAIL to questions for AAAA.
    FailingOnAaaa,
}

/// What to put before a command so that it finds this file as `/etc/resolv.conf`, which nobody else
/// does: a mount namespace of its own. The process id is that of the command.
#[must_use]
pub fn resolving_with(resolv_conf: &Path) -> Vec<String> {
    let mount = "mount --bind \"$0\" /etc/resolv.conf && exec \"$@\"";
    let own = resolv_conf.to_str().expect("UTF-8");
    let words = ["unshare", "--mount", "--propagation", "private", "sh", "-c", mount, own];
    words.map(str::to_owned).to_vec()
}

#[derive(Debug)]
struct Shared {
    /// Name to data (an address, or the name that it is an alias of) and TTL.
    records: Mutex<BTreeMap<Name, Vec<(RData, u32)>>>,
    manner: Mutex<Manner>,
    /// Of names for which it behaves otherwise.
    manners: Mutex<BTreeMap<Name, Manner>>,
    asked: AtomicUsize,
    asked_by_tcp: AtomicUsize,
    stop: AtomicBool,
}

/// The server; it ends on drop.
#[derive(Debug)]
pub struct DnsServer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl DnsServer {
    /// Starts on port 53 of an address of the namespace.
    ///
    /// # Panics
    /// If the address cannot be bound.
    #[must_use]
    pub fn start(namespace: &Namespace, address: IpAddr) -> Self {
        let (udp, tcp) = namespace.run(|| {
            let udp = UdpSocket::bind((address, 53)).expect("bind UDP port 53");
            (udp, TcpListener::bind((address, 53)).expect("bind TCP port 53"))
        });
        udp.set_read_timeout(Some(Duration::from_millis(5))).expect("a timeout");
        tcp.set_nonblocking(true).expect("a listener that does not wait");
        let shared = Arc::new(Shared {
            records: Mutex::default(),
            manner: Mutex::new(Manner::Good),
            manners: Mutex::default(),
            asked: AtomicUsize::new(0),
            asked_by_tcp: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
        });
        let serving = Arc::clone(&shared);
        let thread = Some(std::thread::spawn(move || serve(&serving, &udp, &tcp)));
        Self { shared, thread }
    }

    /// Replaces what a name has: addresses, or one name that it is an alias of, each
    /// with its TTL in seconds. Without data, the name is there and has nothing.
    ///
    /// # Panics
    /// If a name is none.
    pub fn set(&self, name: &str, data: &[(&str, u32)]) {
        let data = data.iter().map(|(text, ttl)| match text.parse::<IpAddr>() {
            Ok(address) => (RData::from(address), *ttl),
            Err(_) => (RData::CNAME(CNAME(absolute(text))), *ttl),
        });
        self.shared.records.lock().expect("the records").insert(absolute(name), data.collect());
    }

    /// From now on the server behaves so.
    ///
    /// # Panics
    /// If the server has.
    pub fn behave(&self, manner: Manner) {
        *self.shared.manner.lock().expect("the manner") = manner;
    }

    /// From now on the server behaves so to questions for this name.
    ///
    /// # Panics
    /// If it is no name, or the server has.
    pub fn behave_for(&self, name: &str, manner: Manner) {
        self.shared.manners.lock().expect("the manners").insert(absolute(name), manner);
    }

    /// Questions so far, and how many of them by TCP.
    #[must_use]
    pub fn asked(&self) -> (usize, usize) {
        let load = |count: &AtomicUsize| count.load(Ordering::Relaxed);
        (load(&self.shared.asked), load(&self.shared.asked_by_tcp))
    }
}

impl Drop for DnsServer {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn absolute(text: &str) -> Name {
    let mut name = Name::from_str(text).expect("a name");
    name.set_fqdn(true);
    name
}

fn serve(shared: &Arc<Shared>, udp: &UdpSocket, tcp: &TcpListener) {
    let mut buffer = [0; 4096];
    while !shared.stop.load(Ordering::Relaxed) {
        if let Ok((length, from)) = udp.recv_from(&mut buffer)
            && let Some(mut answer) = shared.answer(&buffer[..length])
        {
            let mut bytes = answer.to_vec().expect("encode the answer");
            if bytes.len() > UDP_MAX_BYTES {
                answer.metadata.truncation = true;
                answer.answers.clear();
                bytes = answer.to_vec().expect("encode the answer");
            }
            let _ = udp.send_to(&bytes, from);
        }
        if let Ok((stream, _)) = tcp.accept() {
            let shared = Arc::clone(shared);
            std::thread::spawn(move || shared.serve_stream(stream));
        }
    }
}

impl Shared {
    /// Serves one TCP connection until its end, or until nothing comes for a second.
    fn serve_stream(&self, mut stream: TcpStream) {
        let timeout = Some(Duration::from_secs(1));
        if stream.set_nonblocking(false).is_err() || stream.set_read_timeout(timeout).is_err() {
            return;
        }
        let mut length = [0; 2];
        while stream.read_exact(&mut length).is_ok() {
            let mut question = vec![0; u16::from_be_bytes(length).into()];
            if stream.read_exact(&mut question).is_err() {
                return;
            }
            self.asked_by_tcp.fetch_add(1, Ordering::Relaxed);
            let Some(answer) = self.answer(&question) else { continue };
            let answer = answer.to_vec().expect("encode the answer");
            let length = u16::try_from(answer.len()).expect("a short answer").to_be_bytes();
            if stream.write_all(&[&length, &answer[..]].concat()).is_err() {
                return;
            }
        }
    }

    fn answer(&self, question: &[u8]) -> Option<Message> {
        let question = Message::from_vec(question).ok()?;
        let query = question.queries.first()?.clone();
        self.asked.fetch_add(1, Ordering::Relaxed);
        let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
        answer.metadata.recursion_desired = question.metadata.recursion_desired;
        answer.metadata.recursion_available = true;
        answer.add_query(query.clone());
        let is_aaaa = query.query_type() == RecordType::AAAA;
        let for_all = *self.manner.lock().expect("the manner");
        let manners = self.manners.lock().expect("the manners");
        match manners.get(query.name()).copied().unwrap_or(for_all) {
            Manner::Silent => return None,
            Manner::SilentOnAaaa if is_aaaa => return None,
            Manner::Failing => answer.metadata.response_code = ResponseCode::ServFail,
            Manner::FailingOnAaaa if is_aaaa => {
                answer.metadata.response_code = ResponseCode::ServFail;
            }
            _ => answer.metadata.response_code = self.find(&query, &mut answer),
        }
        Some(answer)
    }

    fn find(&self, query: &Query, answer: &mut Message) -> ResponseCode {
        let records = self.records.lock().expect("the records");
        let mut name = query.name().clone();
        let mut code = ResponseCode::NXDomain;
        while let Some(data) = records.get(&name) {
            code = ResponseCode::NoError;
            let asked = |data: &RData| match data {
                RData::CNAME(_) => true,
                other => other.record_type() == query.query_type(),
            };
            for (data, ttl) in data.iter().filter(|(data, _)| asked(data)) {
                answer.add_answer(Record::from_rdata(name.clone(), *ttl, data.clone()));
            }
            match data.first() {
                Some((RData::CNAME(alias), _)) => name = alias.0.clone(),
                _ => break,
            }
        }
        code
    }
}
