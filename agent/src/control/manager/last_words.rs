//! Who is spoken to when the kernel panics: each target that is switched on, by the way that it uses
//! or used last. A way that does not work at the moment may still be better than none.

use super::{LastWords, Manager};
use crate::{
    config,
    control::last_words::{LastWordsStatus, Listener},
    target::state::State,
};

impl Manager {
    /// Takes over what there is for last words.
    pub fn has_last_words(&mut self, last_words: LastWords) {
        self.last_words = Some(last_words);
        self.plan_is_old = true;
    }

    /// What there is for last words, with the newest plan.
    pub fn last_words(&mut self) -> Option<&mut LastWords> {
        self.plan_last_words();
        self.last_words.as_mut()
    }

    /// Holds lines of a panic so long.
    pub fn limit_hold(&mut self, limits: config::LastWords) {
        if let Some(last_words) = &mut self.last_words {
            last_words.limit(limits);
        }
    }

    /// What `status` tells of it.
    #[must_use]
    pub fn last_words_status(&self) -> LastWordsStatus {
        self.last_words.as_ref().map(LastWords::status).unwrap_or_default()
    }

    /// Makes the plan anew, if something changed.
    pub(super) fn plan_last_words(&mut self) {
        if !std::mem::take(&mut self.plan_is_old) {
            return;
        }
        let Self { last_words: Some(last_words), lives, .. } = self else { return };
        let is_on = |state: &State| !matches!(state, State::Disabled | State::Draining);
        let staying = || lives.iter().filter(|(_, life)| !life.removing);
        let keeps_text = staying().any(|(_, life)| life.config.netoops);
        let listeners = staying().filter_map(|(id, life)| {
            let way = life.used.as_ref().filter(|_| is_on(life.machine.state()))?;
            Some(Listener {
                id: *id,
                place: life.place,
                settings: &life.shared.settings,
                way,
                wants_dumps: life.config.netoops,
            })
        });
        last_words.plan(listeners, keeps_text);
    }
}
