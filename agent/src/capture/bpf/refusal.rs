//! Why the kernel does not take a program, in words.

use std::io;

use aya::programs::ProgramError;

/// A hook that could not be used, and why.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// The hook, such as `fentry prb_commit`.
    pub hook: String,
    /// What the kernel or its type information said.
    pub cause: String,
    /// The errno behind it, if a system call was refused.
    pub errno: Option<i32>,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.hook, self.cause)
    }
}

/// The cause in one line, and its errno. Of the verifier's log the sentence that it ends with
/// is told; the whole goes to the debug log.
pub(super) fn explain(error: &ProgramError) -> (String, Option<i32>) {
    if let ProgramError::LoadError { io_error, verifier_log } = error {
        tracing::debug!(log = %verifier_log, "The verifier's log of a refused program.");
        let log = verifier_log.to_string();
        let sentence =
            last_sentence(&log).map(|line| format!(" (verifier: {line})")).unwrap_or_default();
        let cause = format!("the kernel refused the program: {io_error}{sentence}");
        return (cause, io_error.raw_os_error());
    }
    (chain(error), errno(error))
}

/// The first errno among an error and its causes.
fn errno(error: &(dyn std::error::Error + 'static)) -> Option<i32> {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.into_iter().find_map(|cause| cause.downcast_ref::<io::Error>()?.raw_os_error())
}

/// An error with its causes, in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

/// What the verifier says at last, in front of its statistics.
fn last_sentence(log: &str) -> Option<&str> {
    let statistics = ["processed ", "stack depth ", "verification time "];
    let is_statistics = |line: &str| {
        // Of each function, since Linux 7.3.
        line.contains(" insns_self ") || statistics.iter().any(|start| line.starts_with(start))
    };
    log.lines().rev().map(str::trim).find(|line| !line.is_empty() && !is_statistics(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verifiers_sentence_stands_before_its_statistics() {
        let log = "5: (85) call bpf_probe_read_kernel#113\n\
                   program of this type cannot use helper bpf_probe_read_kernel#113\n\
                   verification time 19 usec\nstack depth 16+0\n\
                   processed 6 insns (limit 1000000) max_states_per_insn 0\n\n";
        assert_eq!(
            last_sentence(log),
            Some("program of this type cannot use helper bpf_probe_read_kernel#113")
        );
        let newer = "The function vpanic arg1 type STRUCT is unsupported.\n\
                     subprog 0 (panic_fentry) main insns_self 0 insns_total 0 stack 0\n";
        assert_eq!(
            last_sentence(newer),
            Some("The function vpanic arg1 type STRUCT is unsupported.")
        );
        assert_eq!(last_sentence(""), None);
    }

    #[test]
    fn the_errno_is_found_among_the_causes() {
        let cause = io::Error::from_raw_os_error(libc::ENOENT);
        let error = ProgramError::from(aya::sys::SyscallError { call: "x", io_error: cause });
        let (text, errno) = explain(&error);
        assert_eq!(errno, Some(libc::ENOENT));
        assert!(text.contains("No such file"), "{text}");
    }
}
