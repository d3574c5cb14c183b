//! What goes to targets besides records (messages, pings, keepalives), and what is asked of
//! the records (copies of what is sent, how a filter decides).

use std::{
    collections::{BTreeMap, VecDeque},
    hash::{BuildHasher as _, Hasher as _, RandomState},
    time::{Duration, Instant, SystemTime},
};

use tokio::sync::oneshot;

use super::Manager;
use crate::{
    clock,
    control::{
        life::Life,
        link::PumpLink,
        protocol::Reply,
        socket::{
            Answer,
            tail::{Tail, tail},
        },
    },
    egress::EgressKind,
    message::{self, Kind, compose_into, nonce_text},
    netconsole::{DATAGRAM_MAX_BYTES, FormatKind, decode::parse_record},
    pump::{
        Command,
        message::{Message, next_number},
        recall::Recall,
        tap::{TapReader, tap},
    },
    record::Record,
    target::state::State,
};

/// Most messages that the pump holds, of all targets.
const MESSAGES_MAX: usize = 256;
/// Most recalls that are under way.
const RECALLS_MAX: usize = 4;

/// See the module's description.
#[derive(Default)]
pub(in crate::control) struct Outgoing {
    last_number: u32,
    /// Messages that the pump holds.
    held: usize,
    tails: BTreeMap<usize, Tailed>,
    recalls: VecDeque<(usize, oneshot::Sender<Answer>)>,
}

struct Tailed {
    reader: TapReader,
    clients: Vec<Tail>,
}

impl Outgoing {
    /// Whether what comes next from the pump is waited for.
    pub(super) fn is_busy(&self) -> bool {
        !self.tails.is_empty() || !self.recalls.is_empty()
    }

    pub(super) fn came_back(&mut self) {
        self.held = self.held.saturating_sub(1);
    }

    /// Whether there is room for what can wait: the other half is for operators.
    pub(super) fn has_room_to_spare(&self) -> bool {
        self.held < MESSAGES_MAX / 2
    }

    /// Gives a message to the pump; returns its number.
    pub(super) fn post(&mut self, link: &mut PumpLink, place: usize, payload: Box<[u8]>) -> u32 {
        self.last_number = next_number(self.last_number);
        let message = Message::new(self.last_number, payload);
        self.held += 1;
        link.send(Command::Message { target: place, message });
        self.last_number
    }
}

/// A number that nobody can guess and no other host draws.
pub(super) fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

impl Manager {
    /// Sends a text of an operator's to targets.
    pub(in crate::control) fn message(&mut self, names: &[String], all: bool, text: &str) -> Reply {
        let targets = match self.targets_of(names, all) {
            Ok(targets) => targets,
            Err(error) => return Reply::refused(error),
        };
        // All or none: a text that is too long for one is not sent to the others.
        let mut composed = Vec::new();
        for target in targets {
            let Some(life) = self.lives.get(&target) else { continue };
            match compose(life, Kind::Message, text) {
                Ok(payload) => composed.push((target, payload)),
                Err(error) => {
                    return Reply::refused(format!("target {}: {error}", life.config.name));
                }
            }
        }
        if self.messages.held + composed.len() > MESSAGES_MAX {
            return Reply::refused("too many messages wait for their targets; try again later");
        }
        let mut waiting = Vec::new();
        for (target, payload) in composed {
            if let Some(State::Waiting(reason)) =
                self.lives.get(&target).map(|life| life.machine.state())
            {
                let name = &self.lives[&target].config.name;
                waiting.push(format!("{name} will get it when it can send: {}", reason.text));
            }
            self.send_payload(target, payload);
        }
        Reply::told(waiting)
    }

    fn targets_of(&self, names: &[String], all: bool) -> Result<Vec<usize>, String> {
        if all {
            return self.named(None);
        }
        if names.is_empty() {
            return Err("no target is named".to_owned());
        }
        let ids = names.iter().map(|name| self.named(Some(name)));
        Ok(ids.collect::<Result<Vec<_>, _>>()?.concat())
    }

    fn send_payload(&mut self, target: usize, payload: Box<[u8]>) {
        let Some(life) = self.lives.get(&target) else { return };
        self.messages.post(&mut self.link, life.place, payload);
    }

    /// Sends a ping; its nonce is what to look for at the receiver.
    pub(in crate::control) fn ping(&mut self, name: &str) -> Reply {
        let target = match self.named(Some(name)) {
            Ok(targets) => targets[0],
            Err(error) => return Reply::refused(error),
        };
        let Some(life) = self.lives.get(&target) else { return Reply::refused("it is gone") };
        if let State::Waiting(reason) = life.machine.state() {
            return Reply::refused(format!("target {name} cannot send: {}", reason.text));
        }
        if !life.is_active() {
            return Reply::refused(format!("target {name} is {}", life.machine.state().name()));
        }
        if self.messages.held >= MESSAGES_MAX {
            return Reply::refused("too many messages wait for their targets; try again later");
        }
        let nonce = random();
        let text = with_sender(life, |sender| message::ping(nonce, sender));
        match compose(life, Kind::Ping, &text) {
            Ok(payload) => {
                self.send_payload(target, payload);
                Reply::told(vec![nonce_text(nonce)])
            }
            Err(error) => Reply::refused(error),
        }
    }

    /// A target has begun to send.
    pub(super) fn activated(&mut self, target: usize) {
        let Some(life) = self.lives.get_mut(&target) else { return };
        life.keepalives.begin(life.config.keepalive, clock::since_boot(), random());
        if life.config.keepalive.is_some() {
            self.send_keepalive(target);
        }
        // What an earlier boot left goes at once, too.
        self.tick_at = Instant::now();
    }

    /// Sends the keepalives that are due, after a suspend at once. `now` is time since the boot.
    pub(super) fn keep_alive(&mut self, now: Duration) {
        for target in self.ids() {
            let Some(life) = self.lives.get_mut(&target) else { continue };
            if life.keepalives.take(life.config.keepalive, now, random()) && life.is_active() {
                self.send_keepalive(target);
            }
        }
    }

    fn send_keepalive(&mut self, target: usize) {
        let Some(life) = self.lives.get(&target) else { return };
        let uptime = clock::since_boot().saturating_sub(self.started);
        let text = with_sender(life, |sender| message::keepalive(uptime, sender));
        if self.messages.held < MESSAGES_MAX
            && let Ok(payload) = compose(life, Kind::Keepalive, &text)
        {
            self.send_payload(target, payload);
        }
    }

    /// Begins to copy what a target sends.
    pub(in crate::control) fn tail(&mut self, name: &str) -> Answer {
        let target = match self.named(Some(name)) {
            Ok(targets) => targets[0],
            Err(error) => return Reply::refused(error).into(),
        };
        let Some(life) = self.lives.get(&target) else {
            return Reply::refused("it is gone").into();
        };
        let (client, answer) = tail();
        let tailed = self.messages.tails.entry(target).or_insert_with(|| {
            let (tap, reader) = tap();
            self.link.send(Command::Tap { target: life.place, tap });
            Tailed { reader, clients: Vec::new() }
        });
        tailed.clients.push(client);
        // The next tick comes soon.
        self.tick_at = Instant::now();
        answer
    }

    /// Passes on what was copied.
    pub(super) fn feed_tails(&mut self) {
        let Self { messages, lives, link, .. } = self;
        messages.tails.retain(|target, Tailed { reader, clients }| {
            while let Some(packet) = reader.read() {
                for client in clients.iter_mut() {
                    client.leave_out(packet.left_out.into());
                    client.offer(&packet.payload);
                }
            }
            clients.retain(|client| !client.is_over());
            let Some(life) = lives.get(target) else { return false };
            if clients.is_empty() {
                link.send(Command::Untap { target: life.place });
            }
            !clients.is_empty()
        });
    }

    /// Tells what a target's filter does with a line, or with the newest records.
    pub(in crate::control) fn explain(
        &mut self,
        name: &str,
        line: Option<&str>,
        last: u32,
        answer: oneshot::Sender<Answer>,
    ) {
        // In each case the client may have gone away.
        let target = match self.named(Some(name)) {
            Ok(targets) => targets[0],
            Err(error) => return drop(answer.send(Reply::refused(error).into())),
        };
        let Some(line) = line else {
            if self.messages.recalls.len() >= RECALLS_MAX {
                let refusal = Reply::refused("others ask the same; try again");
                return drop(answer.send(refusal.into()));
            }
            self.messages.recalls.push_back((target, answer));
            self.link.send(Command::Recall { into: Recall::new(last.max(1) as usize) });
            self.tick_at = Instant::now();
            return;
        };
        let mut buffer = vec![0; line.len() + 64];
        let record = parse_record(line.as_bytes(), usize::MAX, &mut buffer)
            .unwrap_or_else(|_| plain(line.as_bytes()));
        let said = self.lives.get(&target).map(|life| life.filter().explain(&record, None));
        let lines = said.map(|said| said.to_string()).into_iter().collect();
        let _ = answer.send(Reply::told(lines).into());
    }

    /// The newest records are here.
    pub(super) fn recalled(&mut self, recall: &Recall) {
        let Some((target, answer)) = self.messages.recalls.pop_front() else { return };
        let mut lines = Vec::new();
        if let Some(life) = self.lives.get(&target) {
            let filter = life.filter();
            let names = self.extradata.cgroup_names();
            recall.for_each(|record| {
                let id = record.context.map_or(0, |context| context.cgroup_id);
                let path = names.get(id).map(|(path, _)| path);
                let said = filter.explain(record, path);
                let text = String::from_utf8_lossy(record.text);
                lines.push(format!("{}: {} <- {said}", record.seq, text.escape_debug()));
            });
        }
        // The client may have gone away.
        let _ = answer.send(Reply::told(lines).into());
    }
}

/// A text as a record of the kernel's would be, as far as it tells.
fn plain(text: &[u8]) -> Record<'_> {
    Record {
        seq: 0,
        ts_ns: 0,
        facility: 0,
        level: 6,
        cont: false,
        caller: None,
        text,
        subsystem: b"",
        device: b"",
        context: None,
        approximated: false,
        backfilled: false,
    }
}

/// The datagram, with the target's extra data that does not depend on a record.
fn compose(life: &Life, kind: Kind, text: &str) -> Result<Box<[u8]>, String> {
    let settings = life.shared.settings.load();
    let mut extra = Vec::new();
    if settings.format.kind == FormatKind::Extended {
        extra.extend_from_slice(&settings.format.userdata);
        settings.format.host.fixed().for_each(|lines| extra.extend_from_slice(lines));
    }
    let mut out = [0; DATAGRAM_MAX_BYTES];
    let len = compose_into(&mut out, kind, text.as_bytes(), &extra).map_err(|e| e.to_string())?;
    Ok(out[..len].into())
}

fn with_sender(life: &Life, text: impl FnOnce(&message::Sender<'_>) -> String) -> String {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let way = life.machine.way();
    let hop = way.and_then(|way| way.hop.as_ref());
    text(&message::Sender {
        at: SystemTime::now(),
        host: &host,
        device: hop.map(|hop| hop.ifname.as_str()),
        queue: way.filter(|way| way.kind() == EgressKind::Xdp).map(|_| life.config.queue),
        next_hop: hop.and_then(|hop| hop.dst_mac),
        version: env!("CARGO_PKG_VERSION"),
    })
}
