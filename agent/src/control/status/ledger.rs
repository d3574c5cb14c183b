//! The accounts in full: what `status --ledger` prints.
//!
//! A table for each target, one term a line with its number; the terms of the sum first, and
//! what is part of `sent` indented below it.

use std::{collections::BTreeMap, fmt::Write as _};

use serde::Serialize;

use super::{Account, Status, TargetStatus};
use crate::receive::render::printable;

impl Status {
    /// The accounts for people.
    #[must_use]
    pub fn to_ledgers(&self) -> String {
        if self.targets.is_empty() {
            return "There is no target.\n".to_owned();
        }
        let tables: Vec<_> = self.targets.iter().map(TargetStatus::ledger).collect();
        tables.join("\n")
    }

    /// The accounts for programs: by the target's name.
    #[must_use]
    pub fn ledgers(&self) -> impl Serialize {
        let pair = |target: &TargetStatus| (target.name.clone(), target.account.clone());
        self.targets.iter().map(pair).collect::<BTreeMap<String, Account>>()
    }
}

impl TargetStatus {
    fn ledger(&self) -> String {
        let account = &self.account;
        let mut rows = vec![
            ("seen".to_owned(), account.seen),
            ("= sent".to_owned(), account.sent),
            ("    approximated".to_owned(), account.approximated),
            ("    backfilled".to_owned(), account.backfilled),
            ("    doubled".to_owned(), account.doubled),
            ("+ filtered".to_owned(), account.filtered),
        ];
        let lost = account.lost.iter();
        rows.extend(lost.map(|(reason, count)| (format!("+ lost: {reason}"), *count)));
        rows.push(("+ queued".to_owned(), account.queued));
        let name = printable(self.name.as_bytes());
        let mut text = format!("{name} (seq {} to {})\n", account.first_seq, account.next_seq);
        let width = rows.iter().map(|(term, _)| term.len()).max().unwrap_or(0);
        for (term, count) in rows {
            // Writing to a String does not fail.
            let _ = writeln!(text, "  {:width$}  {count:>12}", printable(term.as_bytes()));
        }
        let balance = match (account.balances, account.unbalanced) {
            (true, 0) => "balances".to_owned(),
            _ => account.imbalance(),
        };
        let _ = writeln!(text, "  {balance}");
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Ledger, LostReason, SharedLedger};

    fn status(ledger: &Ledger) -> Status {
        let shared = SharedLedger::default();
        shared.publish(ledger);
        let target = serde_json::json!({
            "name": "fleet", "remote": "192.0.2.10:6666", "format": "extended", "state": "active",
            "waiting_for": null, "egress": null, "next_hop": null,
            "account": Account::from(&shared),
        });
        serde_json::from_value(serde_json::json!({
            "version": "1", "pid": 1, "uptime_s": 1, "targets": [target],
            "capture": super::super::CaptureStatus::default(),
        }))
        .unwrap()
    }

    fn ledger() -> Ledger {
        let mut ledger = Ledger {
            first_seq: 100,
            next_seq: 1_234_667,
            sent: 1_234_000,
            filtered: 500,
            in_flight: 3,
            waiting: 14,
            approximated: 7,
            backfilled: 2,
            doubled: 1,
            ..Ledger::default()
        };
        ledger.lose(LostReason::Backlog, 40);
        ledger.lose(LostReason::Refused, 10);
        ledger
    }

    #[test]
    fn every_term_has_its_line() {
        let text = status(&ledger()).to_ledgers();
        let expected = "\
fleet (seq 100 to 1234667)
  seen                           1234567
  = sent                         1234000
      approximated                     7
      backfilled                       2
      doubled                          1
  + filtered                         500
  + lost: backlog                     40
  + lost: kernel_overwrote             0
  + lost: not_captured                 0
  + lost: refused                     10
  + lost: removed                      0
  + lost: too_long                     0
  + queued                            17
  balances
";
        assert_eq!(text, expected);
    }

    /// The README leaves out lines where it has `…`.
    #[test]
    fn the_readme_shows_what_is_printed() {
        const README: &str = include_str!("../../../../README.md");
        let mut shown = ledger();
        shown.lost = Ledger::default().lost;
        shown.lose(LostReason::Backlog, 50);
        let text = status(&shown).to_ledgers();
        let (begin, end) = text.split_once("  + lost: kernel_overwrote").expect("the middle");
        let end = &end[end.find("  + queued").expect("the end")..];
        assert!(README.contains(&format!("```text\n{begin}  …\n{end}```\n")), "{text}");
        let whole = Ledger { next_seq: 100_000, sent: 100_000, ..Ledger::default() };
        let line = status(&whole).targets[0].account.line();
        assert!(README.contains(&format!("```text\n{line}\n```\n")), "{line}");
    }

    #[test]
    fn a_wrong_account_says_so() {
        let text = status(&Ledger { sent: 1, ..ledger() }).to_ledgers();
        assert!(text.contains("DOES NOT BALANCE (1 times), please report this"), "{text}");
    }
}
