//! From TOML to checked settings.

use std::{ops::Range, path::PathBuf};

use bytesize::ByteSize;
use toml::{Spanned, de::DeTable, de::DeValue};

use super::{
    Agent, Config, DEFAULT_LOCAL_PORT, Target, Warnings, address,
    diagnostic::Findings,
    extradata, pace,
    remote::{self, Remote},
    table::Table,
};
use crate::{
    capture::{Choice, SourceKind},
    egress::EgressKind,
    netconsole::FormatKind,
};

/// Names of the levels, as in `dmesg --level`.
const LEVELS: [&str; 8] = ["emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"];
const NAME_MAX_BYTES: usize = 64;
/// Longest device name (`IFNAMSIZ` less the NUL, `include/uapi/linux/if.h`).
const DEVICE_MAX_BYTES: usize = 15;
/// Longest path of a socket (`sun_path` of `struct sockaddr_un` less the NUL).
const SOCKET_PATH_MAX_BYTES: usize = 107;

pub(super) fn config(text: &str) -> (Config, Findings) {
    let mut config =
        Config { agent: Agent::default(), targets: Vec::new(), warnings: Warnings::default() };
    let (root, errors) = DeTable::parse_recoverable(text);
    let mut findings = Findings::new(text, errors);
    let span = 0..text.len().min(1);
    let mut top = Table::new(root.get_ref(), "the file".to_owned(), span, &mut findings);
    let agent_table = top.table("agent");
    let target_table = top.table("target");
    top.finish();
    if let Some((table, span)) = agent_table {
        config.agent = agent(Table::new(table, "[agent]".to_owned(), span, &mut findings));
    }
    match target_table {
        Some((targets, span)) if targets.is_empty() => {
            let message = "[target] needs a name: [target.fleet]".to_owned();
            findings.problem(span, message, None);
        }
        Some((targets, _)) => config.targets = all_targets(targets, &mut findings),
        // A file with other problems may well have its target behind them.
        None if findings.is_empty() => {
            let help = "the smallest one is:\n[target.fleet]\nremote = \"192.0.2.10:6666\"";
            findings.missing(0..0, "the file has no target".to_owned(), Some(help.to_owned()));
        }
        None => {}
    }
    (config, findings)
}

fn all_targets<'t>(targets: &'t DeTable<'t>, findings: &mut Findings) -> Vec<Target> {
    let mut found: Vec<Target> = Vec::new();
    for (name, value) in targets {
        let label = format!("[target.{}]", name.get_ref());
        let Some(table) = value.get_ref().as_table() else {
            findings.problem(
                name.span(),
                format!("`{}` must be a table: {label}", name.get_ref()),
                Some("a target has a name: [target.fleet]".to_owned()),
            );
            continue;
        };
        let mut table = Table::new(table, label, name.span(), findings);
        check_name(name.get_ref(), &mut table);
        let Some(target) = target(name.get_ref(), &mut table) else {
            table.finish();
            continue;
        };
        if let Some(twin) = found.iter().find(|other| are_one_stream(other, &target)) {
            let message = format!("{} sends to the same receiver as {}", target.name, twin.name);
            let help = "netconsd tells senders apart by their address alone, and drops a sequence \
                        number that it has had";
            table.warning(name.span(), message, help);
        }
        table.finish();
        found.push(target);
    }
    found
}

/// Whether a receiver takes the records of both for those of one sender.
fn are_one_stream(one: &Target, other: &Target) -> bool {
    one.remote == other.remote
        && one.local_ip == other.local_ip
        && one.format == FormatKind::Extended
        && other.format == FormatKind::Extended
        && one.egress != Some(EgressKind::Pcap)
        && other.egress != Some(EgressKind::Pcap)
}

fn check_name(name: &str, table: &mut Table<'_, '_>) {
    let fits = (1..=NAME_MAX_BYTES).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
    if !fits {
        let help = format!("letters, digits, `_`, `.` and `-`, at most {NAME_MAX_BYTES}");
        table.problem(table.span.clone(), format!("{name:?} cannot be the name of a target"), help);
    }
}

fn agent(mut table: Table<'_, '_>) -> Agent {
    let mut agent = Agent::default();
    let help = format!("an absolute path of at most {SOCKET_PATH_MAX_BYTES} bytes");
    let path = table.parsed("control_socket", &help, |text| {
        path(text).filter(|path| path.is_absolute() && text.len() <= SOCKET_PATH_MAX_BYTES)
    });
    if let Some(path) = path {
        agent.control_socket = path;
    }
    let help = "auto, commit, tracepoint or kmsg";
    let choice = table.parsed("capture", help, |text| match text {
        "auto" => Some(Choice::Auto),
        "commit" => Some(Choice::Only(SourceKind::Commit)),
        "tracepoint" => Some(Choice::Only(SourceKind::Tracepoint)),
        "kmsg" => Some(Choice::Only(SourceKind::Kmsg)),
        _ => None,
    });
    if let Some(choice) = choice {
        agent.capture = choice;
    }
    let store = table.parsed("store", "a size from 1MiB to 1GiB, such as \"16MiB\"", |text| {
        size(text).filter(|bytes| (1 << 20..=1 << 30).contains(bytes))
    });
    if let Some(bytes) = store {
        agent.store_bytes = bytes as usize;
    }
    let help = "a power of two from 64KiB to 256MiB, such as \"8MiB\"";
    let ring = table.parsed("ring", help, |text| {
        size(text).filter(|bytes| (1 << 16..=1 << 28).contains(bytes) && bytes.is_power_of_two())
    });
    if let Some(bytes) = ring {
        agent.ring_bytes = bytes as u32;
    }
    if agent.store_bytes < 2 * agent.ring_bytes as usize {
        let message = "`store` must be at least twice as large as `ring`, or one full ring would \
                       push records out before they can be sent";
        table.problem(table.span.clone(), message, None);
    }
    table.finish();
    agent
}

fn size(text: &str) -> Option<u64> {
    text.parse::<ByteSize>().ok().map(|size| size.as_u64())
}

/// A path that the system takes.
fn path(text: &str) -> Option<PathBuf> {
    (!text.is_empty() && !text.contains('\0')).then(|| PathBuf::from(text))
}

fn target(name: &str, table: &mut Table<'_, '_>) -> Option<Target> {
    let help = "auto, xdp, packet, udp or pcap";
    let egress = table
        .parsed("egress", help, |text| match text {
            "auto" => Some(None),
            "xdp" => Some(Some(EgressKind::Xdp)),
            "packet" => Some(Some(EgressKind::Packet)),
            "udp" => Some(Some(EgressKind::Udp)),
            "pcap" => Some(Some(EgressKind::Pcap)),
            _ => None,
        })
        .flatten();
    let pcap = pcap(table, egress);
    let enabled = table.bool("enabled");
    let (remote, remote_span) = remote(table).unzip();
    let device = device(table);
    let address = remote.as_ref().and_then(Remote::address);
    if let (Some(address), Some(span)) = (address, remote_span)
        && device == Some(None)
        && egress != Some(EgressKind::Pcap)
        && address::needs_device(address)
    {
        let message = "`remote` is an address of one link, and nothing says which link";
        table.problem(span, message, "device = \"eth0\"".to_owned());
    }
    let queue = table.number("queue", 65535);
    if let (Some((_, span)), Some(kind)) = (&queue, egress)
        && kind != EgressKind::Xdp
    {
        let message = format!("`queue` changes nothing with egress = {:?}", kind.name());
        table.warning(span.clone(), message, "it is for egress = \"xdp\"");
    }
    let format = table
        .parsed("format", "extended or basic", |text| match text {
            "extended" => Some(FormatKind::Extended),
            "basic" => Some(FormatKind::Basic),
            _ => None,
        })
        .unwrap_or(FormatKind::Extended);
    let release = table.bool("release");
    if let (FormatKind::Basic, Some((true, span))) = (format, &release) {
        let message = "`release` needs the extended format, as in the kernel's netconsole";
        table.problem(span.clone(), message, None);
    }
    let max_level = max_level(table);
    let ((local_ip, local_port), local_span) = local(table);
    if let (Some(local), Some(address)) = (local_ip, address)
        && local.is_ipv4() != address.is_ipv4()
    {
        table.problem(local_span, "`local` and `remote` are of different IP versions", None);
    }
    let help = "six hexadecimal bytes, such as \"52:54:00:12:34:56\"";
    let remote_mac = table.parsed("remote_mac", help, address::mac);
    if remote_mac.is_some()
        && egress == Some(EgressKind::Udp)
        && let Some(value) = table.take("remote_mac")
    {
        let message = "`remote_mac` changes nothing with egress = \"udp\"";
        table.warning(value.span(), message, "the kernel resolves the next hop of a UDP socket");
    }
    let pace = pace::pace(table);
    let sysdata = extradata::sysdata(table, format);
    let userdata = extradata::userdata(table, format, sysdata);
    Some(Target {
        name: name.to_owned(),
        enabled: enabled.is_none_or(|(on, _)| on),
        remote: remote?,
        device: device.flatten(),
        egress,
        pcap,
        queue: queue.map_or(0, |(queue, _)| queue),
        format,
        release: release.is_some_and(|(release, _)| release),
        max_level,
        facilities: None,
        filter: Vec::new(),
        rate: None,
        keepalive: None,
        local_ip,
        local_port,
        remote_mac,
        pace,
        userdata,
        sysdata,
    })
}

fn pcap(table: &mut Table<'_, '_>, egress: Option<EgressKind>) -> Option<PathBuf> {
    let file = table.parsed("pcap", "the path of the file to write", path);
    match (table.take("pcap").map(Spanned::span), egress == Some(EgressKind::Pcap)) {
        (None, true) => {
            let help = "pcap = \"/var/tmp/records.pcap\"";
            table.missing("egress = \"pcap\" needs the file `pcap`", help);
        }
        (Some(span), false) => {
            table.problem(span, "`pcap` is only for egress = \"pcap\"", None);
        }
        _ => {}
    }
    file
}

fn remote(table: &mut Table<'_, '_>) -> Option<(Remote, Range<usize>)> {
    if table.take("remote").is_none() {
        table.missing("the target has no `remote`", "remote = \"192.0.2.10:6666\"");
        return None;
    }
    let (text, span) = table.string("remote")?;
    match remote::remote(text) {
        Ok(remote) => Some((remote, span)),
        Err(message) => {
            table.problem(span, message, remote::REMOTE_FORMS.to_owned());
            None
        }
    }
}

/// `None` if it cannot be told, `Some(None)` for `auto`.
fn device(table: &mut Table<'_, '_>) -> Option<Option<String>> {
    if table.take("device").is_none() {
        return Some(None);
    }
    let help =
        "auto, or the name (at most 15 bytes) or MAC (\"52:54:00:12:34:56\") of a network device";
    // `dev_valid_name`, net/core/dev.c.
    let is_device = |text: &str| {
        (1..=DEVICE_MAX_BYTES).contains(&text.len())
            && !matches!(text, "." | "..")
            && !text.chars().any(|c| c.is_control() || c.is_whitespace() || "/:".contains(c))
    };
    table.parsed("device", help, |text| match text {
        "auto" => Some(None),
        // A name has no colon.
        mac if mac.contains(':') => address::device_mac(mac).map(Some),
        name => is_device(name).then(|| Some(name.to_owned())),
    })
}

fn max_level(table: &mut Table<'_, '_>) -> u8 {
    const DEBUG: u8 = 7;
    if table.take("max_level").map(Spanned::get_ref).is_some_and(DeValue::is_integer) {
        return table.number("max_level", u32::from(DEBUG)).map_or(DEBUG, |(level, _)| level as u8);
    }
    let help = format!("0 to 7, or one of {}", LEVELS.join(", "));
    table
        .parsed("max_level", &help, |text| LEVELS.iter().position(|level| *level == text))
        .map_or(DEBUG, |level| level as u8)
}

type Local = (Option<std::net::IpAddr>, u16);

fn local(table: &mut Table<'_, '_>) -> (Local, Range<usize>) {
    let span = table.take("local").map_or(0..0, Spanned::span);
    let local = table.parsed("local", address::LOCAL_FORMS, address::local);
    (local.unwrap_or((None, DEFAULT_LOCAL_PORT)), span)
}
