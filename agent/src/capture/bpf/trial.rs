//! Tries every hook by itself, for `doctor`: each is loaded and attached, and removed again before
//! the next one. Which of them the agent would use is not decided here.

use super::{Probes, Refusal};

/// What a hook is for. Within one purpose the hooks are alternatives, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookPurpose {
    /// Whole records.
    Commit,
    /// The records' text.
    Tracepoint,
    /// Events of network devices.
    Netdev,
    /// The proof of a panic.
    Panic,
}

/// What came of one hook.
#[derive(Clone, Debug)]
pub struct HookTrial {
    /// What it is for.
    pub purpose: HookPurpose,
    /// `fentry`, `kprobe`, `tp_btf` or `raw_tp`.
    pub kind: &'static str,
    /// What it was attached to.
    pub at: &'static str,
    /// Why it cannot be used; `None` if it can.
    pub refusal: Option<Refusal>,
}

struct Hook {
    purpose: HookPurpose,
    kind: &'static str,
    at: &'static str,
    /// The programs, with the function or event of each. All are needed.
    programs: &'static [(&'static str, &'static str)],
}

const COMMIT: &str = "prb_commit, prb_final_commit";
const NETDEV: &str = "call_netdevice_notifiers_info";
const HOOKS: [Hook; 8] = [
    Hook {
        purpose: HookPurpose::Commit,
        kind: "fentry",
        at: COMMIT,
        programs: &[
            ("printk_commit_fentry", "prb_commit"),
            ("printk_final_fentry", "prb_final_commit"),
        ],
    },
    Hook {
        purpose: HookPurpose::Commit,
        kind: "kprobe",
        at: COMMIT,
        programs: &[
            ("printk_commit_kprobe", "prb_commit"),
            ("printk_final_kprobe", "prb_final_commit"),
        ],
    },
    Hook {
        purpose: HookPurpose::Tracepoint,
        kind: "tp_btf",
        at: "printk:console",
        programs: &[("printk_tp_btf", "console")],
    },
    Hook {
        purpose: HookPurpose::Tracepoint,
        kind: "raw_tp",
        at: "printk:console",
        programs: &[("printk_raw_tp", "console")],
    },
    Hook {
        purpose: HookPurpose::Netdev,
        kind: "fentry",
        at: NETDEV,
        programs: &[("netdev_fentry", NETDEV)],
    },
    Hook {
        purpose: HookPurpose::Netdev,
        kind: "kprobe",
        at: NETDEV,
        programs: &[("netdev_kprobe", NETDEV)],
    },
    Hook {
        purpose: HookPurpose::Panic,
        kind: "fentry",
        at: "vpanic",
        programs: &[("panic_fentry", "vpanic")],
    },
    Hook {
        purpose: HookPurpose::Panic,
        kind: "kprobe",
        at: "panic",
        programs: &[("panic_kprobe", "panic")],
    },
];

impl Probes {
    /// Loads and attaches each hook, and removes it again. A running agent is not disturbed: a
    /// function takes several programs.
    pub fn try_hooks(&mut self) -> Vec<HookTrial> {
        HOOKS.iter().map(|hook| self.try_hook(hook)).collect()
    }

    fn try_hook(&mut self, hook: &Hook) -> HookTrial {
        let unknown = match hook.purpose {
            HookPurpose::Commit => &self.commit_unknown,
            HookPurpose::Netdev => &self.netdev_unknown,
            HookPurpose::Tracepoint | HookPurpose::Panic => &None,
        };
        let refusal = match unknown {
            Some(cause) => Some(Refusal {
                hook: format!("{} {}", hook.kind, hook.at),
                cause: cause.clone(),
                errno: None,
            }),
            None => hook.programs.iter().find_map(|(name, at)| self.attach(name, at).err()),
        };
        for (name, _) in hook.programs {
            self.detach(name);
        }
        HookTrial { purpose: hook.purpose, kind: hook.kind, at: hook.at, refusal }
    }
}
