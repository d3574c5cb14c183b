//! Ctrl-C as a flag: a command that has something to clean up looks at it and
//! returns an error, so that its guards run. Nothing is done in the handler.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use signal_hook::consts::{SIGINT, SIGTERM};

const POLL: Duration = Duration::from_millis(50);

/// Tells whether the user wants to stop.
#[derive(Clone)]
pub(crate) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// From here on Ctrl-C and SIGTERM set the flag and no longer end the process.
    pub(crate) fn watch() -> Result<Self> {
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&flag))
                .context("install a signal handler")?;
        }
        Ok(Self(flag))
    }

    /// An error once the user wants to stop.
    pub(crate) fn check(&self) -> Result<()> {
        if self.0.load(Ordering::Relaxed) {
            bail!("interrupted");
        }
        Ok(())
    }

    /// Waits until `ready` says so, at most `limit`.
    ///
    /// # Errors
    /// What `ready` returns, the interruption, or the limit, naming `what`.
    pub(crate) fn wait_for(
        &self,
        what: &str,
        limit: Duration,
        mut ready: impl FnMut() -> Result<bool>,
    ) -> Result<()> {
        let start = Instant::now();
        while !ready()? {
            self.check()?;
            if start.elapsed() > limit {
                bail!("{what} did not happen within {} s", limit.as_secs());
            }
            thread::sleep(POLL);
        }
        Ok(())
    }
}
