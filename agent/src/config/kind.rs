//! What a value of the configuration may be, in words, as a pattern and in numbers. Reports, the
//! schema and the manual say it from here; the readers decide. A pattern takes all that the reader
//! takes and may take more, such as a time that is too long.

use std::ops::RangeInclusive;

use super::{
    address::LOCAL_FORMS,
    pace,
    remote::REMOTE_FORMS,
    values::{CPU_MAX, FACILITIES, KEEPALIVE_FORMS, RATE_FORMS},
};

/// What a value may be.
#[derive(Debug)]
pub(super) enum Kind {
    /// `true` or `false`.
    Switch,
    /// A whole number.
    Number(RangeInclusive<u32>),
    /// One of these words.
    Word(&'static [&'static str]),
    /// A string.
    Text {
        /// How it is written, for people.
        forms: &'static str,
        /// The same for programs (ECMA-262, as JSON Schema has it).
        pattern: &'static str,
    },
    /// An array with at least one element, each of one of these kinds.
    List(&'static [Kind]),
    /// Any of these.
    Either(&'static [Kind]),
    /// A table or several, whose keys are defined apart.
    Table,
}

impl Kind {
    /// In words, to go on behind "is".
    pub(super) fn in_words(&self) -> String {
        let any =
            |kinds: &[Kind]| kinds.iter().map(Self::in_words).collect::<Vec<_>>().join(", or ");
        match self {
            Self::Switch => "true or false".to_owned(),
            Self::Number(range) => format!("a number from {} to {}", range.start(), range.end()),
            Self::Word(words) => {
                words.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(", ")
            }
            Self::Text { forms, .. } => (*forms).to_owned(),
            Self::List(kinds) => format!("an array of {}", any(kinds)),
            Self::Either(kinds) => any(kinds),
            Self::Table => "a table".to_owned(),
        }
    }
}

/// Longest name of a target.
pub(super) const TARGET_NAME_MAX_BYTES: usize = 64;
/// Names of the levels, as in `dmesg --level`.
pub(super) const LEVELS: [&str; 8] =
    ["emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"];
/// Most copies of one record: all of them are within the time in which receivers know it again.
pub(super) const COPIES_MAX: u32 = 8;
/// Highest transmit queue: the kernel counts them in 16 bits (`skb->queue_mapping`).
pub(super) const QUEUE_MAX: u32 = 65535;
/// Longest name of a group (`GROUP_NAME_MAX_LENGTH` of shadow).
pub(super) const GROUP_MAX_BYTES: usize = 32;
/// Longest path of a socket (`sun_path` of `struct sockaddr_un` less the NUL).
pub(super) const SOCKET_PATH_MAX_BYTES: usize = 107;

pub(super) const HOLD_FORMS: &str = "a time from 0s to 1s, such as \"20ms\"";
pub(super) const BUDGET_FORMS: &str = "a time from 0s to 5s, such as \"500ms\"";
pub(super) const SOCKET_PATH_FORMS: &str = "an absolute path of at most 107 bytes";
pub(super) const GROUP_FORMS: &str = "the name or number of a group, of at most 32 bytes";
pub(super) const ABSOLUTE_PATH_FORMS: &str = "an absolute path";
pub(super) const FILE_FORMS: &str = "the path of the file to write";
pub(super) const STORE_FORMS: &str = "a size from 1MiB to 1GiB, such as \"16MiB\"";
pub(super) const RING_FORMS: &str = "a power of two from 64KiB to 256MiB, such as \"8MiB\"";
pub(super) const METRICS_FORMS: &str = "a loopback address and a port (\"127.0.0.1:9774\", \"[::1]:9774\"), or \"unix:\" and an \
     absolute path of at most 107 bytes";
pub(super) const DEVICE_FORMS: &str =
    "auto, or the name (at most 15 bytes) or MAC (\"52:54:00:12:34:56\") of a network device";
pub(super) const MAC_FORMS: &str = "auto, or six hexadecimal bytes, such as \"52:54:00:12:34:56\"";

/// A unit of time, as humantime reads it.
macro_rules! unit {
    () => {
        "(nanos|nsec|ns|usec|us|µs|millis|msec|ms|seconds?|secs?|s|minutes?|mins?|m|hours?|hrs?|h\
         |days?|d|weeks?|wks?|w|months?|M|years?|yrs?|y)"
    };
}
/// A time, as humantime reads it.
macro_rules! time {
    () => {
        concat!("(\\s*[0-9][0-9.\\s]*", unit!(), "\\s*)+")
    };
}
macro_rules! mac {
    () => {
        "([0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}"
    };
}
/// A size, as bytesize reads it.
const SIZE: &str = "^\\+?[0-9.]+\\s*([kKmMgGtTpPeE][iI]?[bB]?|[bB])?$";
const TIME: &str = concat!("^(0|", time!(), ")$");

pub(super) const HOLD: Kind = Kind::Text { forms: HOLD_FORMS, pattern: TIME };
pub(super) const BUDGET: Kind = Kind::Text { forms: BUDGET_FORMS, pattern: TIME };
pub(super) const SOCKET_PATH: Kind =
    Kind::Text { forms: SOCKET_PATH_FORMS, pattern: "^/[^\\u0000]{0,106}$" };
pub(super) const GROUP: Kind = Kind::Text { forms: GROUP_FORMS, pattern: "^[^\\s:,]{1,32}$" };
pub(super) const ABSOLUTE_PATH: Kind = Kind::Text { forms: ABSOLUTE_PATH_FORMS, pattern: "^/" };
pub(super) const FILE: Kind = Kind::Text { forms: FILE_FORMS, pattern: "^[^\\u0000]+$" };
pub(super) const STORE: Kind = Kind::Text { forms: STORE_FORMS, pattern: SIZE };
pub(super) const RING: Kind = Kind::Text { forms: RING_FORMS, pattern: SIZE };
pub(super) const METRICS: Kind = Kind::Text {
    forms: METRICS_FORMS,
    pattern: "^(unix:/[^\\u0000]{1,106}|127(\\.[0-9]{1,3}){3}:[0-9]+|\\[[0-9A-Fa-f:.%]+\\]:[0-9]+)$",
};
/// An address with or without a port, or a host name (underscores are not in one).
pub(super) const REMOTE: Kind = Kind::Text {
    forms: REMOTE_FORMS,
    pattern: "^(\\[[0-9A-Fa-f:.%]+\\](:[0-9]+)?|[0-9A-Fa-f.]*(:[0-9A-Fa-f.]*){2,}|[0-9A-Za-z.-]+(:[0-9]+)?)$",
};
pub(super) const LOCAL: Kind = Kind::Text {
    forms: LOCAL_FORMS,
    pattern: "^(:[0-9]+|[0-9.]+(:[0-9]+)?|\\[[0-9A-Fa-f:.%]+\\](:[0-9]+)?|[0-9A-Fa-f.]*(:[0-9A-Fa-f.]*){2,})$",
};
pub(super) const DEVICE: Kind =
    Kind::Text { forms: DEVICE_FORMS, pattern: concat!("^([^/:\\s]{1,15}|", mac!(), ")$") };
pub(super) const REMOTE_MAC: Kind =
    Kind::Text { forms: MAC_FORMS, pattern: concat!("^(auto|", mac!(), ")$") };
pub(super) const RATE: Kind = Kind::Text {
    forms: RATE_FORMS,
    pattern: concat!("^0*[1-9][0-9]{0,6}/(", unit!(), "\\s*)?(", time!(), ")?$"),
};
pub(super) const PACE: Kind =
    Kind::Text { forms: pace::FORMS, pattern: "^(off|0*([1-9][0-9]{0,6}|10000000)/s)$" };
pub(super) const KEEPALIVE: Kind =
    Kind::Text { forms: KEEPALIVE_FORMS, pattern: concat!("^(off|", time!(), ")$") };
const FACILITY_NAMES: [&str; FACILITIES.len()] = {
    let mut names = [""; FACILITIES.len()];
    let mut index = 0;
    while index < names.len() {
        names[index] = FACILITIES[index].0;
        index += 1;
    }
    names
};
pub(super) const FACILITY: Kind = Kind::Either(&[
    Kind::Word(&["all"]),
    Kind::List(&[Kind::Word(&FACILITY_NAMES), Kind::Number(0..=255)]),
]);
pub(super) const CONDITION: Kind =
    Kind::Text { forms: "a string that is not empty", pattern: "[\\s\\S]" };
pub(super) const CPUS: Kind = Kind::Either(&[
    Kind::Number(0..=CPU_MAX),
    Kind::List(&[Kind::Number(0..=CPU_MAX)]),
    Kind::Text { forms: "a list such as \"0-3,8\"", pattern: "^[0-9,\\s-]+$" },
]);
