//! What the agent does while nothing is printed.

use std::{thread::sleep, time::Duration};

use agent_tests::{agent::Agent, netns::Pair, process};

use super::{TARGET, figure::Table};

const SPAN: Duration = Duration::from_secs(5);
/// Others may print; then the span is taken again.
const TRIES: usize = 4;
const WAKE_UPS_MAX: f64 = 120.0;
const CPU_MAX_PERCENT: f64 = 1.0;

pub(crate) fn measure(pair: &Pair, table: &mut Table) {
    let agent = Agent::start(&pair.left, "capture = \"tracepoint\"", TARGET, 1);
    let mut told = String::new();
    let mut measured = (0.0, 0.0);
    for _ in 0..TRIES {
        sleep(Duration::from_secs(1));
        let seen = agent.status().capture.kmsg_read;
        // The question itself wakes the agent.
        sleep(Duration::from_millis(200));
        let (wakes, cpu_ns) =
            (process::voluntary_switches(agent.pid()), process::cpu_ns(agent.pid()));
        sleep(SPAN);
        let wakes = process::voluntary_switches(agent.pid()) - wakes;
        let cpu_ns = process::cpu_ns(agent.pid()) - cpu_ns;
        measured =
            (wakes as f64 / SPAN.as_secs_f64(), 100.0 * cpu_ns as f64 / SPAN.as_nanos() as f64);
        let records = agent.status().capture.kmsg_read - seen;
        told = if records == 0 {
            String::new()
        } else {
            format!(" (with {records} records by others)")
        };
        if records == 0 {
            break;
        }
    }
    let _ = agent.stop();
    let (wakes, cpu) = measured;
    table.judged(
        "idle: wake-ups a second",
        &format!("{wakes:.0}{told}"),
        &format!("<= {WAKE_UPS_MAX:.0}"),
        wakes <= WAKE_UPS_MAX,
    );
    table.judged(
        "idle: share of one CPU",
        &format!("{cpu:.2} %{told}"),
        &format!("<= {CPU_MAX_PERCENT:.0} %"),
        cpu <= CPU_MAX_PERCENT,
    );
}
