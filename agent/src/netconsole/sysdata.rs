//! The lines that the agent adds to a record by itself: what they are made of, and
//! how they are written.
//!
//! The first four are the kernel's (`append_runtime_sysdata`,
//! `drivers/net/netconsole.c`), and like the kernel they escape nothing. In the values of
//! the others a line end or NUL becomes `?`, so that no name makes a line of its
//! own. A value that is not known leaves its line out. Nothing here asks the host for anything.

use super::format::{Format, Sysdata, SysdataKey};
use super::out::Out;
use crate::record::{Record, TASK_MAX_BYTES};

/// Room for all lines.
pub(super) const MAX_BYTES: usize = {
    let mut sum = 0;
    let mut index = 0;
    while index < SysdataKey::ALL.len() {
        sum += SysdataKey::ALL[index].line_max_bytes();
        index += 1;
    }
    sum
};

const NS_PER_SECOND: u64 = 1_000_000_000;

/// What the sender knows of a record beyond the record and the target's settings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extras<'a> {
    /// Path of the cgroup; without it the leaf name of [`Record::context`] is sent.
    pub cgroup: Option<&'a [u8]>,
    /// systemd unit or container of that cgroup.
    pub unit: Option<&'a [u8]>,
    /// Device and queue that the record leaves by (`eth0/3`); empty if not known.
    pub nic: &'a [u8],
}

/// The lines about the host, ready to be copied; made on the control thread
/// whenever one of the values has changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostLines {
    before_uptime: Box<[u8]>,
    after_uptime: Box<[u8]>,
    suspended_ns: u64,
}

impl HostLines {
    /// Formats the lines of `wanted` that are about the host; `value` tells their
    /// values, `None` or an empty one leaves the line out. `suspended_ns` is
    /// `CLOCK_BOOTTIME` − `CLOCK_MONOTONIC` in nanoseconds, which the uptime is ahead of
    /// printk's clock; a record that was printed before the last suspend gets the
    /// suspended time all the same.
    #[must_use]
    pub fn new<'a>(
        wanted: Sysdata,
        suspended_ns: u64,
        value: impl Fn(SysdataKey) -> Option<&'a [u8]>,
    ) -> Self {
        let lines = |keys: &[SysdataKey]| {
            let mut buf = [0; MAX_BYTES];
            let mut out = Out::new(&mut buf);
            for &key in keys.iter().filter(|key| wanted.contains(**key)) {
                line(key, value(key).unwrap_or_default(), &mut out);
            }
            let len = out.len();
            Box::from(&buf[..len])
        };
        Self {
            before_uptime: lines(&[SysdataKey::Hostname, SysdataKey::BootId]),
            after_uptime: lines(&[
                SysdataKey::Livepatch,
                SysdataKey::Taint,
                SysdataKey::Thp,
                SysdataKey::SchedExt,
            ]),
            suspended_ns,
        }
    }

    /// The lines that do not depend on the record.
    pub fn fixed(&self) -> impl Iterator<Item = &[u8]> {
        [&*self.before_uptime, &*self.after_uptime].into_iter()
    }
}

/// Writes the lines of one record in their order.
pub(super) fn write(
    record: &Record<'_>,
    format: &Format,
    msgid: u32,
    extras: &Extras<'_>,
    out: &mut Out<'_>,
) {
    let wanted = |key| format.sysdata.contains(key);
    let context = record.context.as_ref();
    if let Some(context) = context {
        if wanted(SysdataKey::Cpu) {
            number(SysdataKey::Cpu, u64::from(context.cpu), out);
        }
        if wanted(SysdataKey::Taskname) {
            let task = &context.task[..context.task.len().min(TASK_MAX_BYTES)];
            kernel_line(SysdataKey::Taskname, task, out);
        }
    }
    if wanted(SysdataKey::Release) {
        kernel_line(SysdataKey::Release, format.release_sent(), out);
    }
    if wanted(SysdataKey::Msgid) {
        number(SysdataKey::Msgid, u64::from(msgid), out);
    }
    if let Some(context) = context
        && wanted(SysdataKey::Pid)
    {
        number(SysdataKey::Pid, u64::from(context.pid), out);
    }
    if wanted(SysdataKey::Cgroup) {
        let leaf = context.map_or(b"".as_slice(), |context| context.cgroup);
        line(SysdataKey::Cgroup, extras.cgroup.unwrap_or(leaf), out);
    }
    if wanted(SysdataKey::Unit) {
        line(SysdataKey::Unit, extras.unit.unwrap_or_default(), out);
    }
    out.raw(&format.host.before_uptime);
    if wanted(SysdataKey::Uptime) {
        let uptime_ns = record.ts_ns.saturating_add(format.host.suspended_ns);
        number(SysdataKey::Uptime, uptime_ns / NS_PER_SECOND, out);
    }
    out.raw(&format.host.after_uptime);
    if wanted(SysdataKey::Nic) {
        line(SysdataKey::Nic, extras.nic, out);
    }
}

fn begin(key: SysdataKey, out: &mut Out<'_>) {
    out.byte(b' ');
    out.raw(key.name().as_bytes());
    out.byte(b'=');
}

fn number(key: SysdataKey, value: u64, out: &mut Out<'_>) {
    begin(key, out);
    out.number(value);
    out.byte(b'\n');
}

/// As the kernel writes it, whatever the value holds.
fn kernel_line(key: SysdataKey, value: &[u8], out: &mut Out<'_>) {
    begin(key, out);
    out.raw(value);
    out.byte(b'\n');
}

fn line(key: SysdataKey, value: &[u8], out: &mut Out<'_>) {
    if !value.is_empty() {
        begin(key, out);
        out.one_line(&value[..value.len().min(key.value_max_bytes())]);
        out.byte(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Context;

    fn record(context: Option<Context<'_>>) -> Record<'_> {
        Record {
            seq: 1,
            ts_ns: 61_999_999_999,
            facility: 0,
            level: 6,
            cont: false,
            caller: None,
            text: b"",
            subsystem: b"",
            device: b"",
            context,
            approximated: false,
            backfilled: false,
        }
    }

    const CONTEXT: Context<'static> =
        Context { cpu: 3, pid: 4711, task: b"nginx", cgroup_id: 9, cgroup: b"nginx.service" };

    fn all(context: Option<Context<'_>>, extras: &Extras<'_>, host: HostLines) -> Vec<u8> {
        let mut format = Format::extended(b"7.2.12");
        format.sysdata = SysdataKey::ALL.into_iter().collect();
        format.host = host;
        let mut buf = vec![0; MAX_BYTES];
        let mut out = Out::new(&mut buf);
        write(&record(context), &format, 7, extras, &mut out);
        let len = out.len();
        buf.truncate(len);
        buf
    }

    fn host(value: &'static [u8]) -> HostLines {
        HostLines::new(SysdataKey::ALL.into_iter().collect(), 3_000_000_001, |_| Some(value))
    }

    #[test]
    fn every_line_stands_in_its_place() {
        let extras = Extras {
            cgroup: Some(b"/system.slice/nginx.service"),
            unit: Some(b"nginx.service"),
            nic: b"eth0/3",
        };
        let lines = all(Some(CONTEXT), &extras, host(b"v"));
        assert_eq!(
            String::from_utf8_lossy(&lines),
            " cpu=3\n taskname=nginx\n release=7.2.12\n msgid=7\n pid=4711\n \
             cgroup=/system.slice/nginx.service\n unit=nginx.service\n hostname=v\n boot_id=v\n \
             uptime=65\n livepatch=v\n taint=v\n thp=v\n sched_ext=v\n nic=eth0/3\n"
        );
    }

    #[test]
    fn what_is_not_known_leaves_its_line_out() {
        let lines = all(None, &Extras::default(), HostLines::default());
        assert_eq!(lines, b" release=7.2.12\n msgid=7\n uptime=61\n");
        let lines = all(Some(CONTEXT), &Extras::default(), HostLines::default());
        assert_eq!(
            String::from_utf8_lossy(&lines),
            " cpu=3\n taskname=nginx\n release=7.2.12\n msgid=7\n pid=4711\n \
             cgroup=nginx.service\n uptime=61\n"
        );
    }

    #[test]
    fn only_the_lines_that_are_wanted_are_about_the_host() {
        let wanted = [SysdataKey::BootId, SysdataKey::Thp].into_iter().collect();
        let host = HostLines::new(wanted, 0, |key| Some(key.name().as_bytes()));
        assert_eq!(&*host.before_uptime, b" boot_id=boot_id\n");
        assert_eq!(&*host.after_uptime, b" thp=thp\n");
    }

    #[test]
    fn no_value_makes_a_line_of_its_own_and_the_longest_fit() {
        let odd: &'static [u8] = b"\n\0=ab\n cpu=9\n".repeat(30).leak();
        let extras = Extras { cgroup: Some(odd), unit: Some(odd), nic: odd };
        let context = Context { cpu: u32::MAX, pid: u32::MAX, task: &[b't'; 99], ..CONTEXT };
        let lines = all(Some(context), &extras, host(odd));
        assert!(!lines.contains(&0));
        let keys: Vec<_> = lines
            .split_inclusive(|&b| b == b'\n')
            .map(|line| line[1..].split(|&b| b == b'=').next().unwrap_or_default())
            .collect();
        assert_eq!(keys, SysdataKey::ALL.map(|key| key.name().as_bytes()));
        let nic = [b" nic=".as_slice(), b"??=ab? cpu=9???=ab? cpu=9?", b"\n"].concat();
        assert!(lines.ends_with(&nic), "{}", lines.escape_ascii());
    }
}
