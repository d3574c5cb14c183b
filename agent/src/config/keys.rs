//! Every key that the configuration may have, once: the commented example, `config show`
//! and the lists of keys in reports are made from these definitions. What a value means is
//! in the modules that read it.

/// One key.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) name: &'static str,
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
    default: &'static str,
    help: &'static [&'static str],
) -> Key {
    Key { name, help, default: Some(default), example: None }
}

/// A key that has none.
const fn without_default(
    name: &'static str,
    example: &'static str,
    help: &'static [&'static str],
) -> Key {
    Key { name, help, default: None, example: Some(example) }
}

/// A table of its own, shown apart from the keys.
const fn table(name: &'static str) -> Key {
    Key { name, help: &[], default: None, example: None }
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
        "\"20ms\"",
        &[
            "In a panic each line waits in the CPU that prints it until it has left the host; so long at",
            "most without anything leaving, and ten times as long until the agent has noticed. \"0s\": it",
            "does not wait, and the end may not get out.",
        ],
    ),
    with_default("budget", "\"500ms\"", &["How long all lines of a panic may wait together."]),
];

/// `[agent]`.
pub(super) const AGENT: &[Key] = &[
    with_default(
        "control_socket",
        "\"/run/netconsole-agent/control.sock\"",
        &["Where `status` and the other commands reach the agent."],
    ),
    without_default(
        "control_group",
        "\"adm\"",
        &[
            "Group, by name or number, whose members may use the commands that change nothing:",
            "status, list, send, ping, filter explain. Without it only root may.",
        ],
    ),
    with_default(
        "capture",
        "\"auto\"",
        &[
            "Source of the records: auto takes the first that this host allows.",
            "auto | commit | tracepoint | kmsg",
        ],
    ),
    with_default(
        "replay",
        "\"resume\"",
        &[
            "What is sent of the records logged before the start: resume (all that no earlier run of",
            "this boot has sent), boot (all that the kernel still has, at every start), or none.",
        ],
    ),
    with_default(
        "runtime_dir",
        "\"/run/netconsole-agent\"",
        &[
            "Where the agent remembers how far each target has come; in memory, for this boot only.",
            "Without it: the folder of control_socket.",
        ],
    ),
    with_default(
        "state_dir",
        "\"/var/lib/netconsole-agent\"",
        &["Where it remembers what must outlive a reboot: which dumps were sent (`after_crash`)."],
    ),
    with_default(
        "store",
        "\"16MiB\"",
        &[
            "Memory that holds records for targets which cannot send at the moment. When it is",
            "full, the least severe fall first, the oldest of each level: debug, then info,",
            "notice, warning, and at last err and worse.",
        ],
    ),
    without_default(
        "metrics",
        "\"127.0.0.1:9774\"",
        &[
            "Serves /metrics (for Prometheus), /healthz and /readyz by plain HTTP: an address of this",
            "host alone, or \"unix:/run/netconsole-agent/metrics.sock\" for root and `control_group`.",
        ],
    ),
    with_default("ring", "\"8MiB\"", &["Memory between the kernel and the agent; a power of two."]),
];

/// `[target.NAME]`, and `[defaults]` without `remote`.
pub(super) const TARGET: &[Key] = &[
    without_default(
        REMOTE,
        "\"192.0.2.10:6666\"",
        &["Address or DNS name, and port of the receiver. IPv6: \"[2001:db8::10]:6666\"."],
    ),
    with_default("enabled", "true", &["Whether it sends from the start."]),
    with_default(
        "device",
        "\"auto\"",
        &["Device to send through: auto (the route decides), a name, or a MAC."],
    ),
    with_default("egress", "\"auto\"", &["Way out of the host: auto | xdp | packet | udp | pcap."]),
    with_default("queue", "0", &["Transmit queue for xdp."]),
    without_default("pcap", "\"/var/tmp/records.pcap\"", &["File that egress = \"pcap\" writes."]),
    with_default("format", "\"extended\"", &["extended | basic"]),
    with_default(
        "release",
        "false",
        &["Put the kernel release before each record (extended format)."],
    ),
    with_default(
        "max_level",
        "\"debug\"",
        &[
            "Least severe level that is sent:",
            "emerg, alert, crit, err, warning, notice, info, debug, or 0 to 7.",
        ],
    ),
    with_default(
        "facility",
        "\"all\"",
        &[
            "Facilities that are sent: all, or a list such as [\"kern\", \"daemon\", 16], of the names",
            "kern to local7 and of numbers to 255.",
        ],
    ),
    with_default(
        "rate",
        "\"off\"",
        &[
            "Most records in a time, such as \"100/s\" or \"10/5s\"; more is left out, and said.",
            "Text of an oops, BUG or panic is never left out.",
        ],
    ),
    with_default(
        "copies",
        "1",
        &[
            "How often each record of level err or worse is sent, half a second apart; receivers of the",
            "extended format drop what they have already. From 1 to 8.",
        ],
    ),
    without_default(
        "dump",
        "\"netoops\"",
        &[
            "Sends the end of the kernel log as netoops packets to the receiver's UDP port 2004: in a",
            "panic, after an oops, and when `netconsole-agent dump` asks for it.",
        ],
    ),
    with_default(
        "pace",
        "\"20000/s\"",
        &[
            "Most datagrams per second, with bursts of 256; more is held in the record store.",
            "\"off\" is no limit.",
        ],
    ),
    with_default(
        "keepalive",
        "\"off\"",
        &["How often it says that it is alive, from \"10s\" to \"7d\"."],
    ),
    with_default(
        "after_crash",
        "false",
        &[
            "Send it once, line by line, what earlier boots left in the host's persistent store",
            "(pstore, systemd-pstore) when they crashed.",
        ],
    ),
    with_default(
        "local",
        "\":6665\"",
        &["Source address and port; the route decides on the address."],
    ),
    with_default(
        "remote_mac",
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
    without_default("text", "\"martian source\"", &["The text contains this;"]),
    without_default("regex", "\"^usb [0-9-]+: new\"", &["or matches this regular expression."]),
    without_default("subsystem", "\"net\"", &["SUBSYSTEM of the record, a glob."]),
    without_default("device", "\"+usb:*\"", &["DEVICE of the record, a glob."]),
    without_default("task", "\"kworker/*\"", &["Name of the task that printed, a glob."]),
    without_default(
        "cgroup",
        "\"/system.slice/**\"",
        &["Path of its cgroup, a glob; * stops at a slash, ** does not."],
    ),
    without_default(
        "cpu",
        "\"0-3,8\"",
        &["CPUs that printed: a number, a list of them, or \"0-3,8\"."],
    ),
    without_default("action", "\"drop\"", &["What becomes of the record: send, drop;"]),
    without_default("rate", "\"10/5s\"", &["or send as long as the rate allows, else drop."]),
];

/// The definition of a target's key.
pub(super) fn target_key(name: &str) -> Option<&'static Key> {
    TARGET.iter().find(|key| key.name == name)
}
