//! From TOML to checked settings.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    ops::Range,
    path::PathBuf,
};

use bytesize::ByteSize;
use toml::de::DeTable;

use super::{
    Agent, Config, DEFAULT_LOCAL_PORT, DEFAULT_REMOTE_PORT, Diagnostic, Target, table::Table,
};
use crate::{
    capture::{Choice, SourceKind},
    egress::EgressKind,
    netconsole::{FormatKind, Sysdata, format::userdata},
};

/// Names of the levels, as in `dmesg --level`.
const LEVELS: [&str; 8] = ["emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"];
/// Most bytes of text and extra data that netconsd puts together again
/// (`NCRX_LINE_MAX`, ncrx.h of netconsd).
const RECEIVER_MAX_BYTES: usize = 8192;
/// Most bytes of one record's body on kernels from 6.3 on (`PRINTK_MESSAGE_MAX`).
const BODY_MAX_BYTES: usize = 2048;
/// Most bytes that all sysdata lines need: cpu, taskname, release, msgid.
const SYSDATA_MAX_BYTES: usize = 160;
const NAME_MAX_BYTES: usize = 64;
/// Longest device name (`IFNAMSIZ` less the NUL).
const DEVICE_MAX_BYTES: usize = 15;

pub(super) fn config(text: &str, problems: &mut Vec<Diagnostic>) -> Config {
    let mut config = Config { agent: Agent::default(), targets: Vec::new() };
    let (root, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        problems.push(Diagnostic {
            span: error.span().unwrap_or(0..0),
            message: error.message().to_owned(),
            help: None,
        });
    }
    let span = 0..text.len().min(1);
    let mut top = Table::new(root.get_ref(), "the file".to_owned(), span, problems);
    let agent_table = top.table("agent");
    let target_table = top.table("target");
    top.finish();
    if let Some((table, span)) = agent_table {
        config.agent = agent(Table::new(table, "[agent]".to_owned(), span, problems));
    }
    let Some((targets, targets_span)) = target_table else {
        // A file with other problems may well have its target behind them.
        if problems.is_empty() {
            problems.push(Diagnostic {
                span: 0..0,
                message: "the file has no target".to_owned(),
                help: Some(
                    "the smallest one is:\n[target.fleet]\nremote = \"192.0.2.10:6666\"".to_owned(),
                ),
            });
        }
        return config;
    };
    if targets.is_empty() {
        let message = "[target] needs a name: [target.fleet]".to_owned();
        problems.push(Diagnostic { span: targets_span, message, help: None });
    }
    for (name, value) in targets {
        let label = format!("[target.{}]", name.get_ref());
        let Some(table) = value.get_ref().as_table() else {
            problems.push(Diagnostic {
                span: name.span(),
                message: format!("`{}` must be a table: {label}", name.get_ref()),
                help: Some("a target has a name: [target.fleet]".to_owned()),
            });
            continue;
        };
        let mut table = Table::new(table, label, name.span(), problems);
        check_name(name.get_ref(), &mut table);
        if let Some(target) = target(name.get_ref(), table) {
            config.targets.push(target);
        }
    }
    config
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
    if let Some((path, span)) = table.string("control_socket") {
        if path.starts_with('/') {
            agent.control_socket = PathBuf::from(path);
        } else {
            table.problem(span, "`control_socket` must be an absolute path", None);
        }
    }
    if let Some(choice) =
        table.parsed("capture", "auto, commit, tracepoint or kmsg", |text| match text {
            "auto" => Some(Choice::Auto),
            "commit" => Some(Choice::Only(SourceKind::Commit)),
            "tracepoint" => Some(Choice::Only(SourceKind::Tracepoint)),
            "kmsg" => Some(Choice::Only(SourceKind::Kmsg)),
            _ => None,
        })
    {
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

fn target(name: &str, mut table: Table<'_, '_>) -> Option<Target> {
    let remote = remote(&mut table);
    let device = device(&mut table);
    let egress = table
        .parsed("egress", "auto, xdp, packet, udp or pcap", |text| match text {
            "auto" => Some(None),
            "xdp" => Some(Some(EgressKind::Xdp)),
            "packet" => Some(Some(EgressKind::Packet)),
            "udp" => Some(Some(EgressKind::Udp)),
            "pcap" => Some(Some(EgressKind::Pcap)),
            _ => None,
        })
        .flatten();
    let pcap = table.string("pcap");
    match (&pcap, egress) {
        (None, Some(EgressKind::Pcap)) => {
            let help = "pcap = \"/var/tmp/records.pcap\"".to_owned();
            table.problem(table.span.clone(), "egress = \"pcap\" needs the file `pcap`", help);
        }
        (Some((_, span)), egress) if egress != Some(EgressKind::Pcap) => {
            let message = "`pcap` is only for egress = \"pcap\"";
            table.problem(span.clone(), message, None);
        }
        _ => {}
    }
    let queue = table.number("queue", 65535).map_or(0, |(queue, _)| queue);
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
    let max_level = max_level(&mut table);
    let (local_ip, local_port) = local(&mut table);
    if let (Some(local), Some(remote)) = (local_ip, remote)
        && local.is_ipv4() != remote.is_ipv4()
    {
        table.problem(
            table.span.clone(),
            "`local` and `remote` are of different IP versions",
            None,
        );
    }
    let help = "six hexadecimal bytes, such as \"52:54:00:12:34:56\"";
    let remote_mac = table.parsed("remote_mac", help, mac);
    let userdata = userdata_of(&mut table, format);
    let sysdata = sysdata(&mut table, format);
    table.finish();
    Some(Target {
        name: name.to_owned(),
        remote: remote?,
        device,
        egress,
        pcap: pcap.map(|(path, _)| PathBuf::from(path)),
        queue,
        format,
        release: release.is_some_and(|(release, _)| release),
        max_level,
        local_ip,
        local_port,
        remote_mac,
        userdata,
        sysdata,
    })
}

fn remote(table: &mut Table<'_, '_>) -> Option<SocketAddr> {
    if table.take("remote").is_none() {
        let help = "remote = \"192.0.2.10:6666\"".to_owned();
        table.problem(table.span.clone(), "the target has no `remote`", help);
        return None;
    }
    let help = "an address, with a port unless it is 6666: \"192.0.2.10\", \"192.0.2.10:6666\", \
                \"[2001:db8::10]:6666\" (names are not resolved yet)";
    let remote = table.parsed("remote", help, |text| {
        let bare = || text.parse::<IpAddr>().ok();
        let bracketed = || {
            let inner = text.strip_prefix('[')?.strip_suffix(']')?;
            inner.parse::<Ipv6Addr>().ok().map(IpAddr::V6)
        };
        text.parse::<SocketAddr>().ok().or_else(|| {
            bare().or_else(bracketed).map(|ip| SocketAddr::new(ip, DEFAULT_REMOTE_PORT))
        })
    })?;
    let nowhere = remote.ip().is_unspecified() || remote.port() == 0;
    if nowhere && let Some((_, span)) = table.string("remote") {
        table.problem(span, "nothing can be sent to this address and port", help.to_owned());
        return None;
    }
    Some(remote)
}

fn device(table: &mut Table<'_, '_>) -> Option<String> {
    let help = "auto, or the name of a network device";
    table
        .parsed("device", help, |text| {
            let fits = (1..=DEVICE_MAX_BYTES).contains(&text.len())
                && !text.bytes().any(|byte| byte == b'/' || byte.is_ascii_whitespace());
            fits.then(|| text.to_owned())
        })
        .filter(|device| device != "auto")
}

fn max_level(table: &mut Table<'_, '_>) -> u8 {
    const DEBUG: u8 = 7;
    if table.take("max_level").is_some_and(|value| value.get_ref().is_integer()) {
        return table.number("max_level", u32::from(DEBUG)).map_or(DEBUG, |(level, _)| level as u8);
    }
    let help = format!("0 to 7, or one of {}", LEVELS.join(", "));
    table
        .parsed("max_level", &help, |text| LEVELS.iter().position(|level| *level == text))
        .map_or(DEBUG, |level| level as u8)
}

fn local(table: &mut Table<'_, '_>) -> (Option<IpAddr>, u16) {
    let help = "an address, a port or both: \"192.0.2.1\", \":6665\", \"192.0.2.1:6665\"";
    table
        .parsed("local", help, |text| {
            let port_only = || text.strip_prefix(':')?.parse::<u16>().ok();
            let bare = || text.parse::<IpAddr>().ok();
            text.parse::<SocketAddr>()
                .map(|both| (Some(both.ip()), both.port()))
                .ok()
                .or_else(|| port_only().map(|port| (None, port)))
                .or_else(|| bare().map(|ip| (Some(ip), DEFAULT_LOCAL_PORT)))
                .filter(|(ip, port)| *port != 0 && !ip.is_some_and(|ip| ip.is_unspecified()))
        })
        .unwrap_or((None, DEFAULT_LOCAL_PORT))
}

fn mac(text: &str) -> Option<[u8; 6]> {
    let mut bytes = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut bytes {
        let part = parts.next().filter(|part| part.len() == 2)?;
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    parts.next().is_none().then_some(bytes)
}

fn userdata_of(table: &mut Table<'_, '_>, format: FormatKind) -> Vec<(String, String)> {
    let Some((entries, span)) = table.table("userdata") else { return Vec::new() };
    needs_extended(table, format, "userdata", span.clone());
    let mut pairs = Vec::new();
    for (key, value) in entries {
        let Some(text) = value.get_ref().as_str() else {
            table.problem(value.span(), "a userdata value must be a string in quotes", None);
            continue;
        };
        match userdata([(key.get_ref().as_ref(), text)]) {
            Ok(_) => pairs.push((key.get_ref().to_string(), text.to_owned())),
            Err(error) => table.problem(key.span(), error.to_string(), None),
        }
    }
    match userdata(pairs.iter().map(|(key, value)| (key.as_str(), value.as_str()))) {
        Ok(lines) if lines.len() + BODY_MAX_BYTES + SYSDATA_MAX_BYTES >= RECEIVER_MAX_BYTES => {
            let message = format!(
                "the userdata has {} bytes; with a text of up to {BODY_MAX_BYTES} bytes and \
                 {SYSDATA_MAX_BYTES} of sysdata that exceeds the {RECEIVER_MAX_BYTES} bytes that \
                 netconsd puts together",
                lines.len()
            );
            table.problem(span, message, None);
        }
        Ok(_) => {}
        Err(error) => table.problem(span, error.to_string(), None),
    }
    pairs
}

fn sysdata(table: &mut Table<'_, '_>, format: FormatKind) -> Sysdata {
    let Some((entries, span)) = table.table("sysdata") else { return Sysdata::default() };
    needs_extended(table, format, "sysdata", span.clone());
    let mut inner = table.inner(entries, "sysdata", span);
    let mut is_on = |key| inner.bool(key).is_some_and(|(on, _)| on);
    let sysdata = Sysdata {
        cpu: is_on("cpu"),
        taskname: is_on("taskname"),
        release: is_on("release"),
        msgid: is_on("msgid"),
    };
    inner.finish();
    sysdata
}

fn needs_extended(table: &mut Table<'_, '_>, format: FormatKind, what: &str, span: Range<usize>) {
    if format == FormatKind::Basic {
        let message = format!("`{what}` needs the extended format, as in the kernel's netconsole");
        table.problem(span, message, None);
    }
}
