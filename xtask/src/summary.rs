//! What became of a test run: one row per step, and the count of tests.
//!
//! It understands two kinds of output: cargo's `test result:` lines, and a line
//! `SKIPPED: test: reason` that a test prints when it cannot run here (libtest
//! has no such outcome and counts it as passed; it shows what passed tests print
//! only with `--show-output`).

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::Result;

/// A count of tests by outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
}

impl std::ops::AddAssign for Count {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

/// Counts the tests in the output of `cargo test`.
#[derive(Debug, Default)]
pub(crate) struct CargoTest {
    count: Count,
    /// Skips told by the tests of the binary that runs now.
    told: u64,
}

impl CargoTest {
    /// Takes in one line.
    pub(crate) fn read_line(&mut self, line: &str) {
        if let Some(result) = line.trim_start().strip_prefix("test result: ") {
            self.count += self.result(result);
            self.told = 0;
        } else if line.starts_with("SKIPPED: ") {
            self.told += 1;
        }
    }

    /// What was counted so far.
    pub(crate) fn count(&self) -> Count {
        self.count
    }

    /// Reads `ok. 5 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; …`.
    fn result(&self, text: &str) -> Count {
        let mut count = Count::default();
        for part in text.split(['.', ';']) {
            let mut words = part.split_whitespace();
            let (Some(number), Some(outcome)) = (words.next(), words.next()) else { continue };
            let Ok(number) = number.parse::<u64>() else { continue };
            match outcome {
                "passed" => count.passed = number,
                "failed" => count.failed = number,
                "ignored" => count.skipped = number,
                _ => {}
            }
        }
        let told = self.told.min(count.passed);
        count.passed -= told;
        count.skipped += told;
        count
    }
}

/// The steps of a test run. A failed step does not keep the next from running.
#[derive(Default)]
pub(crate) struct Steps {
    rows: Vec<Row>,
}

struct Row {
    name: String,
    took: Duration,
    count: Count,
    error: Option<String>,
}

impl Steps {
    /// Runs `step`, which adds the tests it ran to the count it is given.
    pub(crate) fn run(&mut self, name: &str, step: impl FnOnce(&mut Count) -> Result<()>) {
        println!("\n== {name}");
        let start = Instant::now();
        let mut count = Count::default();
        let error = step(&mut count).err().map(|error| format!("{error:#}"));
        if let Some(error) = &error {
            eprintln!("{name}: {error}");
            // A step that failed as a whole (lint, compile error) counts as one.
            count.failed = count.failed.max(1);
        }
        self.rows.push(Row { name: name.to_owned(), took: start.elapsed(), count, error });
    }

    /// Prints the table and the closing line; an error if anything failed.
    pub(crate) fn finish(self) -> Result<()> {
        let width = self.rows.iter().map(|row| row.name.len()).max().unwrap_or(0);
        println!("\n{:width$}  {:>8}  result", "step", "time");
        let mut total = Count::default();
        for Row { name, took, count, error } in &self.rows {
            let result = if error.is_some() || count.failed > 0 { "FAILED" } else { "ok" };
            let seconds = format!("{:.1} s", took.as_secs_f64());
            let tests =
                if *count == Count::default() { String::new() } else { format!(" ({count})") };
            println!("{name:width$}  {seconds:>8}  {result}{tests}");
            total += *count;
        }
        println!("{total}");
        anyhow::ensure!(total.failed == 0, "the test run failed");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(output: &str) -> Count {
        let mut reader = CargoTest::default();
        output.lines().for_each(|line| reader.read_line(line));
        reader.count()
    }

    #[test]
    fn sums_up_the_results_of_all_binaries() {
        let counted = count(
            "running 3 tests\ntest a ... ok\n\
             test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 4 filtered out; finished in 0.01s\n\
             \n\
             test result: FAILED. 7 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.25s\n",
        );
        assert_eq!(counted, Count { passed: 9, failed: 3, skipped: 1 });
        assert_eq!(counted.to_string(), "9 passed, 3 failed, 1 skipped");
    }

    #[test]
    fn a_told_skip_is_not_a_pass() {
        let counted = count(
            "successes:\n\n---- tap stdout ----\nSKIPPED: tap: /dev/net/tun is missing\n\
             test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out\n\
             test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out\n",
        );
        assert_eq!(counted, Count { passed: 2, failed: 0, skipped: 1 });
    }

    #[test]
    fn a_failed_step_fails_the_run_and_lets_the_others_run() {
        let mut steps = Steps::default();
        let mut ran = false;
        steps.run("lint", |_| anyhow::bail!("warning"));
        steps.run("tests", |count| {
            ran = true;
            count.passed += 1;
            Ok(())
        });
        assert!(ran);
        assert!(steps.finish().is_err());
    }
}
