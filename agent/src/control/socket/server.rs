//! The agent's side of the control socket: a task per client.
//!
//! A client that sends nonsense, too much or nothing, or that does not read, costs one
//! task, [`REQUEST_MAX_BYTES`] and one reply for as long as the patience lasts. There are
//! at most `CLIENTS_MAX` of root's and as many of the group's, so that the group cannot
//! keep root out. Requests of one client are answered one after the other.

use std::{
    io::{self, Write as _},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{
        UnixListener, UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    time::timeout,
};

use super::{
    super::{
        protocol::{Reply, Request},
        status::RefusedStatus,
    },
    Access, REQUEST_MAX_BYTES,
};

/// Clients of root's, and of the group's, at once.
const CLIENTS_MAX: usize = 16;
/// Of root's clients, those that `tail`.
const TAILS_MAX: usize = 8;
/// For a client to send a request, and to take a reply.
const PATIENCE: Duration = Duration::from_secs(5);
/// For a client to go on reading its tail; somebody may look at a halted screen.
const TAIL_PATIENCE: Duration = Duration::from_secs(60);
/// For the agent to carry out a request.
const ANSWER_PATIENCE: Duration = Duration::from_secs(25);

/// A request with the way back to its client.
#[derive(Debug)]
pub struct Asked {
    /// What is asked. The client may ask it.
    pub request: Request,
    /// Who asks, for the log.
    pub by: Peer,
    /// Where the answer goes; the client may have gone away.
    pub answer: oneshot::Sender<Answer>,
}

/// An answer to a request.
#[derive(Debug)]
pub enum Answer {
    /// One reply.
    Once(Reply),
    /// The client is told that it was carried out, and then these replies until either
    /// end goes away (see [`super::tail::tail`]).
    Stream(mpsc::Receiver<Reply>),
}

impl From<Reply> for Answer {
    fn from(reply: Reply) -> Self {
        Self::Once(reply)
    }
}

/// The process that connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its user.
    pub uid: u32,
    /// Its id, if it can be seen from here.
    pub pid: Option<i32>,
}

impl Peer {
    /// Whether it may ask everything: root, and the agent's own user, as which systemd runs a service's
    /// `ExecReload=`. That user owns the socket and may signal the agent; it may not trace it, since it lacks
    /// the agent's capabilities (`cap_ptrace_access_check`).
    #[must_use]
    pub fn may_all(self) -> bool {
        self.uid == 0 || self.uid == rustix::process::geteuid().as_raw()
    }
}

/// What was refused at the control socket, and why.
#[derive(Debug, Default)]
pub struct Refusals {
    not_allowed: AtomicU64,
    malformed: AtomicU64,
    too_many_clients: AtomicU64,
}

impl Refusals {
    /// For `status`.
    #[must_use]
    pub fn read(&self) -> RefusedStatus {
        RefusedStatus {
            not_allowed: self.not_allowed.load(Ordering::Relaxed),
            malformed: self.malformed.load(Ordering::Relaxed),
            too_many_clients: self.too_many_clients.load(Ordering::Relaxed),
        }
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Accepts clients for ever and passes their requests on.
pub async fn serve(
    listener: UnixListener,
    access: Access,
    asked: mpsc::Sender<Asked>,
    refusals: Arc<Refusals>,
) {
    let places = || Arc::new(Semaphore::new(CLIENTS_MAX));
    let (of_owner, of_group) = (places(), places());
    let tails = Arc::new(Semaphore::new(TAILS_MAX));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors, most likely; accepting again at once would spin.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let Ok(peer) = stream.peer_cred() else { continue };
        let peer = Peer { uid: peer.uid(), pid: peer.pid() };
        if !peer.may_all() && access == Access::Root {
            count(&refusals.not_allowed);
            turn_away(stream, "only root and the agent's own user may use this control socket");
            continue;
        }
        let places = if peer.may_all() { &of_owner } else { &of_group };
        let Ok(place) = Arc::clone(places).try_acquire_owned() else {
            count(&refusals.too_many_clients);
            turn_away(stream, "the agent has too many clients; try again later");
            continue;
        };
        let client = Client {
            peer,
            asked: asked.clone(),
            refusals: Arc::clone(&refusals),
            tails: Arc::clone(&tails),
        };
        tokio::spawn(async move {
            // A client that breaks off is its own affair.
            let _ = client.converse(stream).await;
            drop(place);
        });
    }
}

/// Says why, as far as that goes without waiting, and hangs up.
fn turn_away(stream: UnixStream, why: &str) {
    let reply = serde_json::to_vec(&Reply::refused(why));
    if let (Ok(mut line), Ok(mut stream)) = (reply, stream.into_std()) {
        line.push(b'\n');
        // An empty socket buffer takes it whole.
        let _ = stream.write(&line);
    }
}

struct Client {
    peer: Peer,
    asked: mpsc::Sender<Asked>,
    refusals: Arc<Refusals>,
    tails: Arc<Semaphore>,
}

impl Client {
    async fn converse(self, stream: UnixStream) -> io::Result<()> {
        let (reader, mut writer) = stream.into_split();
        let mut reader = BufReader::new(reader);
        loop {
            let mut line = Vec::new();
            let mut limited = (&mut reader).take(REQUEST_MAX_BYTES as u64);
            if timeout(PATIENCE, limited.read_until(b'\n', &mut line)).await?? == 0 {
                return Ok(());
            }
            if line.last() != Some(&b'\n') {
                count(&self.refusals.malformed);
                let text = format!("a request is one line of at most {REQUEST_MAX_BYTES} bytes");
                return say(&mut writer, &Reply::refused(text), PATIENCE).await;
            }
            let (answer, tail) = self.answer(&line).await;
            drop(line);
            match answer {
                Answer::Once(reply) => say(&mut writer, &reply, PATIENCE).await?,
                Answer::Stream(replies) => {
                    stream_to(reader, writer, replies).await?;
                    drop(tail);
                    return Ok(());
                }
            }
            // One that asks without pause shares the thread with everybody.
            tokio::task::yield_now().await;
        }
    }

    /// The answer, and the place among the tails if it is one.
    async fn answer(&self, line: &[u8]) -> (Answer, Option<OwnedSemaphorePermit>) {
        let refused = |text: &str| (Answer::Once(Reply::refused(text)), None);
        let request = match Request::parse(line) {
            Ok(request) => request,
            Err(error) => {
                count(&self.refusals.malformed);
                return refused(&error);
            }
        };
        if !self.peer.may_all() && !request.is_for_the_group() {
            count(&self.refusals.not_allowed);
            return refused(
                "only root and the agent's own user may do that; the control group may ask for \
                 status, list, send, ping and filter-explain",
            );
        }
        let mut tail = None;
        if matches!(request, Request::Tail { .. }) {
            tail = Arc::clone(&self.tails).try_acquire_owned().ok();
            if tail.is_none() {
                count(&self.refusals.too_many_clients);
                return refused(&format!("there are {TAILS_MAX} tails already; end one of them"));
            }
        }
        let (sender, receiver) = oneshot::channel();
        let asked = Asked { request, by: self.peer, answer: sender };
        let answered = timeout(ANSWER_PATIENCE, async {
            self.asked.send(asked).await.ok()?;
            receiver.await.ok()
        });
        match answered.await {
            Ok(Some(answer)) => (answer, tail),
            Ok(None) => refused("the agent is stopping"),
            Err(_) => refused("the agent does not get to it in time; it may still do it"),
        }
    }
}

async fn say(writer: &mut OwnedWriteHalf, reply: &Reply, patience: Duration) -> io::Result<()> {
    let mut line = serde_json::to_vec(reply)?;
    line.push(b'\n');
    timeout(patience, writer.write_all(&line)).await?
}

/// Until the client hangs up, or says something more: nothing can be asked meanwhile.
async fn stream_to(
    mut reader: BufReader<OwnedReadHalf>,
    mut writer: OwnedWriteHalf,
    mut replies: mpsc::Receiver<Reply>,
) -> io::Result<()> {
    say(&mut writer, &Reply::done(), PATIENCE).await?;
    let mut more = [0];
    loop {
        tokio::select! {
            biased;
            _ = reader.read(&mut more) => return Ok(()),
            reply = replies.recv() => match reply {
                Some(reply) => say(&mut writer, &reply, TAIL_PATIENCE).await?,
                None => return Ok(()),
            },
        }
    }
}
