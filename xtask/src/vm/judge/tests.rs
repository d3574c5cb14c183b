//! The judge must not pass what is wrong: each test spoils one thing.

use super::super::record::{Record, fragments};
use super::*;

mod netconsole;
mod phases;

const RELEASE: &str = "6.12.1-amd64";

/// A run in which the kernel and the agent sent everything as they should.
struct Run {
    report: Report,
    sent: Vec<Datagram>,
}

fn record(seq: u64, prio: u32, text: &str) -> Record {
    Record::parse(format!("{prio},{seq},{},-;{text}\n", seq * 1000).as_bytes()).unwrap()
}

impl Run {
    fn good() -> Self {
        let mut run = Self { report: Report::default(), sent: Vec::new() };
        for (name, value) in
            [("release", RELEASE), ("targets", "basic extended release data"), ("sysdata", "")]
        {
            run.report.info.insert(name.to_owned(), value.to_owned());
        }
        let mut seq = 100;
        for (phase, base) in PHASES {
            let texts = [
                (12, format!("vm-test {phase} begin")),
                (6, "from the kernel".to_owned()),
                (14, "x".repeat(990)),
                (14, "disturbance 1".to_owned()),
                (12, format!("vm-test {phase} end")),
            ];
            for (id, (prio, text)) in (1..).zip(texts) {
                let record = record(seq, prio, &text);
                seq += 1;
                let (task, cpu) = match prio {
                    6 => ("modprobe", 0),
                    _ if text.starts_with("dist") => ("vm_disturber", 0),
                    _ => ("vm_writer", 1),
                };
                let author = format!(" cpu={cpu}\n taskname={task}\n");
                let author = if phase == "kmsg" { "" } else { &author };
                run.send(KERNEL_BASE, &record, None);
                run.send(
                    base,
                    &record,
                    Some(&format!("{author} release={RELEASE}\n msgid={id}\n")),
                );
                run.report.records.push(record);
            }
            run.tell_status(phase, base, seq - 5, seq);
        }
        run
    }

    /// All targets of one sender; only the agent's has all system data.
    fn send(&mut self, base: u16, record: &Record, all_data: Option<&str>) {
        let userdata = " role=db\n site=fra1 rack=7\n";
        let header = String::from_utf8(record.header.clone()).unwrap();
        let extended = |prefix: &str, extra: String| {
            fragments(
                (prefix.to_owned() + &header).as_bytes(),
                &[&record.body, extra.as_bytes()].concat(),
            )
        };
        let mut all = vec![
            (Target::Basic, record.basic(2048)),
            (Target::Extended, extended("", String::new())),
            (Target::Release, extended(&format!("{RELEASE},"), String::new())),
            (Target::Data, extended("", userdata.to_owned())),
        ];
        if let Some(sysdata) = all_data {
            all.push((Target::AllData, extended("", format!("{userdata}{sysdata}"))));
        }
        for (target, payloads) in all {
            self.sent.extend(payloads.into_iter().map(|payload| Datagram {
                source: GUEST,
                destination_port: base + target.offset(),
                destination_mac: NEIGHBOUR,
                payload,
            }));
        }
    }

    /// What the agent says at the end of a phase in which it sent everything.
    fn tell_status(&mut self, phase: &str, base: u16, first_seq: u64, next_seq: u64) {
        let targets = Target::ALL.map(|target| {
            let port = base + target.offset();
            let packets = self.sent.iter().filter(|sent| sent.destination_port == port).count();
            serde_json::json!({
                "name": target.name(),
                "egress": { "kind": "xdp" },
                "account": {
                    "first_seq": first_seq,
                    "next_seq": next_seq,
                    "sent": next_seq - first_seq,
                    "packets": packets,
                },
            })
        });
        let proof = (phase != "kmsg").then_some("kprobe panic");
        let status = serde_json::json!({
            "capture": { "source": phase, "backfilled": 0 },
            "last_words": { "proof": proof, "held": 0, "spoken": 0 },
            "targets": targets,
        });
        self.report.info.insert(format!("status-{phase}"), status.to_string());
    }

    /// Changes what the agent says at the end of a phase.
    fn edit_status(&mut self, phase: &str, from: &str, to: &str) {
        let status = self.report.info.get_mut(&format!("status-{phase}")).unwrap();
        let edited = status.replace(from, to);
        assert_ne!(*status, edited);
        *status = edited;
    }

    /// The names of the tests that did not pass.
    fn failed(&self) -> Vec<String> {
        let outcomes = Evidence::new(&self.report, &self.sent).comparisons();
        let failed =
            outcomes.into_iter().filter(|(_, verdict)| !matches!(verdict, Verdict::Passed(_)));
        failed.map(|(name, _)| name).collect()
    }

    /// The datagrams to a port.
    fn to(&mut self, port: u16) -> Vec<&mut Datagram> {
        self.sent.iter_mut().filter(|sent| sent.destination_port == port).collect()
    }

    /// Removes the `nth` datagram to a port.
    fn lose(&mut self, port: u16, nth: usize) {
        let mut count = 0;
        self.sent.retain(|sent| {
            count += usize::from(sent.destination_port == port);
            sent.destination_port != port || count != nth + 1
        });
    }
}

#[test]
fn a_good_run_passes() {
    let run = Run::good();
    assert_eq!(run.failed(), Vec::<String>::new());
    assert_eq!(Evidence::new(&run.report, &run.sent).comparisons().len(), 1 + 3 * (4 + 5 + 2));
}

#[test]
fn a_record_that_the_agent_lost_is_seen_on_every_target() {
    for target in Target::ALL {
        let mut run = Run::good();
        run.lose(7660 + target.offset(), 1);
        let name = format!("commit/agent/{}", target.name());
        assert_eq!(run.failed(), [&name, "commit/agent/account"]);
    }
}

#[test]
fn an_account_that_is_not_true_is_seen() {
    let edits = [
        ("\"sent\":5", "\"sent\":4"),
        ("\"next_seq\":105", "\"next_seq\":104"),
        ("xdp", "udp"),
        ("commit", "kmsg"),
    ];
    for (from, to) in edits {
        let mut run = Run::good();
        run.edit_status("commit", from, to);
        assert_eq!(run.failed(), ["commit/agent/account"], "{from}");
    }
}

#[test]
fn a_record_that_only_the_kernel_lost_is_no_failure() {
    for target in [Target::Basic, Target::Extended, Target::Release, Target::Data] {
        let mut run = Run::good();
        run.lose(KERNEL_BASE + target.offset(), 1);
        assert_eq!(run.failed(), Vec::<String>::new());
    }
}

#[test]
fn a_record_sent_twice_is_seen() {
    for target in Target::ALL {
        let mut run = Run::good();
        let port = 7760 + target.offset();
        let at = run.sent.iter().position(|sent| sent.destination_port == port).unwrap();
        run.sent.insert(at, run.sent[at].clone());
        let name = format!("tracepoint/agent/{}", target.name());
        assert_eq!(run.failed(), [&name, "tracepoint/agent/account"]);
    }
}

#[test]
fn one_wrong_byte_is_seen() {
    for target in Target::ALL {
        for nth in 1..4 {
            let mut run = Run::good();
            let mut sent = run.to(7660 + target.offset());
            let last = sent[nth].payload.len() - 2;
            sent[nth].payload[last] ^= 1;
            assert_eq!(run.failed(), [format!("commit/agent/{}", target.name())], "{nth}");
        }
    }
}

#[test]
fn a_wrong_author_is_seen() {
    let mut run = Run::good();
    let first = &mut run.to(7660 + Target::AllData.offset())[0].payload;
    let text = String::from_utf8(first.clone()).unwrap();
    *first = text.replace("taskname=vm_writer", "taskname=kworker/0").into_bytes();
    assert_eq!(run.failed(), ["commit/agent/all-data"]);
}

#[test]
fn another_cut_is_seen() {
    let mut run = Run::good();
    let long = record(102, 14, &"x".repeat(990));
    let other_cut = [
        b"14,102,102000,-,ncfrag=0/991;"
            .iter()
            .chain(&long.body[..500])
            .copied()
            .collect::<Vec<u8>>(),
        b"14,102,102000,-,ncfrag=500/991;".iter().chain(&long.body[500..]).copied().collect(),
    ];
    for (sent, payload) in run.to(7663).into_iter().skip(2).zip(other_cut) {
        sent.payload = payload;
    }
    assert_eq!(run.failed(), ["commit/agent/extended"]);
}

/// Rewrites the `nth` record of the phase "tracepoint" as an approximated one.
fn approximate(run: &mut Run, nth: usize, late_us: u64) {
    let old = run.report.phase("tracepoint").unwrap()[nth].clone();
    let at = old.timestamp_us + late_us;
    let (from, to) =
        (String::from_utf8(old.header.clone()).unwrap(), format!("4,{},{at},-,approx=1", old.seq));
    let printed = |us: u64| format!("[{:5}.{:06}]", us / 1_000_000, us % 1_000_000);
    for sent in &mut run.sent {
        if (7760..7770).contains(&sent.destination_port) {
            let text = String::from_utf8(sent.payload.clone()).unwrap();
            let text = text.replace(&from, &to);
            let text = text.replace(&printed(old.timestamp_us), &printed(at));
            sent.payload = text.into_bytes();
        }
    }
}

#[test]
fn a_record_may_be_approximated_where_it_is_joined() {
    let mut run = Run::good();
    approximate(&mut run, 1, 300);
    assert_eq!(run.failed(), Vec::<String>::new());
    approximate(&mut run, 3, 300);
    assert_eq!(run.failed().len(), Target::ALL.len(), "two of five are too many");
    let mut run = Run::good();
    approximate(&mut run, 1, 60_000);
    assert_eq!(run.failed().len(), Target::ALL.len(), "the time is wrong");
}

#[test]
fn a_frame_to_another_neighbour_is_seen() {
    let mut run = Run::good();
    run.to(7861)[2].destination_mac = [0xff; 6];
    assert_eq!(run.failed(), ["kmsg/agent/frames"]);
}

#[test]
fn a_wrong_reference_is_seen() {
    let mut run = Run::good();
    run.to(6663)[1].payload[0] = b'7';
    assert_eq!(run.failed(), ["commit/kernel/extended", "commit/agent/extended"]);
    let mut run = Run::good();
    run.report.info.insert("targets".to_owned(), "basic extended".to_owned());
    assert_eq!(run.failed(), ["kernel/targets"]);
}

#[test]
fn the_byte_that_old_kernels_spoil_is_put_back() {
    // A message of exactly 1000 bytes with its extra data.
    let mut run = Run::good();
    let userdata_bytes = 27;
    let text = "y".repeat(1000 - userdata_bytes - "14,102,102000,-;".len() - 1);
    let exact = record(102, 14, &text);
    for (base, phase_start) in [(KERNEL_BASE, 2), (7660, 2)] {
        let port = base + Target::Data.offset();
        let mut sent = run.to(port);
        let body = [&exact.body[..], b" role=db\n site=fra1 rack=7\n"].concat();
        sent[phase_start].payload = fragments(&exact.header, &body).concat();
        assert_eq!(sent[phase_start].payload.len(), 1000);
        if base == KERNEL_BASE {
            sent[phase_start].payload.truncate(999);
        }
        run.lose(port, phase_start + 1);
    }
    run.report.records[2] = exact;
    assert!(!run.failed().contains(&"commit/agent/data".to_owned()), "{:?}", run.failed());
    assert!(!run.failed().contains(&"commit/kernel/data".to_owned()), "{:?}", run.failed());
}
