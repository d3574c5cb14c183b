//! What proves to the programs that the kernel panics. Text does not: everybody may write it.

use std::{
    fs::File,
    io::{self, BufRead},
};

use crate::capture::bpf::{PanicHook, ProbeError};

/// Whether lines of a panic are held, and by what proof.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HoldState {
    /// A program on the kernel's function tells.
    Hook(PanicHook),
    /// `panic_cpu` alone tells.
    PanicCpu {
        /// Why there is no hook.
        why: String,
    },
    /// They are not held: there is no proof.
    Off {
        /// Why.
        why: String,
    },
}

impl HoldState {
    /// From what came of attaching the hook; `panic_cpu` is not known yet.
    #[must_use]
    pub fn of_hook(hook: Result<PanicHook, ProbeError>) -> Self {
        match hook {
            Ok(hook) => Self::Hook(hook),
            Err(error) => Self::Off { why: error.to_string() },
        }
    }

    /// Takes the address of `panic_cpu`, or why there is none.
    #[must_use]
    pub fn with_panic_cpu(self, address: &Result<u64, String>) -> Self {
        match (self, address) {
            (Self::Off { why }, Ok(_)) => Self::PanicCpu { why },
            (Self::Off { why }, Err(also)) => Self::Off { why: format!("{why}; {also}") },
            (state, _) => state,
        }
    }

    /// Whether there is a proof.
    #[must_use]
    pub fn is_on(&self) -> bool {
        !matches!(self, Self::Off { .. })
    }

    /// The proof in a word, for `status`; `None` if there is none.
    #[must_use]
    pub fn proof(&self) -> Option<&'static str> {
        match self {
            Self::Hook(hook) => Some(hook.name()),
            Self::PanicCpu { .. } => Some("panic_cpu"),
            Self::Off { .. } => None,
        }
    }

    /// What was refused, if anything.
    #[must_use]
    pub fn why(&self) -> Option<&str> {
        match self {
            Self::Hook(_) => None,
            Self::PanicCpu { why } | Self::Off { why } => Some(why),
        }
    }
}

/// The kernel's symbols. The service's own file comes first: `ProtectKernelTunables=` puts an empty one
/// in the place of the other, and the unit shows it there.
const SYMBOLS: [&str; 2] = ["/dev/kallsyms", "/proc/kallsyms"];

/// Opens the kernel's symbols. Whether they have addresses is decided now: CAP_SYSLOG.
///
/// # Errors
/// Of `open(2)`.
pub fn open_symbols() -> io::Result<File> {
    let [of_unit, of_kernel] = SYMBOLS;
    File::open(of_unit).or_else(|_| File::open(of_kernel))
}

/// The address of the kernel's `panic_cpu` (`kernel/panic.c`) in `/proc/kallsyms`, which shows data
/// only with CONFIG_KALLSYMS_ALL, and addresses only with CAP_SYSLOG (`kptr_restrict`).
///
/// # Errors
/// In words, why it is not to be had.
pub fn find_panic_cpu(symbols: impl BufRead) -> Result<u64, String> {
    let (mut shown, mut with_addresses) = (false, false);
    for line in symbols.lines() {
        let line = line.map_err(|error: io::Error| format!("/proc/kallsyms: {error}"))?;
        shown = true;
        with_addresses |= line.bytes().next().is_some_and(|digit| digit != b'0');
        let Some(rest) = line.strip_suffix(" panic_cpu") else { continue };
        let address = rest.split(' ').next().and_then(|hex| u64::from_str_radix(hex, 16).ok());
        return match address {
            Some(0) => Err(HIDDEN.to_owned()),
            Some(address) => Ok(address),
            None => Err(format!("/proc/kallsyms: cannot read {line:?}")),
        };
    }
    let why = match (shown, with_addresses) {
        (false, _) => "/proc/kallsyms is empty: ProtectKernelTunables= of a unit hides it",
        (true, false) => HIDDEN,
        (true, true) => "/proc/kallsyms does not show panic_cpu (CONFIG_KALLSYMS_ALL)",
    };
    Err(why.to_owned())
}

const HIDDEN: &str =
    "/proc/kallsyms hides addresses (without CAP_SYSLOG, or by kernel.kptr_restrict = 2)";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_symbol_is_found_or_it_is_said_why_not() {
        let symbols = "ffffffff81000000 T _text\nffffffff82a3b4c0 D panic_cpu\n0 d x\tpanic_cpu\n";
        assert_eq!(find_panic_cpu(symbols.as_bytes()), Ok(0xffff_ffff_82a3_b4c0));
        let none = find_panic_cpu("ffffffff81000000 T not_panic_cpu\n".as_bytes());
        assert!(none.unwrap_err().contains("CONFIG_KALLSYMS_ALL"));
        let hidden = find_panic_cpu("0000000000000000 D panic_cpu\n".as_bytes());
        assert!(hidden.unwrap_err().contains("kptr_restrict"));
        let hidden = find_panic_cpu("0000000000000000 T _text\n".as_bytes());
        assert!(hidden.unwrap_err().contains("kptr_restrict"));
        let empty = find_panic_cpu("".as_bytes());
        assert!(empty.unwrap_err().contains("ProtectKernelTunables"));
        assert!(find_panic_cpu("zz D panic_cpu\n".as_bytes()).unwrap_err().contains("zz"));
        assert!(find_panic_cpu(&b"\xff\xfe\n"[..]).is_err());
    }

    #[test]
    fn one_proof_is_enough() {
        let off = HoldState::Off { why: "no kprobes".to_owned() };
        let found = off.clone().with_panic_cpu(&Ok(1));
        assert_eq!((found.proof(), found.why()), (Some("panic_cpu"), Some("no kprobes")));
        let still_off = off.with_panic_cpu(&Err("hidden".to_owned()));
        assert_eq!((still_off.is_on(), still_off.why()), (false, Some("no kprobes; hidden")));
        let hook = HoldState::Hook(PanicHook::Kprobe).with_panic_cpu(&Err("hidden".to_owned()));
        assert_eq!((hook.proof(), hook.why()), (Some("kprobe panic"), None));
    }
}
