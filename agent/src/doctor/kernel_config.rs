//! How the running kernel was built, where that can be read. It tells remedies apart; nothing depends
//! on it alone, since many hosts keep no copy.

use std::{collections::BTreeMap, fs::File, io::Read as _, path::Path};

/// Most bytes that a configuration may have; real ones have 300 KiB.
const MAX_BYTES: u64 = 4 << 20;

/// The options that are set, each with its value; empty if there is no copy.
#[derive(Clone, Debug, Default)]
pub(super) struct KernelConfig {
    options: BTreeMap<String, String>,
    /// `modules.builtin` of the running release; empty if there is none.
    built_in: String,
    /// `modules.dep` of the running release.
    installed: String,
}

impl KernelConfig {
    /// Reads `/proc/config.gz`, or what the distribution installed beside the kernel.
    pub(super) fn of_running_kernel() -> Self {
        let release = rustix::system::uname().release().to_string_lossy().into_owned();
        let mut text = String::new();
        // A copy that cannot be read is as good as none.
        let _ = File::open("/proc/config.gz").and_then(|file| {
            flate2::read::GzDecoder::new(file).take(MAX_BYTES).read_to_string(&mut text)
        });
        for path in [format!("/boot/config-{release}"), format!("/lib/modules/{release}/config")] {
            if text.is_empty() {
                text = std::fs::read_to_string(path).unwrap_or_default();
            }
        }
        let folder = Path::new("/lib/modules").join(release);
        let read = |file| std::fs::read_to_string(folder.join(file)).unwrap_or_default();
        let (built_in, installed) = (read("modules.builtin"), read("modules.dep"));
        Self { built_in, installed, ..Self::parse(&text) }
    }

    /// From the text of a `.config`.
    pub(super) fn parse(text: &str) -> Self {
        let options = text.lines().filter_map(|line| {
            let (name, value) = line.strip_prefix("CONFIG_")?.split_once('=')?;
            Some((name.to_owned(), value.to_owned()))
        });
        Self { options: options.collect(), ..Self::default() }
    }

    /// Whether an option is `y` or `m`; `None` if the configuration is not known.
    pub(super) fn has(&self, option: &str) -> Option<bool> {
        (!self.options.is_empty())
            .then(|| matches!(self.options.get(option).map(String::as_str), Some("y" | "m")))
    }

    /// Whether the module `name`, which `option` asks for, is part of the kernel itself; `None` if
    /// nothing tells.
    pub(super) fn is_built_in(&self, option: &str, name: &str) -> Option<bool> {
        if !self.options.is_empty() {
            return Some(self.options.get(option).is_some_and(|value| value == "y"));
        }
        (!self.built_in.is_empty()).then(|| lists(&self.built_in, name))
    }

    /// Whether a module of this name is built in or installed for the running kernel.
    pub(super) fn has_module(&self, name: &str) -> bool {
        lists(&self.built_in, name) || lists(&self.installed, name)
    }

    #[cfg(test)]
    pub(super) fn with_modules(built_in: &str, installed: &str) -> Self {
        let (built_in, installed) = (built_in.to_owned(), installed.to_owned());
        Self { options: BTreeMap::new(), built_in, installed }
    }
}

/// Whether a list of modules has one of this name.
fn lists(modules: &str, name: &str) -> bool {
    let file = format!("/{name}.ko");
    modules.lines().any(|line| {
        line.split([':', ' ']).next().is_some_and(|path| {
            path.find(&file).is_some_and(|at| {
                // Modules may be compressed.
                matches!(&path[at + file.len()..], "" | ".xz" | ".gz" | ".zst")
            })
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unset_is_known_only_where_there_is_a_configuration() {
        let config = KernelConfig::parse(
            "# CONFIG_KPROBES is not set\nCONFIG_BPF=y\nCONFIG_NETCONSOLE=m\nCONFIG_SHIFT=17\n",
        );
        assert_eq!(config.has("KPROBES"), Some(false));
        assert_eq!(config.has("BPF"), Some(true));
        assert_eq!(config.has("NETCONSOLE"), Some(true));
        assert_eq!(config.has("SHIFT"), Some(false));
        assert_eq!(KernelConfig::default().has("BPF"), None);
    }

    #[test]
    fn modules_are_found_by_their_whole_name() {
        let config = KernelConfig::with_modules(
            "",
            "kernel/drivers/net/netconsole.ko.xz: kernel/fs/configfs/configfs.ko.xz\n\
             kernel/net/xnf_tables.ko:\n",
        );
        assert!(config.has_module("netconsole"));
        assert!(!config.has_module("configfs"), "a dependency alone");
        assert!(!config.has_module("nf_tables"));
    }

    #[test]
    fn what_is_built_in_is_told_by_either_file_or_not_known() {
        let tells = |config: &KernelConfig| config.is_built_in("NF_TABLES", "nf_tables");
        assert_eq!(tells(&KernelConfig::default()), None);
        assert_eq!(tells(&KernelConfig::parse("CONFIG_NF_TABLES=y\n")), Some(true));
        assert_eq!(tells(&KernelConfig::parse("CONFIG_NF_TABLES=m\n")), Some(false));
        let module = "kernel/net/netfilter/nf_tables.ko";
        let other = "kernel/net/ipv4/udp_tunnel.ko\n";
        assert_eq!(tells(&KernelConfig::with_modules(module, "")), Some(true));
        assert_eq!(tells(&KernelConfig::with_modules(other, module)), Some(false));
        assert_eq!(tells(&KernelConfig::with_modules("", module)), None);
    }
}
