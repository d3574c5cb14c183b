//! The live configfs tree of netconsole, one directory a target.
//!
//! Rules: `drivers/net/netconsole.c` (`CONFIGFS_ATTR` and the `_show` functions) of Linux 6.1 to
//! 7.x; an attribute that the running kernel does not have is as good as switched off. userdata
//! comes in the order of the listing, which on recent kernels is that of creation, and so that
//! of the wire (`configfs_new_dirent`, `fs/configfs/dir.c`; older ones list the newest first).

use std::{
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use super::{
    Import, ImportError, address,
    kernel::{Device, KernelTarget},
};
use crate::netconsole::SysdataKey;

/// Where the tree is.
pub const CONFIGFS: &str = "/sys/kernel/config/netconsole";

/// Most bytes of an attribute (`SIMPLE_ATTR_SIZE`, `fs/configfs/file.c`).
const ATTRIBUTE_MAX_BYTES: u64 = 4096;
/// Attributes that are read, or say nothing about what is configured.
const KNOWN: [&str; 12] = [
    "enabled",
    "extended",
    "release",
    "dev_name",
    "local_port",
    "remote_port",
    "local_ip",
    "remote_ip",
    "local_mac",
    "remote_mac",
    "transmit_errors",
    "userdata",
];
/// Switches of sysdata, in the kernel's order.
const SWITCHES: [(&str, SysdataKey); 4] = [
    ("cpu_nr_enabled", SysdataKey::Cpu),
    ("taskname_enabled", SysdataKey::Taskname),
    ("release_enabled", SysdataKey::Release),
    ("msgid_enabled", SysdataKey::Msgid),
];

/// Files that tell more about the running kernel than its tree does.
#[derive(Clone, Debug)]
pub(super) struct Host {
    /// The module's parameters; the string itself is not among them, so far.
    pub(super) parameters: PathBuf,
    /// The kernel's command line.
    pub(super) command_line: PathBuf,
    /// `console_loglevel` and others.
    pub(super) printk: PathBuf,
}

impl Default for Host {
    fn default() -> Self {
        Self {
            parameters: PathBuf::from("/sys/module/netconsole/parameters"),
            command_line: PathBuf::from("/proc/cmdline"),
            printk: PathBuf::from("/proc/sys/kernel/printk"),
        }
    }
}

/// Reads the tree at `path`, normally [`CONFIGFS`].
///
/// # Errors
/// If it is not there, with what else this host was told; or if it cannot be listed.
pub fn configfs(path: &Path) -> Result<Import, ImportError> {
    read(path, &Host::default())
}

pub(super) fn read(path: &Path, host: &Host) -> Result<Import, ImportError> {
    let boot_string = host.string();
    let names = match list(path) {
        Ok(mut names) => {
            names.sort();
            names
        }
        Err(source) if source.kind() == io::ErrorKind::NotFound => {
            let found = boot_string.map_or_else(String::new, |string| {
                format!("; this kernel was started with netconsole={string}")
            });
            return Err(ImportError::Absent { path: path.to_owned(), found });
        }
        Err(source) => return Err(ImportError::Read { path: path.to_owned(), source }),
    };
    let mut import = Import::default();
    // The names that a target may get instead of its own must not be those of others.
    let mut numbers = (1..).filter(|number| !names.contains(&format!("target{number}")));
    for name in &names {
        let number = numbers.next().unwrap_or_default();
        match target(path, name, &mut import.notes) {
            Ok(target) => import.add(&target, number),
            Err(why) => import.notes.push(format!("{name}: is not imported: {why}")),
        }
    }
    let is_boot_target = |name: &String| name.starts_with("cmdline");
    if let Some(string) = boot_string.filter(|_| !names.iter().any(is_boot_target)) {
        import.notes.push(format!(
            "the kernel was also started with netconsole={string}, whose targets are not in the \
             tree: give this string to `import`"
        ));
    }
    if read_text(&host.parameters.join("oops_only")).is_ok_and(|text| text == "Y") {
        let note = "all targets: oops_only is set, which has no counterpart: everything is sent";
        import.notes.push(note.to_owned());
    }
    import.note_the_level(host.console_loglevel());
    Ok(import)
}

impl Host {
    /// The string that the module or the kernel was started with.
    fn string(&self) -> Option<String> {
        let parameter = read_text(&self.parameters.join("netconsole")).ok();
        parameter.filter(|text| !text.is_empty()).or_else(|| {
            // A value with blanks is in quotes, and has none that netconsole takes.
            let line = read_text(&self.command_line).ok()?;
            line.split_ascii_whitespace()
                .map(|word| word.trim_matches('"'))
                .filter_map(|word| {
                    let word = word.strip_prefix("netconsole.").unwrap_or(word);
                    word.strip_prefix("netconsole=")
                })
                .next_back()
                .map(|value| value.trim_matches('"').to_owned())
        })
    }

    fn console_loglevel(&self) -> Option<u8> {
        read_text(&self.printk).ok()?.split_ascii_whitespace().next()?.parse().ok()
    }
}

/// The names in a directory, in its own order; those that are not UTF-8 with replacements.
fn list(path: &Path) -> io::Result<Vec<String>> {
    fs::read_dir(path)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

/// An attribute without its line end.
fn read_text(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(ATTRIBUTE_MAX_BYTES).read_to_end(&mut bytes)?;
    let text = String::from_utf8(bytes).map_err(|_| io::Error::other("it is not UTF-8 text"))?;
    Ok(text.strip_suffix('\n').map_or_else(|| text.clone(), str::to_owned))
}

/// Reads one target; the error says why it is none.
fn target(tree: &Path, name: &str, notes: &mut Vec<String>) -> Result<KernelTarget, String> {
    let path = tree.join(name);
    let attribute = Attributes { path: &path };
    let mut target = KernelTarget {
        name: Some(name.to_owned()),
        enabled: attribute.switch("enabled")?,
        extended: attribute.switch("extended")?,
        release: attribute.switch("release")?,
        device: attribute
            .parsed("dev_name", |text| Some(Device::Name(text.to_owned())))?
            .unwrap_or(Device::None),
        local_ip: attribute.parsed("local_ip", address::ip)?,
        remote_ip: attribute.parsed("remote_ip", address::ip)?.filter(|ip| !ip.is_unspecified()),
        ..KernelTarget::default()
    };
    if let Some(port) = attribute.parsed("local_port", address::port)? {
        target.local_port = port;
    }
    if let Some(port) = attribute.parsed("remote_port", address::port)? {
        target.remote_port = port;
    }
    if let Some(mac) = attribute.parsed("remote_mac", address::mac)? {
        target.remote_mac = mac;
    }
    let mut note = |text: String| notes.push(format!("{name}: {text}"));
    if !target.enabled && target.remote_ip.is_some() {
        note("is disabled, as it is when its device is gone: then remove `enabled = false`".into());
    }
    for entry in list(&path).map_err(|error| error.to_string())? {
        if !KNOWN.contains(&entry.as_str()) {
            let value = read_text(&path.join(&entry)).unwrap_or_default();
            note(format!("{entry} ({value}) is not carried over: the agent has no such setting"));
        }
    }
    userdata(&path.join("userdata"), &mut target, &mut note);
    Ok(target)
}

/// Fills userdata and sysdata; kernels before 6.9 have no such directory.
fn userdata(path: &Path, target: &mut KernelTarget, note: &mut impl FnMut(String)) {
    for entry in list(path).unwrap_or_default() {
        if SWITCHES.iter().any(|(file, _)| *file == entry) {
            continue;
        }
        match read_text(&path.join(&entry).join("value")) {
            Ok(value) => target.userdata.push((entry, value)),
            Err(error) => note(format!("userdata {entry:?} is not carried over: {error}")),
        }
    }
    let is_on = |file: &str| read_text(&path.join(file)).is_ok_and(|text| text == "1");
    target.sysdata =
        SWITCHES.into_iter().filter(|(file, _)| is_on(file)).map(|(_, key)| key).collect();
    if [SysdataKey::Taskname, SysdataKey::Release].iter().all(|key| target.sysdata.contains(key)) {
        note(
            "release_enabled shows taskname's switch on kernels up to 7.0: look whether \
              `release = true` in sysdata is meant"
                .into(),
        );
    }
}

/// The attributes of a target.
struct Attributes<'a> {
    path: &'a Path,
}

impl Attributes<'_> {
    fn text(&self, name: &str) -> Result<Option<String>, String> {
        match read_text(&self.path.join(name)) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            // Such as a file beside the targets.
            Err(error) => Err(format!("cannot read {name}: {error}")),
        }
    }

    /// `None` if it is not there or empty.
    fn parsed<T>(
        &self,
        name: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, String> {
        let Some(text) = self.text(name)?.filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        parse(&text).map(Some).ok_or_else(|| format!("{name} has {text:?}"))
    }

    /// A switch that is not there is off.
    fn switch(&self, name: &str) -> Result<bool, String> {
        Ok(self.text(name)?.is_some_and(|text| text == "1"))
    }
}
