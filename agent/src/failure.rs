//! What the agent's own failure looks like: a panic in any thread ends the process at once.
//!
//! A process that lives on without one of its threads would lose records in silence; one that
//! ends is started again by systemd (`Restart=on-failure` covers an abort). So nothing is
//! unwound: the release profile aborts, and so does this hook in every other build.

use std::{io::Write as _, panic::PanicHookInfo};

use crate::receive::render::printable;

/// From now on a panic says one line on standard error and ends the process by SIGABRT.
/// For `run` alone: it changes the whole process.
pub fn end_at_any_panic() {
    std::panic::set_hook(Box::new(|panic| {
        let line = describe(panic);
        // There is nobody left to tell if that fails; and one write is not torn apart.
        let _ = std::io::stderr().write_all(line.as_bytes());
        std::process::abort();
    }));
}

fn describe(panic: &PanicHookInfo<'_>) -> String {
    let thread = std::thread::current();
    let thread = thread.name().unwrap_or("unnamed");
    let place = panic.location().map_or_else(String::new, |place| format!(" at {place}"));
    let said = panic.payload_as_str().unwrap_or("it says nothing");
    format!(
        "netconsole-agent PANIC in the thread {thread}{place}: {}. This is a mistake in the agent, \
         please report it. The process ends now; systemd starts it again, and it goes on with the \
         records that it has not sent.\n",
        printable(said.as_bytes())
    )
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::process::ExitStatusExt as _,
        process::Command,
        time::{Duration, Instant},
    };

    use super::*;

    const CHILD: &str = "NETCONSOLE_AGENT_TEST_PANIC";
    const THIS: &str = "failure::tests::a_panic_in_any_thread_ends_the_process_at_once";

    /// Runs itself again as the process that fails.
    #[test]
    fn a_panic_in_any_thread_ends_the_process_at_once() {
        if std::env::var_os(CHILD).is_some() {
            let none = rustix::process::Rlimit { current: Some(0), maximum: Some(0) };
            // It is meant to abort: no core file.
            rustix::process::setrlimit(rustix::process::Resource::Core, none).unwrap();
            end_at_any_panic();
            let thread = std::thread::Builder::new().name("pump".to_owned());
            let _thread = thread.spawn(|| panic!("first line\nsecond \u{1b}[31mline")).unwrap();
            std::thread::sleep(Duration::from_secs(60));
            return;
        }
        let begin = Instant::now();
        let mut child = Command::new(std::env::current_exe().unwrap());
        let output = child.args([THIS, "--exact", "--nocapture"]).env(CHILD, "1").output().unwrap();
        assert!(begin.elapsed() < Duration::from_secs(30), "it hangs");
        assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{output:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        let lines: Vec<_> = said.lines().filter(|line| line.contains("PANIC")).collect();
        let [line] = lines[..] else { panic!("not one line:\n{said}") };
        for words in ["thread pump", "failure.rs:", "first line", "second", "systemd starts it"] {
            assert!(line.contains(words), "no {words}: {line}");
        }
        assert!(!said.contains('\u{1b}') && !said.contains("panicked at"), "{said}");
    }
}
