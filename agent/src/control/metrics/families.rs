//! Every metric, once: name, type, labels, meaning, and where its values come from.
//!
//! Every reason and every state has its series from the first scrape on, at 0 if it has not
//! happened: what appears only when something goes wrong cannot be seen to rise.

use std::fmt::{self, Write as _};

use super::{
    family::{BaseUnit, Family, Kind, of_agent, of_target},
    view::{Scrape, TargetScrape, unix_s},
};
use crate::{
    control::progress::THREADS,
    ledger::{Ledger, LostReason},
    target::state::{State, WaitKind},
};

/// All of them, in the order of the exposition.
pub static FAMILIES: &[Family] = &[
    Family {
        labels: &["version"],
        ..of_agent("build", Kind::Info, "The agent's version.", |scrape, to| {
            to.info(&[("version", scrape.version)])
        })
    },
    Family {
        unit: Some(BaseUnit::Seconds),
        ..of_agent(
            "start_time",
            Kind::Gauge,
            "When the agent started, as Unix time.",
            |scrape, to| to.gauge(&[], unix_s(scrape.started)),
        )
    },
    of_agent(
        "config_generation",
        Kind::Gauge,
        "How often a configuration has come into use: 1 for that of the start.",
        |scrape, to| to.gauge(&[], scrape.config_generation),
    ),
    of_agent(
        "config_last_reload_successful",
        Kind::Gauge,
        "1 if the configuration that was read last is in use, 0 if it was refused.",
        |scrape, to| to.gauge(&[], u64::from(scrape.config_good)),
    ),
    Family {
        labels: &["thread"],
        ..of_agent(
            "thread_progressing",
            Kind::Gauge,
            "1 as long as the data thread makes progress.",
            |scrape, to| {
                for (thread, still) in THREADS.into_iter().zip(scrape.still) {
                    to.gauge(&[("thread", thread)], u64::from(!still))?;
                }
                Ok(())
            },
        )
    },
    Family {
        unit: Some(BaseUnit::Bytes),
        ..of_agent("store_size", Kind::Gauge, "Size of the record store.", |scrape, to| {
            to.gauge(&[], scrape.store_bytes as u64)
        })
    },
    Family {
        unit: Some(BaseUnit::Bytes),
        ..of_agent(
            "store_used",
            Kind::Gauge,
            "Bytes of the record store with what some target has still to send.",
            |scrape, to| to.gauge(&[], scrape.depths[0]),
        )
    },
    Family {
        unit: Some(BaseUnit::Bytes),
        ..of_agent(
            "capture_ring_used",
            Kind::Gauge,
            "Bytes in use of the programs' ring.",
            |scrape, to| to.gauge(&[], scrape.depths[1]),
        )
    },
    of_agent(
        "kmsg_queue_records",
        Kind::Gauge,
        "Records from /dev/kmsg that wait for the pump.",
        |scrape, to| to.gauge(&[], scrape.depths[2]),
    ),
    Family {
        labels: &["source", "hook"],
        ..of_agent("capture_source", Kind::Info, "The source of records in use.", |scrape, to| {
            let hook = scrape.capture.hook.as_deref().unwrap_or("none");
            to.info(&[("source", &scrape.capture.source), ("hook", hook)])
        })
    },
    of_agent(
        "capture_records",
        Kind::Counter,
        "Records that the programs wrote to the ring.",
        |scrape, to| to.counter(&[], scrape.capture.captured),
    ),
    of_agent(
        "capture_ring_full",
        Kind::Counter,
        "Records that found the programs' ring full.",
        |scrape, to| to.counter(&[], scrape.capture.ring_full),
    ),
    Family {
        labels: &["level"],
        ..of_agent(
            "capture_shed",
            Kind::Counter,
            "What the programs left out while the ring filled up (commit source): records, and stages of records that were continued.",
            |scrape, to| {
                let shed = scrape.capture.shed;
                to.counter(&[("level", "debug")], shed.debug)?;
                to.counter(&[("level", "info")], shed.info)?;
                to.counter(&[("level", "notice")], shed.notice)?;
                to.counter(&[("level", "warning")], shed.warning)
            },
        )
    },
    of_agent(
        "capture_read_errors",
        Kind::Counter,
        "Reads of kernel memory by the programs that failed.",
        |scrape, to| to.counter(&[], scrape.capture.read_errors),
    ),
    of_agent(
        "capture_recursion_misses",
        Kind::Counter,
        "Runs of a program that the kernel skipped, because it was running already.",
        |scrape, to| to.counter(&[], scrape.capture.recursion_misses),
    ),
    of_agent(
        "capture_completed_records",
        Kind::Counter,
        "Captured texts whose header came by the programs as well, so that /dev/kmsg was not needed (tracepoint source).",
        |scrape, to| to.counter(&[], scrape.capture.completed),
    ),
    of_agent(
        "capture_approximated_records",
        Kind::Counter,
        "Captured records whose level and time are estimates.",
        |scrape, to| to.counter(&[], scrape.capture.approximated),
    ),
    of_agent(
        "capture_backfilled_records",
        Kind::Counter,
        "Records that the programs did not deliver and /dev/kmsg did.",
        |scrape, to| to.counter(&[], scrape.capture.backfilled),
    ),
    of_agent(
        "capture_replayed_records",
        Kind::Counter,
        "Records that were logged before the start.",
        |scrape, to| to.counter(&[], scrape.capture.replayed),
    ),
    of_agent(
        "capture_malformed",
        Kind::Counter,
        "Items of the programs' ring that were no record.",
        |scrape, to| to.counter(&[], scrape.capture.malformed),
    ),
    of_agent(
        "capture_mismatched",
        Kind::Counter,
        "Records whose two halves had different texts.",
        |scrape, to| to.counter(&[], scrape.capture.mismatched),
    ),
    of_agent("kmsg_records_read", Kind::Counter, "Records read from /dev/kmsg.", |scrape, to| {
        to.counter(&[], scrape.capture.kmsg_read)
    }),
    of_agent(
        "kmsg_overwritten",
        Kind::Counter,
        "Times the kernel overwrote what /dev/kmsg would have shown next.",
        |scrape, to| to.counter(&[], scrape.capture.kmsg_overwritten),
    ),
    of_agent(
        "thread_wakeups",
        Kind::Counter,
        "Waits of the data threads that ended.",
        |scrape, to| to.counter(&[], scrape.capture.wakeups),
    ),
    Family {
        labels: &["program"],
        ..of_agent(
            "program_runs",
            Kind::Counter,
            "Runs of an eBPF program; the kernel counts only with kernel.bpf_stats_enabled=1.",
            |scrape, to| {
                for program in &scrape.programs {
                    to.counter(&[("program", program.name)], program.runs)?;
                }
                Ok(())
            },
        )
    },
    Family {
        labels: &["program"],
        unit: Some(BaseUnit::Seconds),
        ..of_agent(
            "program_run_time",
            Kind::Counter,
            "Time in an eBPF program; the kernel counts only with kernel.bpf_stats_enabled=1.",
            |scrape, to| {
                for program in &scrape.programs {
                    to.counter_s(&[("program", program.name)], program.time.as_secs_f64())?;
                }
                Ok(())
            },
        )
    },
    Family {
        labels: &["reason"],
        ..of_agent(
            "control_refused",
            Kind::Counter,
            "Clients and requests refused at the control socket.",
            |scrape, to| {
                let refused = scrape.refused;
                to.counter(&[("reason", "not_allowed")], refused.not_allowed)?;
                to.counter(&[("reason", "malformed")], refused.malformed)?;
                to.counter(&[("reason", "too_many_clients")], refused.too_many_clients)
            },
        )
    },
    Family {
        labels: &["target", "state"],
        ..of_target(
            "target_state",
            Kind::Gauge,
            "1 for the state that the target is in: disabled, waiting, active or draining.",
            |scrape, to| {
                for target in &scrape.targets {
                    for state in State::NAMES {
                        let is_it = u64::from(target.state.name() == state);
                        to.gauge(&[("target", &target.name), ("state", state)], is_it)?;
                    }
                }
                Ok(())
            },
        )
    },
    Family {
        labels: &["target", "reason"],
        ..of_target(
            "target_waiting",
            Kind::Gauge,
            "1 for what a waiting target waits for.",
            |scrape, to| {
                for target in &scrape.targets {
                    for kind in WaitKind::ALL {
                        let is_it =
                            matches!(&target.state, State::Waiting(now) if now.kind == kind);
                        let labels = [("target", target.name.as_str()), ("reason", kind.name())];
                        to.gauge(&labels, u64::from(is_it))?;
                    }
                }
                Ok(())
            },
        )
    },
    Family {
        unit: Some(BaseUnit::Seconds),
        ..of_target(
            "target_state_since_timestamp",
            Kind::Gauge,
            "When the target's state began, as Unix time.",
            |scrape, to| {
                each(scrape, |target| to.gauge(&[("target", &target.name)], unix_s(target.since)))
            },
        )
    },
    Family {
        unit: Some(BaseUnit::Seconds),
        ..of_target(
            "target_heal_duration",
            Kind::Histogram,
            "Outages that are over: from leaving active to being active again, what operators switched or changed left out.",
            |scrape, to| each(scrape, |target| to.histogram(&[("target", &target.name)], target)),
        )
    },
    of_target(
        "records_seen",
        Kind::Counter,
        "Records that the target has been responsible for: sent, filtered, lost, waiting or in flight.",
        |scrape, to| to.of_ledgers(scrape, Ledger::seen),
    ),
    of_target(
        "records_sent",
        Kind::Counter,
        "Records that the kernel took whole.",
        |scrape, to| to.of_ledgers(scrape, |ledger| ledger.sent),
    ),
    of_target(
        "records_filtered",
        Kind::Counter,
        "Records left out on purpose: level, facility, filter, rate.",
        |scrape, to| to.of_ledgers(scrape, |ledger| ledger.filtered),
    ),
    Family {
        labels: &["target", "reason"],
        ..of_target("records_lost", Kind::Counter, "Records lost, by reason.", |scrape, to| {
            for target in &scrape.targets {
                for reason in LostReason::ALL {
                    let labels = [("target", target.name.as_str()), ("reason", reason.name())];
                    to.counter(&labels, target.ledger.lost[reason as usize])?;
                }
            }
            Ok(())
        })
    },
    of_target(
        "records_waiting",
        Kind::Gauge,
        "Records in the store that the target has still to send.",
        |scrape, to| {
            each(scrape, |target| to.gauge(&[("target", &target.name)], target.ledger.waiting))
        },
    ),
    of_target(
        "records_in_flight",
        Kind::Gauge,
        "Records handed to the socket whose fate is not known yet.",
        |scrape, to| {
            each(scrape, |target| to.gauge(&[("target", &target.name)], target.ledger.in_flight))
        },
    ),
    of_target(
        "records_approximated",
        Kind::Counter,
        "Of the sent records, those whose level and time are estimates.",
        |scrape, to| to.of_ledgers(scrape, |ledger| ledger.approximated),
    ),
    of_target(
        "records_backfilled",
        Kind::Counter,
        "Of the sent records, those read from /dev/kmsg because the programs did not deliver them.",
        |scrape, to| to.of_ledgers(scrape, |ledger| ledger.backfilled),
    ),
    of_target(
        "records_doubled",
        Kind::Counter,
        "Of the sent records, those of which a part left more than once.",
        |scrape, to| to.of_ledgers(scrape, |ledger| ledger.doubled),
    ),
    of_target(
        "records_suspected",
        Kind::Counter,
        "Of the sent records, those that may have gone to a MAC address which was no longer the right one.",
        |scrape, to| {
            each(scrape, |target| to.counter(&[("target", &target.name)], target.suspected))
        },
    ),
    of_target(
        "ledger_unbalanced",
        Kind::Counter,
        "Times the target's account was wrong (seen = sent + filtered + lost + waiting + in flight); a mistake in the agent.",
        |scrape, to| {
            each(scrape, |target| to.counter(&[("target", &target.name)], target.unbalanced))
        },
    ),
    of_target(
        "packets",
        Kind::Counter,
        "Packets handed to the way out; what a retired socket gave back counts again.",
        |scrape, to| to.of_ledgers(scrape, |ledger| ledger.packets),
    ),
    of_target(
        "messages_sent",
        Kind::Counter,
        "Messages (of operators, keepalives, notices) that the kernel took; they are no records.",
        |scrape, to| to.of_ledgers(scrape, |ledger| ledger.messages),
    ),
    of_target("messages_lost", Kind::Counter, "Messages that could not be sent.", |scrape, to| {
        to.of_ledgers(scrape, |ledger| ledger.messages_lost)
    }),
    of_agent(
        "after_crash_dumps",
        Kind::Gauge,
        "Dumps of earlier boots that were in the host's persistent store at the start.",
        |scrape, to| to.gauge(&[], scrape.after_crash_dumps),
    ),
    of_agent(
        "after_crash_unusable_files",
        Kind::Gauge,
        "Files of the host's persistent store that could not be read at the start (status says why).",
        |scrape, to| to.gauge(&[], scrape.after_crash_unusable),
    ),
    of_target(
        "after_crash_dumps_waiting",
        Kind::Gauge,
        "Dumps that the target has still to be sent, or the rest of.",
        |scrape, to| {
            each(scrape, |target| {
                to.gauge(&[("target", &target.name)], target.after_crash.dumps_waiting)
            })
        },
    ),
    of_target(
        "after_crash_lines_sent",
        Kind::Counter,
        "Lines of dumps that the kernel took.",
        |scrape, to| {
            each(scrape, |target| {
                to.counter(&[("target", &target.name)], target.after_crash.lines_sent)
            })
        },
    ),
    of_target(
        "after_crash_lines_lost",
        Kind::Counter,
        "Lines of dumps that could not be sent after many tries.",
        |scrape, to| {
            each(scrape, |target| {
                to.counter(&[("target", &target.name)], target.after_crash.lines_lost)
            })
        },
    ),
];

fn each(scrape: &Scrape, sample: impl FnMut(&TargetScrape) -> fmt::Result) -> fmt::Result {
    scrape.targets.iter().try_for_each(sample)
}

/// The documentation of all metrics, as a table of Markdown.
#[must_use]
pub fn table() -> String {
    let mut text = "| metric | type | labels | meaning |\n|---|---|---|---|\n".to_owned();
    for family in FAMILIES {
        let labels: Vec<_> = family.labels.iter().map(|label| format!("`{label}`")).collect();
        // Writing to a String does not fail.
        let _ = writeln!(
            text,
            "| `{}` | {} | {} | {} |",
            family.full_name(),
            family.kind.name(),
            labels.join(", "),
            family.help.trim_end_matches('.')
        );
    }
    text
}

#[cfg(test)]
#[path = "families_tests.rs"]
mod tests;
