//! Which files a configuration is made of, and their text. The folders and the masking are
//! those of systemd's drop-ins (systemd.unit(5)): a file of the same name in a later folder
//! replaces the earlier one, also by nothing (an empty file, a link to /dev/null).

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::{self, File},
    io::{self, Read as _},
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use super::{
    diagnostic::ConfigError,
    source::{Role, Source},
};

/// Where a configuration is looked for; later ones win.
pub(super) const FOLDERS: [&str; 3] =
    ["/usr/lib/netconsole-agent", "/run/netconsole-agent", "/etc/netconsole-agent"];
/// The main file in each of them.
const MAIN_FILE: &str = "agent.toml";
/// The folder of the drop-ins in each of them.
const DROP_INS: &str = "targets.d";
/// Most bytes of a file that is read: more is not a configuration.
const FILE_MAX_BYTES: u64 = 1 << 20;

/// The files of several folders, of which later ones mask earlier ones.
pub(super) fn from_folders(folders: &[PathBuf]) -> Result<Vec<Source>, ConfigError> {
    let mut main = None;
    for file in folders.iter().rev().map(|folder| folder.join(MAIN_FILE)) {
        match read_text(&file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && !file.is_symlink() => {}
            text => {
                main = Some((file, text));
                break;
            }
        }
    }
    let mut sources = Vec::new();
    if let Some((path, text)) = main {
        sources.push(main_source(path, text)?);
    }
    let drop_ins: Vec<PathBuf> = folders.iter().map(|folder| folder.join(DROP_INS)).collect();
    add_drop_ins(&drop_ins, &mut sources)?;
    if sources.is_empty() {
        return Err(ConfigError::Absent { looked_at: folders.to_vec() });
    }
    Ok(sources)
}

/// One file, and the drop-ins beside it.
pub(super) fn beside(file: &Path) -> Result<Vec<Source>, ConfigError> {
    let mut sources = vec![main_source(file.to_owned(), read_text(file))?];
    let folder = file.parent().unwrap_or(Path::new(""));
    add_drop_ins(&[folder.join(DROP_INS)], &mut sources)?;
    Ok(sources)
}

fn main_source(path: PathBuf, text: io::Result<String>) -> Result<Source, ConfigError> {
    let text = text.map_err(|source| ConfigError::Read { path: path.clone(), source })?;
    Ok(Source { name: path.display().to_string(), text, role: Role::Main })
}

fn add_drop_ins(folders: &[PathBuf], sources: &mut Vec<Source>) -> Result<(), ConfigError> {
    let mut files: BTreeMap<OsString, PathBuf> = BTreeMap::new();
    for folder in folders {
        let unreadable = |source| ConfigError::Read { path: folder.clone(), source };
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(unreadable(error)),
        };
        for entry in entries {
            let name = entry.map_err(unreadable)?.file_name();
            let bytes = name.as_bytes();
            if bytes.ends_with(b".toml") && !bytes.starts_with(b".") {
                let path = folder.join(&name);
                files.insert(name, path);
            }
        }
    }
    for path in files.into_values() {
        let (text, role) = match read_text(&path) {
            Ok(text) => (text, Role::DropIn),
            // Told with all that is wrong in the other files.
            Err(error) => (String::new(), Role::Unreadable(error.to_string())),
        };
        sources.push(Source { name: path.display().to_string(), text, role });
    }
    Ok(())
}

fn read_text(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_MAX_BYTES {
        return Err(io::Error::other(format!("the file has more than {FILE_MAX_BYTES} bytes")));
    }
    String::from_utf8(bytes).map_err(|_| io::Error::other("the file is not UTF-8 text"))
}
