//! What must be so on arm64, from what the guest told. Pure: no files, no processes.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::guest::{Run, Said};
use crate::vm::kernel::version;

/// What each of the guest's writers writes, see `tests/vm/arm-init`.
const LINES: u64 = 100;
const WRITERS: [&str; 2] = ["a", "b"];
/// `<11>`: facility user, level err.
const LEVEL: u64 = 3;
const FACILITY: u64 = 1;
/// The task that writes: the init script itself, and its children.
const TASK: &str = "init";

/// arm64 has fentry since functions take direct calls (`HAVE_DYNAMIC_FTRACE_WITH_DIRECT_CALLS`,
/// arch/arm64/Kconfig).
const FENTRY_SINCE: [u64; 2] = [6, 4];

/// A test's name, and what was seen or what is wrong.
pub(super) type Judged = (String, Result<String>);

/// All tests, in the order in which they are to be read.
pub(super) fn judge(release: &str, said: &Said) -> Vec<Judged> {
    let fentry = version(release).as_slice() >= FENTRY_SINCE.as_slice();
    let mut tests = vec![
        ("machine".to_owned(), machine(release, said)),
        ("programs".to_owned(), programs(&said.doctor, fentry)),
    ];
    for source in ["auto", "commit", "tracepoint"] {
        let Some(run) = said.runs.get(source) else {
            tests.push((source.to_owned(), Err(anyhow::anyhow!("the guest told nothing of it"))));
            continue;
        };
        let of = |what: &str| format!("{source}, {what}");
        tests.push((of("source"), hook(run, source, fentry)));
        tests.push((of("lines"), lines(run)));
        tests.push((of("account"), account(run)));
        tests.push((of("last words"), last_words(run)));
        let ended = match run.ended.as_str() {
            "0" => Ok("exit code 0".to_owned()),
            other => Err(anyhow::anyhow!("exit code {other}")),
        };
        tests.push((of("end"), ended));
    }
    tests
}

fn machine(release: &str, said: &Said) -> Result<String> {
    ensure!(said.uname == format!("{release} aarch64"), "it is {:?}", said.uname);
    Ok(said.uname.clone())
}

/// Each program was loaded and attached, for the kernel's verifier and compiler to see it. fentry on
/// `vpanic` is not asked for: not every kernel has that function, and arm64's `va_list` is a structure
/// that no fentry program takes (`btf_distill_func_proto`, kernel/bpf/btf.c).
fn programs(doctor: &Value, fentry: bool) -> Result<String> {
    let findings = doctor.as_array().with_context(|| format!("doctor said {doctor}"))?;
    let text = |finding: &Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
    let hooks: BTreeMap<String, String> = findings
        .iter()
        .map(|finding| (text(finding, "object"), text(finding, "finding")))
        .filter(|(object, _)| {
            ["fentry ", "kprobe ", "tp_btf ", "raw_tp "].iter().any(|kind| object.starts_with(kind))
        })
        .collect();
    let attaches =
        |hook: &&str| hooks.get(*hook).is_some_and(|text| text.starts_with("attaches to"));
    let all = ["kprobe commit", "kprobe netdev", "kprobe panic", "tp_btf printk", "raw_tp printk"];
    let by_fentry = ["fentry commit", "fentry netdev"];
    let mut wrong: Vec<&str> = all.into_iter().filter(|hook| !attaches(hook)).collect();
    // One that should be refused and is not: then this test knows the kernel wrongly.
    wrong.extend(by_fentry.into_iter().filter(|hook| attaches(hook) != fentry));
    let seen: Vec<String> = hooks.iter().map(|(hook, text)| format!("{hook}: {text}")).collect();
    let seen = seen.join("; ");
    ensure!(wrong.is_empty(), "not as it should be: {}; {seen}", wrong.join(", "));
    Ok(seen)
}

/// The source is the one that was asked for, by the best hook that there is.
fn hook(run: &Run, asked: &str, fentry: bool) -> Result<String> {
    let capture = &run.status["capture"];
    let source = if asked == "auto" { "commit" } else { asked };
    let hook = match (source, fentry) {
        ("commit", true) => "fentry prb_commit, prb_final_commit",
        ("commit", false) => "kprobe prb_commit, prb_final_commit",
        _ => "tp_btf printk:console",
    };
    let seen = format!("{} by {}: {}", capture["source"], capture["hook"], capture["reason"]);
    ensure!(capture["source"] == source && capture["hook"] == hook, "{seen}");
    Ok(seen)
}

/// All lines arrived, each once, whole, in the order of their numbers, with what the programs know about them.
fn lines(run: &Run) -> Result<String> {
    let mut next: BTreeMap<&str, u64> = WRITERS.map(|writer| (writer, 1)).into();
    let mut last_seq = 0;
    for record in &run.received {
        let text = record["text"].as_str().with_context(|| format!("received {record}"))?;
        let words: Vec<&str> = text.split(' ').collect();
        let ["arm", "line", writer, number] = words[..] else { bail!("received {record}") };
        let expected = next.get_mut(writer).with_context(|| format!("received {record}"))?;
        ensure!(number == expected.to_string(), "{writer} {expected} should come, not {record}");
        *expected += 1;
        let seq = record["seq"].as_u64().unwrap_or_default();
        ensure!(seq > last_seq, "behind seq {last_seq}: {record}");
        last_seq = seq;
        ensure!(record["level"] == LEVEL && record["facility"] == FACILITY, "level of {record}");
        ensure!(record["approx"] == false, "estimated: {record}");
        let dict = record["dict"].as_array().map(Vec::as_slice).unwrap_or_default();
        let value = |key: &str| dict.iter().find(|entry| entry["key"] == key)?["value"].as_str();
        ensure!(value("taskname") == Some(TASK), "taskname of {record}");
        ensure!(matches!(value("cpu"), Some("0" | "1")), "cpu of {record}");
    }
    let missing: Vec<String> = next
        .iter()
        .filter(|(_, next)| **next <= LINES)
        .map(|(writer, next)| format!("{writer} from {next} on"))
        .collect();
    ensure!(missing.is_empty(), "missing: {}", missing.join(", "));
    Ok(format!("{} received", run.received.len()))
}

/// Nothing was lost on the way, or told by estimates or by the other source.
fn account(run: &Run) -> Result<String> {
    let capture = &run.status["capture"];
    let zero = [
        "ring_full",
        "read_errors",
        "recursion_misses",
        "kmsg_overwritten",
        "approximated",
        "malformed",
        "mismatched",
    ];
    for key in zero {
        ensure!(capture[key] == 0, "{key} is {}", capture[key]);
    }
    let targets = run.status["targets"].as_array().map(Vec::as_slice).unwrap_or_default();
    let [target] = targets else { bail!("status said {}", run.status) };
    let account = &target["account"];
    let lost = account["lost"].as_object().with_context(|| format!("no losses in {account}"))?;
    let lost: Vec<_> = lost.iter().filter(|(_, count)| **count != 0).collect();
    ensure!(lost.is_empty(), "lost: {lost:?}");
    ensure!(account["balances"] == true && account["unbalanced"] == 0, "{account}");
    let captured = capture["captured"].as_u64().unwrap_or_default();
    ensure!(captured >= WRITERS.len() as u64 * LINES, "the programs wrote {captured} records");
    Ok(format!(
        "sent {}, captured {captured}, back-filled {}, lost none",
        account["sent"], account["backfilled"]
    ))
}

/// Something proves a panic, better than `panic_cpu` alone.
fn last_words(run: &Run) -> Result<String> {
    let words = &run.status["last_words"];
    let seen = format!("proof {}, understudy on CPU {}", words["proof"], words["understudy_cpu"]);
    let proofs = ["fentry vpanic", "kprobe panic"];
    ensure!(proofs.iter().any(|proof| words["proof"] == *proof), "{seen}; why: {}", words["why"]);
    ensure!(words["held"] == 0, "without a panic {} lines were held", words["held"]);
    Ok(seen)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn record(writer: &str, number: u64, seq: u64) -> Value {
        json!({
            "text": format!("arm line {writer} {number}"), "seq": seq, "level": 3, "facility": 1,
            "approx": false,
            "dict": [{"key": "cpu", "value": "1"}, {"key": "taskname", "value": "init"}],
        })
    }

    fn good() -> Run {
        let records = (1..=LINES).flat_map(|n| [record("a", n, 2 * n), record("b", n, 2 * n + 1)]);
        Run {
            received: records.collect(),
            status: json!({
                "capture": {
                    "source": "commit", "hook": "kprobe prb_commit, prb_final_commit", "captured": 200,
                    "ring_full": 0, "read_errors": 0, "recursion_misses": 0, "kmsg_overwritten": 0,
                    "approximated": 0, "malformed": 0, "mismatched": 0,
                },
                "last_words": {"proof": "kprobe panic", "held": 0},
                "targets": [{"account": {
                    "sent": 200, "lost": {"overflow": 0}, "balances": true, "unbalanced": 0,
                }}],
            }),
            ended: "0".to_owned(),
        }
    }

    /// The names of the tests of the source `auto` that fail for this run.
    fn failed(run: Run) -> Vec<String> {
        let said = Said { runs: [("auto".to_owned(), run)].into(), ..Said::default() };
        let judged = judge("6.1.0-50-arm64", &said);
        let failed = judged.into_iter().filter(|(_, result)| result.is_err());
        failed.filter_map(|(name, _)| Some(name.strip_prefix("auto, ")?.to_owned())).collect()
    }

    #[test]
    fn a_good_run_passes_and_each_defect_fails_its_test() {
        assert_eq!(failed(good()), [""; 0]);
        let with = |change: fn(&mut Run)| {
            let mut run = good();
            change(&mut run);
            failed(run)
        };
        assert_eq!(with(|run| drop(run.received.remove(7))), ["lines"]);
        assert_eq!(with(|run| drop(run.received.pop())), ["lines"]);
        assert_eq!(with(|run| run.received[3]["level"] = 4.into()), ["lines"]);
        assert_eq!(with(|run| run.received[3]["seq"] = 1.into()), ["lines"]);
        assert_eq!(with(|run| run.received[3]["dict"][1]["value"] = "".into()), ["lines"]);
        let fentry = "fentry prb_commit, prb_final_commit";
        assert_eq!(with(|run| run.status["capture"]["source"] = "kmsg".into()), ["source"]);
        let mut by_fentry = good();
        by_fentry.status["capture"]["hook"] = fentry.into();
        assert_eq!(failed(by_fentry), ["source"]);
        assert_eq!(with(|run| run.status["capture"]["read_errors"] = 1.into()), ["account"]);
        let lost = |run: &mut Run| run.status["targets"][0]["account"]["lost"]["x"] = 1.into();
        assert_eq!(with(lost), ["account"]);
        assert_eq!(with(|run| run.status["last_words"]["proof"] = Value::Null), ["last words"]);
        assert_eq!(with(|run| "1".clone_into(&mut run.ended)), ["end"]);
        let nothing = with(|run| run.status = "cannot connect".into());
        assert_eq!(nothing, ["source", "account", "last words"]);
    }

    #[test]
    fn programs_are_asked_for_as_the_kernel_can_take_them() {
        let finding = |object: &str, text: &str| json!({"object": object, "finding": text});
        let doctor = |fentry: &str| {
            let mut findings: Vec<Value> = [
                "kprobe commit",
                "kprobe netdev",
                "kprobe panic",
                "tp_btf printk",
                "raw_tp printk",
            ]
            .iter()
            .map(|hook| finding(hook, "attaches to x"))
            .collect();
            findings.extend(["fentry commit", "fentry netdev"].map(|hook| finding(hook, fentry)));
            Value::from(findings)
        };
        assert!(programs(&doctor("attaches to y"), true).is_ok());
        assert!(programs(&doctor("refused"), false).is_ok());
        assert!(programs(&doctor("attaches to y"), false).is_err());
        assert!(programs(&doctor("refused"), true).is_err());
        assert!(programs(&Value::from("no such command"), true).is_err());
    }
}
