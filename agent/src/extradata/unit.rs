//! The workload that a cgroup path stands for: a systemd unit, a container, or a unit
//! inside of a container.
//!
//! Read from the leaf upwards; the innermost wins, because that is what printed. By the names
//! that systemd (`src/basic/cgroup-util.c`), the kubelet (`pkg/kubelet/cm`), Docker, containerd,
//! CRI-O, Podman and LXC give their cgroups; nobody is asked. Ids of containers are cut to twelve
//! digits, as their tools show them.
//!
//! | in the path                                        | workload                               |
//! |----------------------------------------------------|----------------------------------------|
//! | `NAME.service`, `.scope`, `.socket`, `.mount`, `.swap` | as it is, also `getty@tty1.service`; escapes (`\x2d`) stay, as in `systemctl` |
//! | units of a user's manager                          | the unit; else `user@1000.service`      |
//! | `init.scope`                                       | only if nothing is around it: systemd itself |
//! | `docker-ID.scope`, `docker/ID`                     | `docker:0123456789ab`                   |
//! | `cri-containerd-ID.scope`, `SLICE:cri-containerd:ID` | `containerd:0123456789ab`             |
//! | `crio-ID.scope`, `crio-conmon-ID.scope`            | `crio:0123456789ab`, `crio-conmon:…`    |
//! | `libpod-ID.scope`, `libpod-ID`, `libpod-payload-ID`, `libpod-conmon-ID.scope` | `podman:0123456789ab`, `podman-conmon:…` |
//! | any other component of 64 hexadecimal digits       | `container:0123456789ab`                |
//! | `lxc.payload.NAME`, `lxc/NAME`                     | `lxc:NAME`                              |
//! | `lxc.monitor.NAME`, `lxc.monitor/NAME`             | `lxc-monitor:NAME`                      |
//! | `machine-NAME.scope`                               | `machine:NAME`, unescaped as in `machinectl` |
//! | `systemd-nspawn@NAME.service`                      | `machine:NAME`, the same                |
//! | `…-podUID.slice`, `podUID` below `kubepods`        | `pod:UID` before the container: `pod:UID/containerd:0123456789ab` |
//! | a unit inside of a container                       | both: `lxc:web/nginx.service`           |
//! | slices and what is none of these                   | what is around it, or nothing           |

/// Endings of the kinds of units that have processes of their own.
const UNIT_SUFFIXES: [&str; 5] = [".service", ".scope", ".socket", ".mount", ".swap"];
/// Beginnings of the names of containers' cgroups, and what they are called here.
const CONTAINER_PREFIXES: [(&str, &str); 7] = [
    ("docker-", "docker"),
    ("cri-containerd-", "containerd"),
    ("crio-conmon-", "crio-conmon"),
    ("crio-", "crio"),
    ("libpod-conmon-", "podman-conmon"),
    ("libpod-payload-", "podman"),
    ("libpod-", "podman"),
];
const ID_SHOWN_DIGITS: usize = 12;
const ID_DIGITS: usize = 64;

/// The workload of a cgroup path, if it has one; see the table above.
#[must_use]
pub fn unit_of(path: &str) -> Option<String> {
    let mut unit = None;
    let mut is_init = false;
    let mut above = path;
    while let Some((rest, part)) = above.rsplit_once('/') {
        above = rest;
        let parent = rest.rsplit('/').next().unwrap_or_default();
        if let Some(container) = container(parent, part) {
            let inner = unit.map_or_else(String::new, |unit| format!("/{unit}"));
            let pod = pod_of(above).or_else(|| pod(parent, part));
            let pod = pod.map_or_else(String::new, |uid| format!("pod:{uid}/"));
            return Some(format!("{pod}{container}{inner}"));
        }
        if let Some(uid) = pod(parent, part) {
            return Some(format!("pod:{uid}"));
        }
        if (unit.is_none() || is_init) && is_unit(part) {
            is_init = part == "init.scope";
            unit = Some(unescaped_name(part));
        }
    }
    unit.map(str::to_owned)
}

/// The container that the component is; `None` if it is none.
fn container(parent: &str, part: &str) -> Option<String> {
    let name = part.strip_suffix(".scope").unwrap_or(part);
    for (prefix, runtime) in CONTAINER_PREFIXES {
        if let Some(id) = name.strip_prefix(prefix).and_then(short_id) {
            return Some(format!("{runtime}:{id}"));
        }
    }
    // runc, told to use systemd's names without systemd.
    if let Some((_, id)) = part.split_once(":cri-containerd:")
        && let Some(id) = short_id(id)
    {
        return Some(format!("containerd:{id}"));
    }
    if part.len() == ID_DIGITS
        && let Some(id) = short_id(part)
    {
        let runtime = if parent == "docker" { "docker" } else { "container" };
        return Some(format!("{runtime}:{id}"));
    }
    let (kind, name) = if let Some(name) = part.strip_prefix("lxc.payload.") {
        ("lxc", name.to_owned())
    } else if let Some(name) = part.strip_prefix("lxc.monitor.") {
        ("lxc-monitor", name.to_owned())
    } else if parent == "lxc" {
        ("lxc", part.to_owned())
    } else if parent == "lxc.monitor" {
        ("lxc-monitor", part.to_owned())
    } else if let Some(name) = between(part, "machine-", ".scope") {
        ("machine", unescaped(name))
    } else {
        ("machine", unescaped(between(part, "systemd-nspawn@", ".service")?))
    };
    (!name.is_empty()).then(|| format!("{kind}:{name}"))
}

/// The uid of the pod around, wherever it is.
fn pod_of(path: &str) -> Option<String> {
    let mut above = path;
    while let Some((rest, part)) = above.rsplit_once('/') {
        above = rest;
        if let Some(uid) = pod(rest.rsplit('/').next().unwrap_or_default(), part) {
            return Some(uid);
        }
    }
    None
}

/// The uid of the pod that the component is. systemd's names have `_` for `-`.
fn pod(parent: &str, part: &str) -> Option<String> {
    // `…-podUID.slice:cri-containerd:ID` begins with the pod's slice.
    let name = part.split(':').next().unwrap_or_default();
    let uid = if let Some(slice) = name.strip_suffix(".slice")
        && let Some((kubepods, uid)) = slice.rsplit_once("-pod")
        && kubepods.contains("kubepods")
    {
        uid
    } else if matches!(parent, "kubepods" | "burstable" | "besteffort" | "guaranteed") {
        name.strip_prefix("pod")?
    } else {
        return None;
    };
    let is_uid = |b: u8| b.is_ascii_hexdigit() || matches!(b, b'-' | b'_');
    (uid.len() >= ID_SHOWN_DIGITS && uid.bytes().all(is_uid)).then(|| uid.replace('_', "-"))
}

fn short_id(id: &str) -> Option<&str> {
    let is_id = id.len() >= ID_SHOWN_DIGITS && id.bytes().all(|b| b.is_ascii_hexdigit());
    is_id.then(|| &id[..ID_SHOWN_DIGITS])
}

fn is_unit(part: &str) -> bool {
    UNIT_SUFFIXES.iter().any(|suffix| part.len() > suffix.len() && part.ends_with(suffix))
}

/// systemd puts `_` before a name that could be one of the kernel's files (`cg_escape`).
fn unescaped_name(part: &str) -> &str {
    part.strip_prefix('_').unwrap_or(part)
}

fn between<'a>(part: &'a str, prefix: &str, suffix: &str) -> Option<&'a str> {
    part.strip_prefix(prefix)?.strip_suffix(suffix)
}

/// `\x2d` and its like as the characters they stand for (`unit_name_unescape`).
fn unescaped(name: &str) -> String {
    let mut whole = String::with_capacity(name.len());
    let mut rest = name;
    while let Some((before, escape)) = rest.split_once("\\x") {
        whole.push_str(before);
        let code = escape.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        rest = match code {
            Some(code) if code.is_ascii_graphic() => {
                whole.push(char::from(code));
                &escape[2..]
            }
            _ => {
                whole.push_str("\\x");
                escape
            }
        };
    }
    whole.push_str(rest);
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const UID: &str = "1b2c3d4e-5f60-4718-9a2b-3c4d5e6f7081";
    const UID_: &str = "1b2c3d4e_5f60_4718_9a2b_3c4d5e6f7081";

    fn unit(path: &str) -> Option<String> {
        let path = path.replace("<ID>", ID).replace("<UID>", UID).replace("<UID_>", UID_);
        unit_of(&path).map(|unit| unit.replace(UID, "<UID>"))
    }

    #[test]
    fn units_of_the_system_and_of_users() {
        for (path, name) in [
            ("/system.slice/nginx.service", "nginx.service"),
            ("/system.slice/system-getty.slice/getty@tty1.service", "getty@tty1.service"),
            (
                r"/system.slice/system-systemd\x2dfsck.slice/systemd-fsck@dev-disk-by\x2duuid.service",
                r"systemd-fsck@dev-disk-by\x2duuid.service",
            ),
            ("/system.slice/dbus.socket", "dbus.socket"),
            ("/system.slice/data.mount", "data.mount"),
            ("/system.slice/dev-sda2.swap", "dev-sda2.swap"),
            ("/system.slice/__odd.service", "_odd.service"),
            ("/system.slice/_cpu.service", "cpu.service"),
            ("/system.slice/systemd-udevd.service/udev", "systemd-udevd.service"),
            ("/user.slice/user-1000.slice/session-3.scope", "session-3.scope"),
            (
                "/user.slice/user-1000.slice/user@1000.service/app.slice/app-firefox-1234.scope",
                "app-firefox-1234.scope",
            ),
            (
                r"/user.slice/user-1000.slice/user@1000.service/app.slice/app-gnome-firefox\x2desr-9.scope",
                r"app-gnome-firefox\x2desr-9.scope",
            ),
            (
                "/user.slice/user-1000.slice/user@1000.service/session.slice/pipewire.service",
                "pipewire.service",
            ),
            ("/user.slice/user-1000.slice/user@1000.service/init.scope", "user@1000.service"),
            ("/user.slice/user-1000.slice/user@1000.service/app.slice", "user@1000.service"),
            ("/init.scope", "init.scope"),
            ("/system.slice/run-u12.scope", "run-u12.scope"),
            ("/nomad.slice/share.slice/6a.web.scope", "6a.web.scope"),
            ("/system.slice/docker.service", "docker.service"),
            ("/system.slice/docker-proxy.scope", "docker-proxy.scope"),
        ] {
            assert_eq!(unit(path).as_deref(), Some(name), "{path}");
        }
    }

    #[test]
    fn containers_and_machines() {
        for (path, name) in [
            ("/system.slice/docker-<ID>.scope", "docker:0123456789ab"),
            ("/docker/<ID>", "docker:0123456789ab"),
            ("/docker/<ID>/docker/<ID>", "docker:0123456789ab"),
            (
                "/user.slice/user-1000.slice/user@1000.service/user.slice/docker-<ID>.scope",
                "docker:0123456789ab",
            ),
            ("/ecs/0f1e2d3c/<ID>", "container:0123456789ab"),
            ("/machine.slice/libpod-<ID>.scope/container", "podman:0123456789ab"),
            ("/machine.slice/libpod-<ID>.scope", "podman:0123456789ab"),
            ("/machine.slice/libpod-conmon-<ID>.scope", "podman-conmon:0123456789ab"),
            ("/system.slice/web.service/libpod-payload-<ID>", "podman:0123456789ab"),
            ("/libpod_parent/libpod-<ID>", "podman:0123456789ab"),
            (
                "/system.slice/docker-<ID>.scope/system.slice/nginx.service",
                "docker:0123456789ab/nginx.service",
            ),
            ("/system.slice/docker-<ID>.scope/init.scope", "docker:0123456789ab/init.scope"),
            ("/lxc.payload.web", "lxc:web"),
            ("/lxc.payload.web/system.slice/nginx.service", "lxc:web/nginx.service"),
            ("/lxc.monitor.web", "lxc-monitor:web"),
            ("/lxc/101/ns/system.slice/ssh.service", "lxc:101/ssh.service"),
            ("/lxc.monitor/101", "lxc-monitor:101"),
            (r"/machine.slice/machine-qemu\x2d1\x2ddb.scope/libvirt/emulator", "machine:qemu-1-db"),
            (
                r"/machine.slice/systemd-nspawn@web\x2d2.service/payload/system.slice/a.service",
                "machine:web-2/a.service",
            ),
            (r"/machine.slice/machine-\xzz\x0a.scope", r"machine:\xzz\x0a"),
        ] {
            assert_eq!(unit(path).as_deref(), Some(name), "{path}");
        }
    }

    #[test]
    fn pods() {
        for (path, name) in [
            (
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod<UID_>.slice/\
              cri-containerd-<ID>.scope",
                "pod:<UID>/containerd:0123456789ab",
            ),
            (
                "/kubepods.slice/kubepods-pod<UID_>.slice/crio-<ID>.scope",
                "pod:<UID>/crio:0123456789ab",
            ),
            (
                "/kubepods.slice/kubepods-pod<UID_>.slice/crio-<ID>.scope/container",
                "pod:<UID>/crio:0123456789ab",
            ),
            (
                "/kubepods.slice/kubepods-pod<UID_>.slice/crio-conmon-<ID>.scope",
                "pod:<UID>/crio-conmon:0123456789ab",
            ),
            (
                "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod<UID_>.slice/\
              docker-<ID>.scope",
                "pod:<UID>/docker:0123456789ab",
            ),
            ("/kubepods/burstable/pod<UID>/<ID>", "pod:<UID>/container:0123456789ab"),
            ("/kubepods/pod<UID>/<ID>", "pod:<UID>/container:0123456789ab"),
            (
                "/kubepods/besteffort/pod0123456789abcdef0123456789abcdef",
                "pod:0123456789abcdef0123456789abcdef",
            ),
            (
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod<UID_>.slice",
                "pod:<UID>",
            ),
            (
                "/system.slice/containerd.service/kubepods-burstable-pod<UID_>.slice:cri-containerd:<ID>",
                "pod:<UID>/containerd:0123456789ab",
            ),
            (
                "/system.slice/docker-<ID>.scope/kubelet.slice/kubelet-kubepods.slice/\
              kubelet-kubepods-pod<UID_>.slice/cri-containerd-<ID>.scope",
                "pod:<UID>/containerd:0123456789ab",
            ),
        ] {
            assert_eq!(unit(path).as_deref(), Some(name), "{path}");
        }
    }

    #[test]
    fn what_is_no_workload_has_no_name() {
        for path in [
            "",
            "/",
            "/system.slice",
            "/user.slice/user-1000.slice",
            "/lxc.payload.",
            "/.service",
            "/kubepods.slice/kubepods-burstable.slice",
            "/docker",
            "/a/b",
            "/kubepods/podx",
            "//",
            "/machine-.scope.d",
        ] {
            assert_eq!(unit(path), None, "{path}");
        }
    }
}
