//! The endpoint for Prometheus and for whoever watches over the service: `/metrics`,
//! `/healthz` and `/readyz` over plain HTTP, to this host only.
//!
//! [`server`] speaks HTTP and knows nothing of the agent. What it is asked goes to the control
//! thread's loop, which answers with a [`Page`]: what it shows is read when it is asked for,
//! from the ledgers and counters that there are ([`view`]), and nothing is counted here.
//! [`families`] defines every metric once (what one is: [`family`]): the exposition, the table in the README and the
//! tests are made from it. Names follow
//! <https://prometheus.io/docs/practices/naming/>, the format is OpenMetrics 1.0.

pub mod families;
pub mod family;
mod samples;
pub mod server;
pub mod view;

use tokio::sync::oneshot;

/// What can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// `/metrics`.
    Metrics,
    /// `/healthz`: whether the data threads make progress.
    Health,
    /// `/readyz`: whether records are captured, and what the targets do.
    Ready,
}

impl Question {
    /// The question of a path.
    #[must_use]
    pub fn of(path: &str) -> Option<Self> {
        match path {
            "/metrics" => Some(Self::Metrics),
            "/healthz" => Some(Self::Health),
            "/readyz" => Some(Self::Ready),
            _ => None,
        }
    }
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Whether all is well: 200, else 503.
    pub good: bool,
    /// `Content-Type`.
    pub content_type: &'static str,
    /// The text.
    pub body: String,
}

impl Page {
    /// Plain text.
    #[must_use]
    pub fn text(good: bool, body: String) -> Self {
        Self { good, content_type: "text/plain; charset=utf-8", body }
    }
}

/// A question with the way back to who asked.
#[derive(Debug)]
pub struct Asked {
    /// The question.
    pub question: Question,
    /// Where the answer goes; the client may have gone away.
    pub answer: oneshot::Sender<Page>,
}
