//! What a configuration names and this host does not have. A device may come later and a name
//! server may be away, so all of it is a warning.

use std::{fs, path::Path, time::Duration};

use futures_util::future::join_all;

use super::{Config, Remote, diagnostic::Findings, keys::USERDATA, merge::Merged};
use crate::{extradata::template, names::Names};

/// How long the names may take, all together.
const NAMES_TIMEOUT: Duration = Duration::from_secs(5);

/// Notes what is not there.
pub(super) fn look(config: &Config, merged: &Merged<'_>, findings: &mut Findings) {
    if let (Some(group), Some((table, _))) = (&config.agent.control_group, &merged.agent)
        && let Some(value) = table.get("control_group")
        && !group_exists(group)
    {
        let message = format!("there is no group {group:?} in /etc/group");
        let help = format!("groupadd --system {group}");
        findings.warning(value.span(), message, Some(help));
    }
    let place = |target: &str, key: &str| {
        let target = merged.targets.iter().find(|merged| merged.name == target)?;
        target.table.get(key).map(toml::Spanned::span)
    };
    for target in &config.targets {
        let Some(device) = &target.device else { continue };
        if !device_exists(device)
            && let Some(span) = place(&target.name, "device")
        {
            let message = format!("this host has no device {device:?} at present");
            let help = "the target waits until it appears; `ip link` shows those there are";
            findings.warning(span, message, Some(help.to_owned()));
        }
    }
    for target in &config.targets {
        for (key, value) in &target.userdata {
            let Err(error) = template::expand(value) else { continue };
            let merged = merged.targets.iter().find(|merged| merged.name == target.name);
            let table = merged.and_then(|merged| merged.table.get(USERDATA)?.get_ref().as_table());
            if let Some(value) = table.and_then(|table| table.get(key.as_str())) {
                let help = "the key is left out of the records until a reload finds a value";
                findings.warning(value.span(), error.to_string(), Some(help.to_owned()));
            }
        }
    }
    let names: Vec<(&str, &str)> = config
        .targets
        .iter()
        .filter_map(|target| match &target.remote {
            Remote::Name { host, .. } => Some((target.name.as_str(), host.as_str())),
            Remote::Address(_) => None,
        })
        .collect();
    for (target, problem) in unresolved(&names) {
        if let Some(span) = place(target, "remote") {
            let help = "the agent asks again and again; look at `doctor`";
            findings.warning(span, problem, Some(help.to_owned()));
        }
    }
}

/// In `/etc/group` (group(5)); other sources of groups are not looked at. A number needs no name.
fn group_exists(group: &str) -> bool {
    group.parse::<u32>().is_ok()
        || fs::read_to_string("/etc/group")
            .is_ok_and(|text| text.lines().any(|line| line.split(':').next() == Some(group)))
}

/// By its name or its MAC.
fn device_exists(device: &str) -> bool {
    let devices = Path::new("/sys/class/net");
    if !device.contains(':') {
        return devices.join(device).exists();
    }
    let has_mac = |entry: fs::DirEntry| {
        fs::read_to_string(entry.path().join("address")).is_ok_and(|mac| mac.trim() == device)
    };
    fs::read_dir(devices).is_ok_and(|entries| entries.flatten().any(has_mac))
}

/// Names that give no address, with the reason, each beside its target.
fn unresolved<'a>(names: &[(&'a str, &str)]) -> Vec<(&'a str, String)> {
    if names.is_empty() {
        return Vec::new();
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let problem = format!("the name could not be looked up: {error}");
            return names.iter().map(|(target, _)| (*target, problem.clone())).collect();
        }
    };
    let resolver = Names::default();
    let answers = runtime.block_on(join_all(names.iter().map(async |(target, host)| {
        let problem = match tokio::time::timeout(NAMES_TIMEOUT, resolver.look_up(host)).await {
            Ok(Ok(answer)) if answer.addresses.is_empty() => format!("{host} has no address"),
            Ok(Ok(_)) => return None,
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("{host} was not found within {NAMES_TIMEOUT:?}"),
        };
        Some((*target, problem))
    })));
    answers.into_iter().flatten().collect()
}
