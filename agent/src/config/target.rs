//! `[target.NAME]`: each key by itself ([`values()`]), and then what goes together ([`target()`]).

use std::{net::IpAddr, path::PathBuf, time::Duration};

use toml::{Spanned, de::DeValue};

use super::{
    DEFAULT_LOCAL_PORT, Target, address, extradata, filter,
    keys::{SYSDATA, USERDATA},
    kind::{COPIES_MAX, DEVICE_FORMS, FILE_FORMS, LEVELS, MAC_FORMS, QUEUE_MAX},
    pace,
    remote::{self, Remote},
    table::Table,
    values,
};
use crate::{
    egress::EgressKind,
    netconsole::{FormatKind, Sysdata},
    target::filter::spec::{Rate, Rule},
};

/// Longest device name (`IFNAMSIZ` less the NUL, `include/uapi/linux/if.h`).
const DEVICE_MAX_BYTES: usize = 15;

/// What the keys say, each by itself.
pub(super) struct Values {
    enabled: bool,
    remote: Option<Remote>,
    /// `None` if it cannot be told, `Some(None)` for `auto`.
    device: Option<Option<String>>,
    egress: Option<EgressKind>,
    pcap: Option<PathBuf>,
    queue: u32,
    format: FormatKind,
    release: bool,
    max_level: u8,
    facilities: Option<Vec<u8>>,
    filter: Vec<Rule>,
    rate: Option<Rate>,
    keepalive: Option<Duration>,
    after_crash: bool,
    local: (Option<IpAddr>, u16),
    remote_mac: Option<[u8; 6]>,
    pace: Option<u32>,
    copies: u8,
    netoops: bool,
    userdata: Vec<(String, String)>,
    sysdata: Sysdata,
}

/// Reads each key by itself.
pub(super) fn values(table: &mut Table<'_, '_>) -> Values {
    let help = "auto, xdp, packet, udp or pcap";
    let egress = table.parsed("egress", help, |text| match text {
        "auto" => Some(None),
        "xdp" => Some(Some(EgressKind::Xdp)),
        "packet" => Some(Some(EgressKind::Packet)),
        "udp" => Some(Some(EgressKind::Udp)),
        "pcap" => Some(Some(EgressKind::Pcap)),
        _ => None,
    });
    let format = table.parsed("format", "extended or basic", |text| match text {
        "extended" => Some(FormatKind::Extended),
        "basic" => Some(FormatKind::Basic),
        _ => None,
    });
    let remote_mac = table.parsed("remote_mac", MAC_FORMS, |text| match text {
        "auto" => Some(None),
        mac => address::mac(mac).map(Some),
    });
    let local = table.parsed("local", address::LOCAL_FORMS, address::local);
    let sysdata = extradata::sysdata(table);
    Values {
        enabled: table.bool("enabled").is_none_or(|(enabled, _)| enabled),
        remote: remote(table),
        device: device(table),
        egress: egress.flatten(),
        pcap: table.parsed("pcap", FILE_FORMS, path),
        queue: table.number("queue", QUEUE_MAX).map_or(0, |(queue, _)| queue),
        format: format.unwrap_or(FormatKind::Extended),
        release: table.bool("release").is_some_and(|(release, _)| release),
        max_level: max_level(table),
        facilities: values::facilities(table),
        filter: filter::filter(table),
        rate: values::target_rate(table),
        keepalive: values::keepalive(table),
        after_crash: table.bool("after_crash").is_some_and(|(after_crash, _)| after_crash),
        local: local.unwrap_or((None, DEFAULT_LOCAL_PORT)),
        remote_mac: remote_mac.flatten(),
        pace: pace::pace(table),
        copies: copies(table),
        netoops: table
            .parsed("dump", "netoops, or no such key for none", |text| {
                (text == "netoops").then_some(true)
            })
            .unwrap_or(false),
        userdata: extradata::userdata(table, sysdata),
        sysdata,
    }
}

/// Reads `copies`.
fn copies(table: &mut Table<'_, '_>) -> u8 {
    match table.number("copies", COPIES_MAX) {
        Some((0, span)) => {
            let help = "1 sends each record once; `enabled = false` sends nothing".to_owned();
            table.problem(span, format!("`copies` must be from 1 to {COPIES_MAX}"), help);
            1
        }
        Some((copies, _)) => u8::try_from(copies).unwrap_or(1),
        None => 1,
    }
}

/// Reads a target; `None` if it has no receiver.
pub(super) fn target(name: &str, table: &mut Table<'_, '_>) -> Option<Target> {
    let values = values(table);
    check_egress(&values, table);
    check_addresses(&values, table);
    check_format(&values, table);
    if table.take("remote").is_none() {
        table.missing("the target has no `remote`", "remote = \"192.0.2.10:6666\"");
    }
    Some(Target {
        name: name.to_owned(),
        enabled: values.enabled,
        remote: values.remote?,
        device: values.device.flatten(),
        egress: values.egress,
        pcap: values.pcap,
        queue: values.queue,
        format: values.format,
        release: values.release,
        max_level: values.max_level,
        facilities: values.facilities,
        filter: values.filter,
        rate: values.rate,
        keepalive: values.keepalive,
        after_crash: values.after_crash,
        local_ip: values.local.0,
        local_port: values.local.1,
        remote_mac: values.remote_mac,
        pace: values.pace,
        copies: values.copies,
        netoops: values.netoops,
        userdata: values.userdata,
        sysdata: values.sysdata,
        live: Vec::new(),
    })
}

fn check_egress(values: &Values, table: &mut Table<'_, '_>) {
    match (table.place("pcap"), values.egress == Some(EgressKind::Pcap)) {
        (None, true) => {
            let help = "pcap = \"/var/lib/netconsole-agent/records.pcap\"";
            table.missing("egress = \"pcap\" needs the file `pcap`", help);
        }
        (Some(span), false) => {
            table.problem(span, "`pcap` is only for egress = \"pcap\"", None);
        }
        _ => {}
    }
    if let (Some(span), Some(kind)) = (table.place("queue"), values.egress)
        && kind != EgressKind::Xdp
    {
        let message = format!("`queue` changes nothing with egress = {:?}", kind.name());
        table.warning(span, message, "it is for egress = \"xdp\"");
    }
    if values.remote_mac.is_some()
        && values.egress == Some(EgressKind::Udp)
        && let Some(span) = table.place("remote_mac")
    {
        let message = "`remote_mac` changes nothing with egress = \"udp\"";
        table.warning(span, message, "the kernel resolves the next hop of a UDP socket");
    }
}

fn check_addresses(values: &Values, table: &mut Table<'_, '_>) {
    let Some(address) = values.remote.as_ref().and_then(Remote::address) else { return };
    let Some(remote_span) = table.place("remote") else { return };
    if values.device == Some(None)
        && values.egress != Some(EgressKind::Pcap)
        && address::needs_device(address)
    {
        let message = "`remote` is an address of one link, and nothing says which link";
        table.problem(remote_span.clone(), message, "device = \"eth0\"".to_owned());
    }
    if let (Some(local), Some(local_span)) = (values.local.0, table.place("local"))
        && local.is_ipv4() != address.is_ipv4()
    {
        // One of them may be a default.
        let message = "`local` and `remote` are of different IP versions";
        table.problem_with(local_span, message, (remote_span, "`remote` is here"));
    }
}

fn check_format(values: &Values, table: &mut Table<'_, '_>) {
    if values.format == FormatKind::Basic {
        let release = table.place("release").filter(|_| values.release);
        for (what, span) in [
            ("release", release),
            (USERDATA, table.place(USERDATA)),
            (SYSDATA, table.place(SYSDATA)),
        ] {
            let Some(span) = span else { continue };
            let message =
                format!("`{what}` needs the extended format, as in the kernel's netconsole");
            match table.place("format") {
                Some(format) => table.problem_with(span, message, (format, "the format is here")),
                None => table.problem(span, message, None),
            }
        }
    }
    extradata::check_size(table, &values.userdata, values.sysdata);
}

/// A path that the system takes.
pub(super) fn path(text: &str) -> Option<PathBuf> {
    (!text.is_empty() && !text.contains('\0')).then(|| PathBuf::from(text))
}

fn remote(table: &mut Table<'_, '_>) -> Option<Remote> {
    let (text, span) = table.string("remote")?;
    match remote::remote(text) {
        Ok(remote) => Some(remote),
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
    // `dev_valid_name`, net/core/dev.c.
    let is_device = |text: &str| {
        (1..=DEVICE_MAX_BYTES).contains(&text.len())
            && !matches!(text, "." | "..")
            && !text.chars().any(|c| c.is_control() || c.is_whitespace() || "/:".contains(c))
    };
    table.parsed("device", DEVICE_FORMS, |text| match text {
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
