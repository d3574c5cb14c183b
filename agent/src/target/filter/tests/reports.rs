//! Kernel reports, as kernels print them.

use std::time::Duration;

use super::*;

const SECOND: u64 = 1_000_000_000;

/// Nothing that is no report passes this twice in a day.
fn one_a_day() -> Filter {
    let rate = Rate { count: 1, period: Duration::from_secs(86_400) };
    let filter = Filter::compile(FilterSpec { rate: Some(rate), ..spec(Vec::new()) }).unwrap();
    assert_eq!(filter.decide(&record(b"the one"), None, 0), Decision::Send);
    filter
}

fn decide(filter: &Filter, ts_ns: u64, text: &[u8]) -> bool {
    let record = Record { ts_ns, level: 4, ..record(text) };
    let explained = filter.explain(&record, None).decision;
    let decision = filter.decide(&record, None, 0);
    assert_eq!(decision, explained);
    decision == Decision::Send
}

/// From a panic by sysrq, Linux 7.2.
const PANIC: &str = "\
Kernel panic - not syncing: sysrq triggered crash
CPU: 0 UID: 0 PID: 130 Comm: sh Not tainted 7.2.12+deb13-amd64 #1 PREEMPT(lazy)  Debian 7.2.12-1~bpo13+1 
Hardware name: QEMU Standard PC (Q35 + ICH9, 2009), BIOS 1.16.2-debian-1.16.2-1 04/01/2014
Call Trace:
 <TASK>
 dump_stack_lvl+0x5d/0x80
 vpanic+0x249/0x440
 panic+0x6b/0x70
 sysrq_handle_crash+0x1a/0x20
 </TASK>
Kernel Offset: 0xbe00000 from 0xffffffff81000000 (relocation range: 0xffffffff80000000-0xffffffffbfffffff)
---[ end Kernel panic - not syncing: sysrq triggered crash ]---";

/// x86, before 6.10.
const OOPS: &str = "\
BUG: kernel NULL pointer dereference, address: 0000000000000000
#PF: supervisor write access in kernel mode
#PF: error_code(0x0002) - not-present page
PGD 0 P4D 0 
Oops: 0002 [#1] PREEMPT SMP NOPTI
CPU: 1 PID: 115 Comm: sh Not tainted 6.1.0-56-amd64 #1  Debian 6.1.192-2
RIP: 0010:sysrq_handle_crash+0x16/0x20
Call Trace:
 <TASK>
 </TASK>
Modules linked in: 9p netfs
CR2: 0000000000000000
---[ end trace 0000000000000000 ]---";

#[test]
fn whole_reports_pass_and_what_stands_around_them_does_not() {
    for (report, more_after) in [(PANIC, 0), (OOPS, 24)] {
        let filter = one_a_day();
        assert!(!decide(&filter, SECOND, b"sysrq: Trigger a crash"));
        for line in report.lines() {
            assert!(decide(&filter, SECOND, line.as_bytes()), "{line}");
        }
        for i in 0..more_after {
            assert!(decide(&filter, SECOND, b"RIP: 0010:sysrq_handle_crash+0x16/0x20"), "{i}");
        }
        assert!(!decide(&filter, SECOND, b"after it"));
        // The same as one record of several lines.
        assert!(decide(&filter, SECOND, report.as_bytes()));
        let lines_after = (0..100).take_while(|_| decide(&filter, SECOND, b"RIP")).count();
        assert_eq!(lines_after, more_after);
        // None of it used up the target's rate.
        let told = filter.take_notice(u64::MAX).unwrap();
        assert_eq!(told.suppressed, 3);
    }
}

#[test]
fn beginnings() {
    for line in [
        "------------[ cut here ]------------",
        "BUG: unable to handle page fault for address: ffffffffc0000000",
        "BUG: KASAN: slab-out-of-bounds in foo+0x12/0x34",
        "BUG: scheduling while atomic: swapper/0/0/0x00000002",
        "BUG: soft lockup - CPU#3 stuck for 22s! [bash:47]",
        "BUG: workqueue lockup - pool cpus=0 node=0 flags=0x0 nice=0 stuck for 34s!",
        "BUG kmalloc-64 (Not tainted): Poison overwritten",
        "kernel BUG at mm/slub.c:305!",
        "Kernel BUG [#1]",
        "Oops: general protection fault, probably for non-canonical address 0xdead: 0000 [#1] SMP",
        "Oops [#1]",
        "Oops[#1]:",
        "Kernel panic - not syncing: Fatal exception in interrupt",
        "Unable to handle kernel NULL pointer dereference at virtual address 0000000000000000",
        "Internal error: Oops: 0000000096000004 [#1] SMP",
        "Internal error: synchronous external abort: 0000000096000010 [#1] SMP",
        "Bad mode in Error handler detected on CPU0, code 0xbf000002 -- SError",
        "SError Interrupt on CPU4, code 0x00000000be000411 -- SError",
        "Insufficient stack space to handle exception!",
        "general protection fault, probably for non-canonical address 0xdead: 0000 [#1] PREEMPT SMP",
        "general protection fault: 0000 [#1] SMP",
        "invalid opcode: 0000 [#1] PREEMPT SMP NOPTI",
        "divide error: 0000 [#1] SMP",
        "stack segment: 0000 [#1] SMP",
        "double fault: 0000 [#1] SMP",
        "traps: PANIC: double fault, error_code: 0x0",
        "PANIC: double fault, error_code: 0x0",
        "watchdog: BUG: soft lockup - CPU#0 stuck for 26s! [kworker/0:1:12]",
        "watchdog: CPU3: Watchdog detected hard LOCKUP on cpu 3",
        "watchdog: Watchdog detected hard LOCKUP on cpu 0",
        "NMI watchdog: Watchdog detected hard LOCKUP on cpu 0",
        "NMI watchdog: BUG: soft lockup - CPU#1 stuck for 22s! [sh:1]",
        "rcu: INFO: rcu_preempt self-detected stall on CPU",
        "rcu: INFO: rcu_sched detected stalls on CPUs/tasks:",
        "rcu: INFO: rcu_preempt detected expedited stalls on CPUs/tasks: { 1-... } 21 jiffies",
        "INFO: rcu_sched self-detected stall on CPU",
        "INFO: task khungtaskd:47 blocked for more than 120 seconds.",
    ] {
        let filter = one_a_day();
        assert!(decide(&filter, SECOND, line.as_bytes()), "{line}");
        assert!(decide(&filter, SECOND, b"Call Trace:"), "{line}");
        // In the middle of a record, but never in that of a line.
        assert!(decide(&one_a_day(), SECOND, format!("first\n{line}\nlast").as_bytes()), "{line}");
        assert!(!decide(&one_a_day(), SECOND, format!("usb 1-1: {line}").as_bytes()), "{line}");
    }
    for line in [
        "",
        "\n\n",
        "BUG",
        "DEBUG: x",
        "Oops",
        "traps: a.out[47] general protection fault ip:7f00 sp:7ffc error:0",
        "traps: a.out[47] trap invalid opcode ip:7f00 sp:7ffc error:0",
        "watchdog: hpwdt: started",
        "NMI watchdog: Enabled. Permanently consumes one hw-PMU counter.",
        "INFO: task done",
        "rcu: INFO: nothing",
        "---[ end trace 0000000000000000 ]---",
        "---[ end Kernel panic - not syncing: x ]---",
    ] {
        assert!(!decide(&one_a_day(), SECOND, line.as_bytes()), "{line}");
    }
}

#[test]
fn user_space_begins_no_report() {
    let filter = one_a_day();
    let text = b"BUG: I say so";
    let user = Record { ts_ns: SECOND, facility: 1, ..record(text) };
    assert_eq!(filter.decide(&user, None, 0), Decision::Filter);
    // Nor is what it writes meanwhile a part of one.
    assert!(decide(&filter, SECOND, b"BUG: the kernel says so"));
    assert_eq!(filter.decide(&user, None, 0), Decision::Filter);
    assert!(decide(&filter, SECOND, b"Call Trace:"));
    // Who wrote an approximated record is not known.
    let approximated = Record { approximated: true, ..user };
    assert_eq!(one_a_day().decide(&approximated, None, 0), Decision::Send);
}

#[test]
fn a_pause_ends_a_report() {
    for (step_ns, wanted) in [
        (5 * SECOND as i64, true),
        (5 * SECOND as i64 + 1, false),
        (-5 * SECOND as i64, true),
        (-6 * SECOND as i64, false),
    ] {
        let filter = one_a_day();
        let begin = 100 * SECOND;
        assert!(decide(&filter, begin, b"BUG: x"));
        assert_eq!(
            decide(&filter, begin.saturating_add_signed(step_ns), b"text"),
            wanted,
            "{step_ns}"
        );
    }
}

#[test]
fn a_forged_beginning_lifts_the_rate_for_a_thousand_records() {
    let filter = one_a_day();
    assert!(decide(&filter, SECOND, b"BUG: forged"));
    let passed = (0..100_000u64).filter(|i| decide(&filter, SECOND + i * 1000, b"flood")).count();
    assert_eq!(passed, 999);
}

#[test]
fn forging_again_and_again_is_bounded_by_the_minute() {
    let filter = one_a_day();
    // 10 minutes, 1 record a millisecond, each one a beginning.
    let passed =
        (0..600_000u64).filter(|i| decide(&filter, SECOND + i * 1_000_000, b"BUG: forged")).count();
    assert_eq!(passed, 10 * 4_000);
}

#[test]
fn a_report_is_followed_through_records_that_are_left_out() {
    let spec = FilterSpec {
        max_level: 4,
        facilities: None,
        rules: vec![Rule { text: contains("BUG"), ..rule(Action::Drop) }],
        rate: Some(Rate { count: 1, period: Duration::from_secs(86_400) }),
    };
    let filter = Filter::compile(spec).unwrap();
    assert!(decide(&filter, SECOND, b"the one"));
    assert!(!decide(&filter, SECOND, b"BUG: x"), "a rule is a rule");
    assert!(decide(&filter, SECOND, b"Call Trace:"));
    let debug = Record { ts_ns: SECOND, level: 7, ..record(b"debug") };
    assert_eq!(filter.decide(&debug, None, 0), Decision::Filter);
    // Rates of rules hold for reports, too: only the target's does not.
    let rate = Rate { count: 1, period: Duration::from_secs(1) };
    let rated = super::filter(vec![rule(Action::Rate(rate))]);
    assert!(decide(&rated, SECOND, b"BUG: x"));
    assert!(!decide(&rated, SECOND, b"BUG: x"));
}
