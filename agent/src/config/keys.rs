//! Every key that the configuration may have, once: the commented example, `config show`,
//! the lists of keys in reports, the schema and the manual are made from these definitions.
//! What a value means is in the modules that read it.

use super::kind::{self, Kind};

/// One key.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) name: &'static str,
    /// What its value may be.
    pub(super) kind: Kind,
    /// What it does, in lines of the example.
    pub(super) help: &'static [&'static str],
    /// What counts when it is absent, as TOML; `None` if nothing that could be written does.
    pub(super) default: Option<&'static str>,
    /// A value for the example, as TOML, where there is no default.
    pub(super) example: Option<&'static str>,
}

/// A key that has a default.
const fn with_default(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    help: &'static [&'static str],
) -> Key {
    Key { name, kind, help, default: Some(default), example: None }
}

/// A key that has none.
const fn without_default(
    name: &'static str,
    kind: Kind,
    example: &'static str,
    help: &'static [&'static str],
) -> Key {
    Key { name, kind, help, default: None, example: Some(example) }
}

/// A table of its own, shown apart from the keys.
const fn table(name: &'static str) -> Key {
    Key { name, kind: Kind::Table, help: &[], default: None, example: None }
}

/// The tables of `agent.toml`.
pub(super) const MAIN: &[Key] =
    &[table("agent"), table(LAST_WORDS), table("defaults"), table("target")];

/// The table of what is done while the kernel panics.
pub(super) const LAST_WORDS: &str = "last_words";

/// `[last_words]`.
pub(super) const LAST_WORDS_KEYS: &[Key] = &[
    with_default(
        "hold",
        kind::HOLD,
        "\"20ms\"",
        &[
            "In a panic each line waits in the CPU that prints it until it has left the host; so long at",
            "most without anything leaving, and ten times as long until the agent has noticed. \"0s\": it",
            "does not wait, and the end may not get out.",
        ],
    ),
    with_default(
        "budget",
        kind::BUDGET,
        "\"500ms\"",
        &["How long all lines of a panic may wait together."],
    ),
];

/// `[agent]`.
pub(super) const AGENT: &[Key] = &[
    with_default(
        "control_socket",
        kind::SOCKET_PATH,
        "\"/run/netconsole-agent/control.sock\"",
        &["Where `status` and the other commands reach the agent."],
    ),
    without_default(
        "control_group",
        kind::GROUP,
        "\"adm\"",
        &[
            "Group, by name or number, whose members may use the commands that change nothing:",
            "status, list, send, ping, filter explain. Without it only root may.",
        ],
    ),
    with_default(
        "capture",
        Kind::Word(&["auto", "commit", "tracepoint", "kmsg"]),
        "\"auto\"",
        &[
            "Source of the records: auto takes the first that this host allows.",
            "auto | commit | tracepoint | kmsg",
        ],
    ),
    with_default(
        "replay",
        Kind::Word(&["resume", "boot", "none"]),
        "\"resume\"",
        &[
            "What is sent of the records logged before the start: resume (all that no earlier run of",
            "this boot has sent), boot (all that the kernel still has, at every start), or none.",
        ],
    ),
    with_default(
        "runtime_dir",
        kind::ABSOLUTE_PATH,
        "\"/run/netconsole-agent\"",
        &[
            "Where the agent remembers how far each target has come; in memory, for this boot only.",
            "Without it: the folder of control_socket.",
        ],
    ),
    with_default(
        "state_dir",
        kind::ABSOLUTE_PATH,
        "\"/var/lib/netconsole-agent\"",
        &["Where it remembers what must outlive a reboot: which dumps were sent (`after_crash`)."],
    ),
    with_default(
        "store",
        kind::STORE,
        "\"16MiB\"",
        &[
            "Memory that holds records for targets which cannot send at the moment. When it is",
            "full, the least severe fall first, the oldest of each level: debug, then info,",
            "notice, warning, and at last err and worse.",
        ],
    ),
    without_default(
        "metrics",
        kind::METRICS,
        "\"127.0.0.1:9774\"",
        &[
            "Serves /metrics (for Prometheus), /healthz and /readyz by plain HTTP: an address of this",
            "host alone, or \"unix:/run/netconsole-agent/metrics.sock\" for root and `control_group`.",
        ],
    ),
    with_default(
        "ring",
        kind::RING,
        "\"8MiB\"",
        &["Memory between the kernel and the agent; a power of two."],
    ),
];

/// `[target.NAME]`, and `[defaults]` without `remote`.
pub(super) const TARGET: &[Key] = &[
    without_default(
        REMOTE,
        kind::REMOTE,
        "\"192.0.2.10:6666\"",
        &["Address or DNS name, and port of the receiver. IPv6: \"[2001:db8::10]:6666\"."],
    ),
    with_default("enabled", Kind::Switch, "true", &["Whether it sends from the start."]),
    with_default(
        "device",
        kind::DEVICE,
        "\"auto\"",
        &["Device to send through: auto (the route decides), a name, or a MAC."],
    ),
    with_default(
        "egress",
        Kind::Word(&["auto", "xdp", "packet", "udp", "pcap"]),
        "\"auto\"",
        &["Way out of the host: auto | xdp | packet | udp | pcap."],
    ),
    with_default("queue", Kind::Number(0..=kind::QUEUE_MAX), "0", &["Transmit queue for xdp."]),
    without_default(
        "pcap",
        kind::FILE,
        "\"/var/lib/netconsole-agent/records.pcap\"",
        &["File that egress = \"pcap\" writes."],
    ),
    with_default(
        "format",
        Kind::Word(&["extended", "basic"]),
        "\"extended\"",
        &["extended | basic"],
    ),
    with_default(
        "release",
        Kind::Switch,
        "false",
        &["Put the kernel release before each record (extended format)."],
    ),
    with_default(
        "max_level",
        Kind::Either(&[Kind::Word(&kind::LEVELS), Kind::Number(0..=7)]),
        "\"debug\"",
        &[
            "Least severe level that is sent:",
            "emerg, alert, crit, err, warning, notice, info, debug, or 0 to 7.",
        ],
    ),
    with_default(
        "facility",
        kind::FACILITY,
        "\"all\"",
        &[
            "Facilities that are sent: all, or a list such as [\"kern\", \"daemon\", 16], of the names",
            "kern to local7 and of numbers to 255.",
        ],
    ),
    with_default(
        "rate",
        Kind::Either(&[Kind::Word(&["off"]), kind::RATE]),
        "\"off\"",
        &[
            "Most records in a time, such as \"100/s\" or \"10/5s\"; more is left out, and said.",
            "Text of an oops, BUG or panic is never left out.",
        ],
    ),
    with_default(
        "copies",
        Kind::Number(1..=kind::COPIES_MAX),
        "1",
        &[
            "How often each record of level err or worse is sent, half a second apart; receivers of the",
            "extended format drop what they have already. From 1 to 8.",
        ],
    ),
    without_default(
        "dump",
        Kind::Word(&["netoops"]),
        "\"netoops\"",
        &[
            "Sends the end of the kernel log as netoops packets to the receiver's UDP port 2004: in a",
            "panic, after an oops, and when `netconsole-agent dump` asks for it.",
        ],
    ),
    with_default(
        "pace",
        kind::PACE,
        "\"20000/s\"",
        &[
            "Most datagrams per second, with bursts of 256; more is held in the record store.",
            "\"off\" is no limit.",
        ],
    ),
    with_default(
        "keepalive",
        kind::KEEPALIVE,
        "\"off\"",
        &["How often it says that it is alive, from \"10s\" to \"7d\"."],
    ),
    with_default(
        "after_crash",
        Kind::Switch,
        "false",
        &[
            "Send it once, line by line, what earlier boots left in the host's persistent store",
            "(pstore, systemd-pstore) when they crashed.",
        ],
    ),
    with_default(
        "local",
        kind::LOCAL,
        "\":6665\"",
        &["Source address and port; the route decides on the address."],
    ),
    with_default(
        "remote_mac",
        kind::REMOTE_MAC,
        "\"auto\"",
        &["MAC of the next hop: auto (the neighbour table decides), or a MAC."],
    ),
    table(FILTER),
    table(USERDATA),
    table(SYSDATA),
];

/// The key that each target has for itself.
pub(super) const REMOTE: &str = "remote";
/// The rules.
pub(super) const FILTER: &str = "filter";
/// The operator's lines.
pub(super) const USERDATA: &str = "userdata";
/// The agent's lines.
pub(super) const SYSDATA: &str = "sysdata";

/// A rule of `[[target.NAME.filter]]`.
pub(super) const RULE: &[Key] = &[
    without_default("text", kind::CONDITION, "\"martian source\"", &["The text contains this;"]),
    without_default(
        "regex",
        kind::CONDITION,
        "\"^usb [0-9-]+: new\"",
        &["or matches this regular expression."],
    ),
    without_default("subsystem", kind::CONDITION, "\"net\"", &["SUBSYSTEM of the record, a glob."]),
    without_default("device", kind::CONDITION, "\"+usb:*\"", &["DEVICE of the record, a glob."]),
    without_default(
        "task",
        kind::CONDITION,
        "\"kworker/*\"",
        &["Name of the task that printed, a glob."],
    ),
    without_default(
        "cgroup",
        kind::CONDITION,
        "\"/system.slice/**\"",
        &["Path of its cgroup, a glob; * stops at a slash, ** does not."],
    ),
    without_default(
        "cpu",
        kind::CPUS,
        "\"0-3,8\"",
        &["CPUs that printed: a number, a list of them, or \"0-3,8\"."],
    ),
    without_default(
        "action",
        Kind::Word(&["send", "drop", "rate"]),
        "\"drop\"",
        &["What becomes of the record: send, drop;"],
    ),
    without_default(
        "rate",
        kind::RATE,
        "\"10/5s\"",
        &["or send as long as the rate allows, else drop."],
    ),
];

/// The definition of a target's key.
pub(super) fn target_key(name: &str) -> Option<&'static Key> {
    TARGET.iter().find(|key| key.name == name)
}
