//! Sends what earlier boots left to the targets that want it, a few lines at a time, and
//! remembers what the kernel took. What is sent next is decided in [`crate::after_crash`].

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Input, Manager};
use crate::{
    after_crash::{
        Found,
        dump::Dump,
        memory::MemoryError,
        piece::{TEXT_MIN_BYTES, time},
        sending::Sending,
    },
    control::{life::Life, status::after_crash::AfterCrashStatus},
    message::{Kind, compose_into, text_max_bytes},
    netconsole::{DATAGRAM_MAX_BYTES, FormatKind},
    pump::message::Message,
};

/// Dumps that are logged one by one at the start.
const LOGGED_MAX: usize = 8;
/// After a failure to write, the next try.
const WRITE_AGAIN: Duration = Duration::from_secs(60);
/// How long the agent's end may wait for a disk.
const END_PATIENCE: Duration = Duration::from_secs(1);

/// What was found, and what is to be remembered of it.
pub(in crate::control) struct AfterCrash {
    found: Found,
    /// The same as `status` tells it.
    shown: AfterCrashStatus,
    state_dir: PathBuf,
    /// Something is to be written.
    dirty: bool,
    /// A task writes.
    writing: bool,
    /// No try before this.
    write_at: Instant,
}

impl AfterCrash {
    /// Looks at the host, with the privileges of the start. Memory is kept only if it is
    /// `wanted`: if a target is to be sent what was found.
    pub(in crate::control) fn look(state_dir: &Path, wanted: bool) -> Self {
        let found = Found::on_this_host(state_dir);
        if let Some(problem) = &found.memory_problem {
            tracing::warn!(problem, "What was sent after earlier crashes is not known.");
        }
        for problem in &found.problems {
            tracing::warn!(problem, "A file of the persistent store is of no use.");
        }
        for dump in found.dumps.iter().rev().take(LOGGED_MAX).rev() {
            tracing::info!(
                dump = dump.name,
                reason = dump.reason,
                at = time(dump.unix_s),
                boot = dump.boot,
                backend = dump.backend,
                lines = dump.line_count(),
                parts = dump.parts.len(),
                parts_missing = dump.missing,
                "An earlier boot left a dump."
            );
        }
        if !found.dumps.is_empty() {
            tracing::info!(
                dumps = found.dumps.len(),
                unusable_files = found.unusable,
                wanted,
                "Dumps of earlier boots were found (`after_crash = true` sends them to a target)."
            );
        }
        let mut this = Self {
            shown: AfterCrashStatus::new(&found),
            found,
            state_dir: state_dir.to_owned(),
            dirty: wanted,
            writing: false,
            write_at: Instant::now(),
        };
        if wanted {
            // The boot is noted before it can crash; nothing else runs yet.
            let outcome = this.found.memory.write(&this.state_dir);
            this.written(outcome);
        }
        this
    }

    fn written(&mut self, outcome: Result<(), MemoryError>) {
        self.dirty = outcome.is_err();
        if let Err(error) = outcome {
            self.write_at = Instant::now() + WRITE_AGAIN;
            tracing::warn!(
                %error,
                "What is sent after a crash is not remembered: the next start sends it again."
            );
        }
    }

    fn sending(&self, target: &str) -> Sending {
        let Found { dumps, memory, .. } = &self.found;
        let were_sent = memory.were_sent(dumps, target);
        let left = dumps.iter().zip(&were_sent).filter(|(_, sent)| !**sent);
        let left: Vec<_> = left.map(|(dump, _)| Arc::clone(dump)).collect();
        let sent = dumps.len() - left.len();
        Sending::new(left, sent)
    }

    fn note_done(&mut self, target: &str, dumps: &[Arc<Dump>]) {
        for dump in dumps {
            self.found.memory.note_sent(dump, target);
            self.shown.note_sent(&dump.name, target);
            self.dirty = true;
            tracing::info!(
                target_name = target,
                dump = dump.name,
                lines = dump.line_count(),
                "A dump of an earlier boot was sent."
            );
        }
    }
}

impl Manager {
    /// Gives the pump what may go next, and notes what is done with. True if it is worth
    /// looking again soon.
    pub(super) fn send_after_crash(&mut self, now: Instant) -> bool {
        let mut busy = false;
        let Self { lives, messages, link, after_crash, .. } = self;
        for life in lives.values_mut().filter(|life| life.config.after_crash && !life.removing) {
            let mut sending =
                life.after_crash.take().unwrap_or_else(|| after_crash.sending(&life.config.name));
            after_crash.note_done(&life.config.name, &sending.take_done());
            if life.is_active() {
                let extra = extra(life);
                let room_bytes = text_max_bytes(Kind::AfterCrash, extra.len());
                while messages.has_room_to_spare()
                    && let Some((dump, piece)) = sending.next(now, room_bytes)
                {
                    let mut out = [0; DATAGRAM_MAX_BYTES];
                    // It fits: the piece was cut so.
                    let text = piece.text(dump);
                    let Ok(len) = compose_into(&mut out, Kind::AfterCrash, &text, &extra) else {
                        break;
                    };
                    let number = messages.post(link, life.place, out[..len].into());
                    sending.sent(number, room_bytes);
                }
                busy |= sending.is_busy(now);
            }
            life.after_crash = Some(sending);
        }
        self.keep_after_crash(now);
        busy
    }

    /// A message is back from the pump.
    pub(super) fn message_back(&mut self, message: &Message) {
        self.messages.came_back();
        for life in self.lives.values_mut() {
            let can_send = life.is_active();
            let Some(sending) = &mut life.after_crash else { continue };
            if !sending.has(message.number) {
                continue;
            }
            if sending.returned(message.number, message.sent, can_send, Instant::now()) {
                tracing::warn!(
                    target_name = life.config.name.as_str(),
                    "A line of an earlier boot's dump could not be sent after many tries, and is left out."
                );
            }
            return;
        }
    }

    /// Has what was sent written down, one write at a time.
    fn keep_after_crash(&mut self, now: Instant) {
        let after_crash = &mut self.after_crash;
        if !after_crash.dirty || after_crash.writing || now < after_crash.write_at {
            return;
        }
        (after_crash.dirty, after_crash.writing) = (false, true);
        let (memory, state_dir) = (after_crash.found.memory.clone(), after_crash.state_dir.clone());
        let sender = self.sender.clone();
        tokio::task::spawn_blocking(move || {
            // Nobody listens any more only when the agent ends.
            let _ = sender.send(Input::Kept(memory.write(&state_dir)));
        });
    }

    /// It is written, or not.
    pub(super) fn kept(&mut self, outcome: Result<(), MemoryError>) {
        let after_crash = &mut self.after_crash;
        after_crash.writing = false;
        let more = after_crash.dirty;
        after_crash.written(outcome);
        after_crash.dirty |= more;
    }

    /// Writes down what was sent last, when the agent ends.
    pub(in crate::control) async fn finish_after_crash(&mut self) {
        let Self { lives, after_crash, .. } = self;
        for life in lives.values_mut() {
            if let Some(sending) = &mut life.after_crash {
                after_crash.note_done(&life.config.name, &sending.take_done());
            }
        }
        let until = tokio::time::Instant::now() + END_PATIENCE;
        while self.after_crash.writing {
            match tokio::time::timeout_at(until, self.inputs.recv()).await {
                Ok(Some(Input::Kept(outcome))) => self.kept(outcome),
                Ok(Some(_)) => {}
                // Without it the next start sends some of it again.
                Ok(None) | Err(_) => return,
            }
        }
        if self.after_crash.dirty {
            let outcome = self.after_crash.found.memory.write(&self.after_crash.state_dir);
            self.after_crash.written(outcome);
        }
    }

    /// What `status` tells of it.
    #[must_use]
    pub(in crate::control) fn after_crash_status(&self) -> AfterCrashStatus {
        self.after_crash.shown.clone()
    }
}

/// The operator's lines, which go with each message, unless they leave too little room. Lines
/// about the host are left out: some are of this boot.
fn extra(life: &Life) -> Vec<u8> {
    let format = &life.shared.settings.load().format;
    let fits = text_max_bytes(Kind::AfterCrash, format.userdata.len()) >= TEXT_MIN_BYTES;
    if format.kind == FormatKind::Extended && fits { format.userdata.to_vec() } else { Vec::new() }
}
