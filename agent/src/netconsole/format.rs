//! How one target wants its records: the immutable settings of the encoder.
//!
//! Built by the control thread, read by the pump. It holds bytes that are ready
//! to be copied and does no validation beyond [`userdata`]; limits are those of
//! `drivers/net/netconsole.c` (`MAX_EXTRADATA_*`).

use super::decode::trim_line_end;
use super::sysdata::HostLines;

/// Longest userdata key in bytes (`MAX_EXTRADATA_NAME_LEN`).
pub const USERDATA_KEY_MAX_BYTES: usize = 53;
/// Longest userdata value in bytes (`MAX_EXTRADATA_VALUE_LEN` less the NUL).
pub const USERDATA_VALUE_MAX_BYTES: usize = 199;
/// Most userdata entries of one target (`MAX_USERDATA_ITEMS`).
pub const USERDATA_ITEMS_MAX: usize = 256;
/// Longest kernel release in bytes (`__NEW_UTS_LEN`, `include/uapi/linux/utsname.h`).
pub const RELEASE_MAX_BYTES: usize = 64;
/// Bounds within which the encoder keeps [`Format::record_limit_bytes`]: the
/// longest header fits, and the largest buffer the kernel ever used suffices.
pub const RECORD_LIMIT_BYTES: std::ops::RangeInclusive<usize> = 256..=8192;

/// The two wire formats of netconsole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FormatKind {
    /// Header, escaped text, dictionary, extra data; fragments are marked.
    Extended,
    /// Console text; cut without a mark.
    Basic,
}

/// A line of extra data that the agent adds by itself. The first four are the
/// kernel's (`enum sysdata_feature`, `drivers/net/netconsole.c`) in its order; the
/// others are ours and follow them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum SysdataKey {
    /// ` cpu=N`: the CPU that called printk.
    Cpu,
    /// ` taskname=NAME`: the task that called printk.
    Taskname,
    /// ` release=R`: the kernel release.
    Release,
    /// ` msgid=N`: the number that the caller of the encoder passes.
    Msgid,
    /// ` pid=N`: the thread id of the task that called printk.
    Pid,
    /// ` cgroup=PATH`: the cgroup of that task; its leaf name while the path is not known.
    Cgroup,
    /// ` unit=NAME`: the systemd unit or container of that cgroup.
    Unit,
    /// ` hostname=NAME`.
    Hostname,
    /// ` boot_id=UUID`.
    BootId,
    /// ` uptime=SECONDS`: time since boot when the record was printed, suspend included.
    Uptime,
    /// ` livepatch=NAME,…`: applied live patches.
    Livepatch,
    /// ` taint=FLAGS`: why the kernel is tainted.
    Taint,
    /// ` thp=ENABLED/DEFRAG`: transparent huge pages.
    Thp,
    /// ` sched_ext=STATE/SCHEDULER`.
    SchedExt,
    /// ` nic=DEVICE/QUEUE`: where the record left the host.
    Nic,
}

impl SysdataKey {
    /// All keys, in the order of their lines.
    pub const ALL: [Self; 15] = [
        Self::Cpu,
        Self::Taskname,
        Self::Release,
        Self::Msgid,
        Self::Pid,
        Self::Cgroup,
        Self::Unit,
        Self::Hostname,
        Self::BootId,
        Self::Uptime,
        Self::Livepatch,
        Self::Taint,
        Self::Thp,
        Self::SchedExt,
        Self::Nic,
    ];

    /// The name in the configuration and on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Taskname => "taskname",
            Self::Release => "release",
            Self::Msgid => "msgid",
            Self::Pid => "pid",
            Self::Cgroup => "cgroup",
            Self::Unit => "unit",
            Self::Hostname => "hostname",
            Self::BootId => "boot_id",
            Self::Uptime => "uptime",
            Self::Livepatch => "livepatch",
            Self::Taint => "taint",
            Self::Thp => "thp",
            Self::SchedExt => "sched_ext",
            Self::Nic => "nic",
        }
    }

    /// Most bytes of its value; longer ones are cut.
    #[must_use]
    pub const fn value_max_bytes(self) -> usize {
        match self {
            Self::Cpu | Self::Msgid | Self::Pid => 10,
            Self::Taskname => crate::record::TASK_MAX_BYTES,
            Self::Release | Self::Hostname => RELEASE_MAX_BYTES,
            Self::Cgroup | Self::Unit | Self::Livepatch => USERDATA_VALUE_MAX_BYTES,
            Self::BootId => 36,
            Self::Uptime => 20,
            Self::Taint => 32,
            Self::Thp | Self::SchedExt => 64,
            // An interface name, a slash and a number.
            Self::Nic => 26,
        }
    }

    /// Most bytes of its line ` key=value\n`.
    #[must_use]
    pub const fn line_max_bytes(self) -> usize {
        self.name().len() + self.value_max_bytes() + " =\n".len()
    }
}

/// Which lines of extra data the agent adds by itself: a set of [`SysdataKey`]s.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sysdata(u16);

impl Sysdata {
    /// Whether no line is wanted.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether the line is wanted.
    #[must_use]
    pub fn contains(self, key: SysdataKey) -> bool {
        self.0 & (1 << key as u16) != 0
    }

    /// The keys that are wanted, in the order of their lines.
    pub fn keys(self) -> impl Iterator<Item = SysdataKey> {
        SysdataKey::ALL.into_iter().filter(move |key| self.contains(*key))
    }

    /// Most bytes that all the lines need.
    #[must_use]
    pub fn max_bytes(self) -> usize {
        self.keys().map(SysdataKey::line_max_bytes).sum()
    }
}

impl FromIterator<SysdataKey> for Sysdata {
    fn from_iter<I: IntoIterator<Item = SysdataKey>>(keys: I) -> Self {
        Self(keys.into_iter().fold(0, |set, key| set | 1 << key as u16))
    }
}

/// What the lines of the basic format begin with, and when they are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BasicStyle {
    /// `<prio>` (kernel booted with `console_msg_format=syslog`).
    pub syslog_prefix: bool,
    /// `[seconds.micros]` (`printk.time`).
    pub time: bool,
    /// `[caller]` (`CONFIG_PRINTK_CALLER`).
    pub caller: bool,
    /// Size of the kernel's buffer for the formatted text, its NUL included:
    /// lines that do not fit are dropped.
    pub buffer_bytes: usize,
}

/// Settings of one target, as the encoder needs them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Format {
    /// Extended or basic.
    pub kind: FormatKind,
    /// Kernel release (`uname -r`); cut at [`RELEASE_MAX_BYTES`].
    pub release: Box<[u8]>,
    /// Put `release,` before the header. Extended format only.
    pub release_prefix: bool,
    /// Lines ` key=value\n`, ready to be appended; see [`userdata`]. Extended
    /// format only.
    pub userdata: Box<[u8]>,
    /// Lines that are made for each record. Extended format only.
    pub sysdata: Sysdata,
    /// What the lines of [`Format::sysdata`] say about the host. Extended format only.
    pub host: HostLines,
    /// Where the kernel cuts header, text and dictionary together
    /// (`PRINTK_MESSAGE_MAX`), in bytes; see [`record_limit_bytes`].
    pub record_limit_bytes: usize,
    /// Style of the basic format.
    pub basic: BasicStyle,
}

impl Format {
    /// Extended format without any addition, as a kernel of that release sends it.
    #[must_use]
    pub fn extended(release: &[u8]) -> Self {
        Self::new(FormatKind::Extended, release)
    }

    /// Basic format with time stamps, as a kernel of that release sends it.
    #[must_use]
    pub fn basic(release: &[u8]) -> Self {
        Self::new(FormatKind::Basic, release)
    }

    fn new(kind: FormatKind, release: &[u8]) -> Self {
        Self {
            kind,
            release: release.into(),
            release_prefix: false,
            userdata: Box::default(),
            sysdata: Sysdata::default(),
            host: HostLines::default(),
            record_limit_bytes: record_limit_bytes(release),
            basic: BasicStyle {
                syslog_prefix: false,
                time: true,
                caller: false,
                buffer_bytes: basic_buffer_bytes(release),
            },
        }
    }

    /// The release as far as it is sent.
    pub(super) fn release_sent(&self) -> &[u8] {
        &self.release[..self.release.len().min(RELEASE_MAX_BYTES)]
    }
}

/// Where a kernel of that release cuts a formatted extended record, in bytes:
/// `PRINTK_MESSAGE_MAX` (2048) from 6.3 on, `CONSOLE_EXT_LOG_MAX` (8192) before.
/// A release that does not begin with `major.minor` counts as new.
#[must_use]
pub fn record_limit_bytes(release: &[u8]) -> usize {
    if is_at_least_6_3(release) { 2048 } else { 8192 }
}

/// Size of the buffer for basic text in a kernel of that release, in bytes:
/// `PRINTK_MESSAGE_MAX` (2048) from 6.3 on, `CONSOLE_LOG_MAX` (1024) before.
#[must_use]
pub fn basic_buffer_bytes(release: &[u8]) -> usize {
    if is_at_least_6_3(release) { 2048 } else { 1024 }
}

fn is_at_least_6_3(release: &[u8]) -> bool {
    let number = |part: Option<&[u8]>| -> Option<u32> {
        let part = part?;
        let digits = part.iter().take_while(|b| b.is_ascii_digit()).count();
        std::str::from_utf8(&part[..digits]).ok()?.parse().ok()
    };
    let mut parts = release.split(|&b| b == b'.');
    match (number(parts.next()), number(parts.next())) {
        (Some(major), Some(minor)) => (major, minor) >= (6, 3),
        _ => true,
    }
}

/// Why userdata cannot be sent as netconsole would.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum UserdataError {
    /// The key is empty.
    #[error("userdata has an entry without a key: name it")]
    EmptyKey,
    /// The key is too long.
    #[error(
        "userdata key `{key}` has {len_bytes} bytes, and receivers take at most \
         {USERDATA_KEY_MAX_BYTES}: shorten it"
    )]
    KeyTooLong {
        /// The key.
        key: String,
        /// Its length in bytes.
        len_bytes: usize,
    },
    /// The value is too long.
    #[error(
        "the value of userdata key `{key}` has {len_bytes} bytes, and receivers take at most \
         {USERDATA_VALUE_MAX_BYTES}: shorten it"
    )]
    ValueTooLong {
        /// The key.
        key: String,
        /// Length of the value in bytes.
        len_bytes: usize,
    },
    /// A line end or NUL would break the lines of the message.
    #[error("userdata key `{key}` or its value has a line end or NUL inside: remove it")]
    Unsendable {
        /// The key.
        key: String,
    },
    /// Too many entries.
    #[error("userdata has more than {USERDATA_ITEMS_MAX} entries: remove some")]
    TooMany,
}

/// Formats userdata entries as the lines that follow a record. As in configfs,
/// one line end at the end of a value is dropped and an entry with an empty
/// value is left out.
///
/// # Errors
/// [`UserdataError`] if netconsole would refuse the entry, or if it holds a line
/// end or NUL.
pub fn userdata<'a>(
    entries: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Result<Box<[u8]>, UserdataError> {
    let mut lines = Vec::new();
    for (index, (key, value)) in entries.into_iter().enumerate() {
        let value = trim_line_end(value.as_bytes());
        if index >= USERDATA_ITEMS_MAX {
            return Err(UserdataError::TooMany);
        }
        if key.is_empty() {
            return Err(UserdataError::EmptyKey);
        }
        if key.len() > USERDATA_KEY_MAX_BYTES {
            return Err(UserdataError::KeyTooLong { key: key.to_owned(), len_bytes: key.len() });
        }
        if value.len() > USERDATA_VALUE_MAX_BYTES {
            return Err(UserdataError::ValueTooLong {
                key: key.to_owned(),
                len_bytes: value.len(),
            });
        }
        if key.bytes().chain(value.iter().copied()).any(|b| matches!(b, b'\n' | 0)) {
            return Err(UserdataError::Unsendable { key: key.to_owned() });
        }
        if !value.is_empty() {
            lines.push(b' ');
            lines.extend_from_slice(key.as_bytes());
            lines.push(b'=');
            lines.extend_from_slice(value);
            lines.push(b'\n');
        }
    }
    Ok(lines.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_follow_the_release() {
        for (release, limit, basic) in [
            ("6.1.0-56-amd64", 8192, 1024),
            ("5.15.0", 8192, 1024),
            ("6.2", 8192, 1024),
            ("6.3.0-rc1", 2048, 2048),
            ("6.12.95+deb12-amd64", 2048, 2048),
            ("7.2.12+deb13-amd64", 2048, 2048),
            ("mainline", 2048, 2048),
            ("", 2048, 2048),
        ] {
            assert_eq!(record_limit_bytes(release.as_bytes()), limit, "{release}");
            assert_eq!(basic_buffer_bytes(release.as_bytes()), basic, "{release}");
        }
    }

    #[test]
    fn userdata_lines_are_those_of_configfs() {
        let lines = userdata([("site", "fra1 rack=7\n"), ("none", ""), ("role", "db")]);
        assert_eq!(lines.as_deref(), Ok(b" site=fra1 rack=7\n role=db\n".as_slice()));
        assert!(userdata([("k", "v".repeat(199).as_str())]).is_ok());
    }

    #[test]
    fn userdata_that_netconsole_refuses_is_refused() {
        let long = "k".repeat(54);
        let value = "v".repeat(200);
        assert_eq!(userdata([("", "x")]), Err(UserdataError::EmptyKey));
        assert!(matches!(
            userdata([(long.as_str(), "x")]),
            Err(UserdataError::KeyTooLong { len_bytes: 54, .. })
        ));
        assert!(matches!(
            userdata([("k", value.as_str())]),
            Err(UserdataError::ValueTooLong { len_bytes: 200, .. })
        ));
        assert!(matches!(userdata([("k", "a\nb")]), Err(UserdataError::Unsendable { .. })));
        assert_eq!(userdata([("k", "v"); 256]).map(|l| l.len()), Ok(256 * 5));
        assert_eq!(userdata([("k", "v"); 257]), Err(UserdataError::TooMany));
    }
}
