//! The whole status in words: what `status --verbose` prints.

use std::fmt::Write as _;

use super::{RefusedStatus, Status, TargetStatus};

impl Status {
    /// The report for people.
    #[must_use]
    pub fn to_text(&self) -> String {
        let capture = &self.capture;
        let mut text = format!(
            "netconsole-agent {}, pid {}, up {} s\n",
            self.version, self.pid, self.uptime_s
        );
        let hook = capture.hook.as_deref().map(|hook| format!(" ({hook})")).unwrap_or_default();
        let _ = writeln!(text, "source: {}{hook}", capture.source);
        let _ = writeln!(text, "  {}", capture.reason);
        let _ = writeln!(
            text,
            "  captured {}, ring full {}, read errors {}, recursion misses {}, completed {}, approximated {}, back-filled {}, replayed {}",
            capture.captured,
            capture.ring_full,
            capture.read_errors,
            capture.recursion_misses,
            capture.completed,
            capture.approximated,
            capture.backfilled,
            capture.replayed
        );
        let _ = writeln!(
            text,
            "  left out while the ring filled up: debug {}, info {}, notice {}, warning {}",
            capture.shed.debug, capture.shed.info, capture.shed.notice, capture.shed.warning
        );
        let _ = writeln!(
            text,
            "  /dev/kmsg: read {}, overwritten {} times",
            capture.kmsg_read, capture.kmsg_overwritten
        );
        let _ = writeln!(text, "  network devices: {}", capture.netdev_events);
        text.push_str(&self.last_words.line());
        if let Some(error) = &self.config_error {
            let _ = writeln!(text, "configuration NOT IN USE: {error}");
        }
        if let Some(error) = &self.metrics_error {
            let _ = writeln!(text, "metrics NOT SERVED: {error}");
        }
        if let Some(line) = self.refused.line() {
            let _ = writeln!(text, "{line}");
        }
        if !self.removed.is_empty() {
            let _ = writeln!(text, "targets removed live: {}", self.removed.join(", "));
        }
        for line in self.after_crash.lines() {
            let _ = writeln!(text, "{line}");
        }
        for target in &self.targets {
            target.write_text(&mut text);
        }
        text
    }
}

impl TargetStatus {
    fn write_text(&self, text: &mut String) {
        let _ = writeln!(
            text,
            "target {}: {} -> {} ({})",
            self.name, self.state, self.remote, self.format
        );
        if let Some(address) = self.remote_address.as_ref().filter(|at| **at != self.remote) {
            let _ = writeln!(text, "  address: {address}");
        }
        if let Some(waiting_for) = &self.waiting_for {
            let _ = writeln!(text, "  waiting: {waiting_for}");
        }
        if let Some(egress) = &self.egress {
            let queue = egress.queue.map(|queue| format!(" queue {queue}")).unwrap_or_default();
            let _ = writeln!(text, "  egress: {}{queue} ({})", egress.kind, egress.reason);
        }
        if let Some(hop) = &self.next_hop {
            let mac = hop.mac.as_deref().map(|mac| format!(" to {mac}")).unwrap_or_default();
            let via = hop.gateway.as_deref().map(|via| format!(" via {via}")).unwrap_or_default();
            let _ = writeln!(text, "  next hop: {} from {}{mac}{via}", hop.device, hop.source);
        }
        for warning in &self.warnings {
            let _ = writeln!(text, "  warning: {warning}");
        }
        if let Some(error) = &self.last_error {
            let _ = writeln!(text, "  last error: {error}");
        }
        for change in &self.live {
            let _ = writeln!(text, "  changed live: {change}");
        }
        let _ = writeln!(text, "  account: {}", self.account.line());
        if let Some(line) = self.after_crash.and_then(|sent| sent.line()) {
            let _ = writeln!(text, "  after a crash: {line}");
        }
        if self.suspected > 0 {
            let _ = writeln!(
                text,
                "  suspected: {} of the sent records may have gone to a wrong MAC address",
                self.suspected
            );
        }
        for change in &self.transitions {
            let _ = writeln!(text, "  {}", change.line());
        }
    }
}

impl RefusedStatus {
    /// In one line, if there is anything to tell.
    #[must_use]
    pub fn line(&self) -> Option<String> {
        let Self { not_allowed, malformed, too_many_clients } = *self;
        (*self != Self::default()).then(|| {
            format!(
                "refused at the control socket: {not_allowed} not allowed, {malformed} malformed, \
                 {too_many_clients} too many at once"
            )
        })
    }
}
