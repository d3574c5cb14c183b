//! Whether anything of a crash outlives the reboot: pstore, and a backend that keeps it.
//!
//! Sources: `fs/pstore/platform.c` (`pstore_register`, the parameters of the module) and
//! `fs/pstore/inode.c`.

use std::path::Path;

use super::{Finding, kernel_config::KernelConfig, read_trimmed};

/// What the finding is about.
const OBJECT: &str = "pstore";
/// `PSTOREFS_MAGIC` (`include/uapi/linux/magic.h`).
const MAGIC: u64 = 0x6165_676c;

/// What the kernel says of it.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    /// The kernel has pstore.
    there: bool,
    /// The backend that is registered.
    backend: Option<String>,
    /// How much of the log's end is kept, in bytes.
    kept_bytes: Option<u64>,
    /// Its file system is where the agent looks.
    mounted: bool,
    /// The backend of EFI can be loaded.
    has_efi: bool,
}

impl Facts {
    pub(super) fn gather(kernel_config: &KernelConfig) -> Self {
        let parameters = Path::new("/sys/module/pstore/parameters");
        let backend = read_trimmed(parameters.join("backend")).ok();
        let magic = rustix::fs::statfs("/sys/fs/pstore").map(|stat| stat.f_type as u64);
        let runs_on_efi = Path::new("/sys/firmware/efi").exists();
        Self {
            there: parameters.exists(),
            // A parameter that is no string yet is shown as the kernel shows none.
            backend: backend.filter(|name| !name.is_empty() && name != "(null)"),
            kept_bytes: read_trimmed(parameters.join("kmsg_bytes"))
                .ok()
                .and_then(|bytes| bytes.parse().ok()),
            mounted: magic == Ok(MAGIC),
            has_efi: runs_on_efi && kernel_config.has_module("efi-pstore"),
        }
    }
}

/// `wanted`: a target is to be sent what it keeps.
pub(super) fn judge(facts: &Facts, wanted: bool) -> Finding {
    let nothing = "nothing of a crash outlives the reboot";
    let Some(backend) = &facts.backend else {
        let (finding, remedy) = if !facts.there {
            (
                format!("the kernel has none: {nothing}"),
                "use a kernel with CONFIG_PSTORE=y and a backend (README, \"After a crash\")",
            )
        } else if facts.has_efi {
            (
                format!("no backend is registered: {nothing}"),
                "modprobe efi_pstore; if that changes nothing, boot with \
                 efi_pstore.pstore_disable=0",
            )
        } else {
            (
                format!("no backend is registered: {nothing}"),
                "set up a backend: ERST by the firmware, else ramoops or pstore_blk (README, \
                 \"After a crash\")",
            )
        };
        return Finding::warn(OBJECT, finding, remedy);
    };
    let kept = facts.kept_bytes.map(|bytes| {
        format!("the last {} KiB of the log outlive a crash (pstore.kmsg_bytes)", bytes >> 10)
    });
    let found =
        format!("backend {backend}; {}", kept.as_deref().unwrap_or("it keeps the log's end"));
    if !facts.mounted {
        return Finding::warn(
            OBJECT,
            format!("{found}; but it is not mounted, so the agent cannot read it"),
            "mount -t pstore pstore /sys/fs/pstore (systemd does it by itself)",
        );
    }
    let use_of_it = if wanted { "" } else { "; no target has after_crash = true" };
    Finding::ok(OBJECT, format!("{found}{use_of_it}"))
}

#[cfg(test)]
mod tests {
    use super::{super::Level, *};

    fn good() -> Facts {
        Facts {
            there: true,
            backend: Some("erst".to_owned()),
            kept_bytes: Some(10_240),
            mounted: true,
            has_efi: false,
        }
    }

    #[track_caller]
    fn expect(facts: &Facts, wanted: bool, level: Level, words: &[&str]) {
        let finding = judge(facts, wanted);
        assert_eq!(finding.level, level, "{finding:?}");
        let text = format!("{} -> {}", finding.finding, finding.remedy.unwrap_or_default());
        for word in words {
            assert!(text.contains(word), "{word:?} in {text}");
        }
    }

    #[test]
    fn a_backend_is_named() {
        expect(&good(), true, Level::Ok, &["backend erst", "the last 10 KiB", "kmsg_bytes"]);
        expect(&good(), false, Level::Ok, &["no target has after_crash = true"]);
        assert!(!judge(&good(), true).finding.contains("no target"));
    }

    #[test]
    fn what_is_missing_has_its_remedy() {
        let none = Facts { backend: None, ..good() };
        expect(&none, true, Level::Warn, &["no backend", "ramoops", "README"]);
        let efi = Facts { has_efi: true, ..none.clone() };
        expect(&efi, true, Level::Warn, &["modprobe efi_pstore", "pstore_disable=0"]);
        expect(&Facts { there: false, ..none }, true, Level::Warn, &["CONFIG_PSTORE"]);
        expect(&Facts { mounted: false, ..good() }, true, Level::Warn, &["mount -t pstore"]);
    }
}
