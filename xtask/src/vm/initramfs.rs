//! The root file system of a test VM: an uncompressed cpio archive in memory.
//!
//! It holds a static busybox, the modules that are asked for with what they
//! depend on, and the programs under test. The format is "newc", as the kernel
//! reads it (Documentation/driver-api/early-userspace/buffer-format.rst).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::kernel::Kernel;
use crate::run::{cmd, which};

const FILE: u32 = 0o100_000;
const DIRECTORY: u32 = 0o040_000;

/// A cpio archive that is being written.
#[derive(Default)]
pub(crate) struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    /// Adds a directory; its parent must have been added.
    pub(crate) fn directory(&mut self, path: &str) {
        self.entry(path, DIRECTORY | 0o755, &[]);
    }

    /// Adds a file that can be executed; its directory must have been added.
    pub(crate) fn file(&mut self, path: &str, content: &[u8]) {
        self.entry(path, FILE | 0o755, content);
    }

    /// Adds what lies in the file `from`.
    pub(crate) fn copy(&mut self, path: &str, from: &Path) -> Result<()> {
        let content = fs::read(from).with_context(|| format!("read {}", from.display()))?;
        self.file(path, &content);
        Ok(())
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8]) {
        self.entries += 1;
        let (name_bytes, content_bytes) = (path.len() + 1, content.len());
        let inode = self.entries;
        // inode, mode, uid, gid, links, mtime, size, device ×4, name size, check
        let header = format!(
            "070701{inode:08x}{mode:08x}{0:08x}{0:08x}{1:08x}{0:08x}{content_bytes:08x}\
             {0:08x}{0:08x}{0:08x}{0:08x}{name_bytes:08x}{0:08x}",
            0, 1
        );
        self.bytes.extend_from_slice(header.as_bytes());
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        let padded = self.bytes.len().next_multiple_of(4);
        self.bytes.resize(padded, 0);
    }

    /// The whole archive.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }
}

/// Adds busybox and the empty directories that the init script mounts on.
pub(crate) fn add_base(archive: &mut Archive, busybox: &Path) -> Result<()> {
    for path in ["bin", "dev", "etc", "lib", "lib/modules", "proc", "run", "sys", "tmp", "var"] {
        archive.directory(path);
    }
    archive.copy("bin/busybox", busybox)
}

/// This machine's busybox.
pub(crate) fn own_busybox() -> Result<PathBuf> {
    which("busybox").context("busybox is missing: run `cargo xtask setup`")
}

/// Adds programs of this machine with the shared libraries they need, as `ldd`
/// tells them.
pub(crate) fn add_programs(archive: &mut Archive, names: &[&str]) -> Result<()> {
    let mut libraries = BTreeSet::new();
    for name in names {
        let path =
            which(name).with_context(|| format!("{name} is missing: run `cargo xtask setup`"))?;
        archive.copy(&format!("bin/{name}"), &path)?;
        let out = cmd("ldd", [&path]).output().context("cannot start ldd")?;
        let listed = String::from_utf8_lossy(&out.stdout).into_owned();
        let paths = listed.split_whitespace().filter(|word| word.starts_with('/'));
        libraries.extend(paths.map(PathBuf::from));
    }
    let mut directories = BTreeSet::from(["lib".to_owned()]);
    for library in libraries {
        let path = library.to_string_lossy().trim_start_matches('/').to_owned();
        for (end, _) in path.match_indices('/') {
            if directories.insert(path[..end].to_owned()) {
                archive.directory(&path[..end]);
            }
        }
        archive.copy(&path, &library)?;
    }
    Ok(())
}

/// Adds `wanted` modules, what they depend on, and the `modules.dep` that
/// `modprobe` reads. What is built into the kernel is left out.
pub(crate) fn add_modules(archive: &mut Archive, kernel: &Kernel, wanted: &[&str]) -> Result<()> {
    let mut files = BTreeMap::new();
    index(&kernel.modules, &mut files)?;
    let mut todo: Vec<String> = wanted.iter().map(|&name| name.to_owned()).collect();
    let mut done = BTreeSet::new();
    let mut dependencies = BTreeMap::new();
    let dir = format!("lib/modules/{}", kernel.release);
    archive.directory(&dir);
    while let Some(name) = todo.pop() {
        if !done.insert(name.clone()) {
            continue;
        }
        let Some(path) = files.get(&name) else {
            // Built in, or unknown to this kernel: the test that needs it says so.
            continue;
        };
        let object = decompressed(path)?;
        let needs = depends_on(&object);
        archive.file(&format!("{dir}/{name}.ko"), &object);
        todo.extend(needs.iter().cloned());
        dependencies.insert(name, needs);
    }
    let text = dependencies.keys().fold(String::new(), |text, name| {
        let needs = closure(name, &dependencies);
        let needs: Vec<String> = needs.iter().map(|name| format!("{name}.ko")).collect();
        text + &format!("{name}.ko: {}\n", needs.join(" "))
    });
    archive.file(&format!("{dir}/modules.dep"), text.as_bytes());
    Ok(())
}

/// Everything `name` needs, the direct ones first (modprobe loads them from the
/// last to the first).
fn closure(name: &str, dependencies: &BTreeMap<String, Vec<String>>) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    let mut todo: Vec<&String> = dependencies.get(name).into_iter().flatten().collect();
    while let Some(need) = todo.pop() {
        if !dependencies.contains_key(need) {
            continue;
        }
        // A module that is needed twice must be loaded before both.
        all.retain(|known| known != need);
        all.push(need.clone());
        todo.extend(dependencies.get(need).into_iter().flatten());
    }
    all
}

/// Fills `files` with the modules below `dir` by their names.
fn index(dir: &Path, files: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))? {
        let path = entry.with_context(|| format!("list {}", dir.display()))?.path();
        if path.is_symlink() {
            continue;
        }
        if path.is_dir() {
            index(&path, files)?;
        } else if let Some(name) = path.file_name().and_then(|name| name.to_str())
            && let Some((stem, _)) = name.split_once(".ko")
        {
            files.insert(stem.replace('-', "_"), path);
        }
    }
    Ok(())
}

fn decompressed(path: &Path) -> Result<Vec<u8>> {
    let program = match path.extension().and_then(|ext| ext.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        _ => return fs::read(path).with_context(|| format!("read {}", path.display())),
    };
    let out = cmd(program, ["-dcq"])
        .arg(path)
        .output()
        .with_context(|| format!("cannot start {program}: run `cargo xtask setup`"))?;
    anyhow::ensure!(out.status.success(), "{program} cannot decompress {}", path.display());
    Ok(out.stdout)
}

/// The names in the `depends=` string of a module's `.modinfo` section. The
/// section is a list of NUL-terminated strings, so the file is searched for it.
fn depends_on(object: &[u8]) -> Vec<String> {
    object
        .split(|&byte| byte == 0)
        .find_map(|string| string.strip_prefix(b"depends="))
        .map(|names| String::from_utf8_lossy(names).into_owned())
        .unwrap_or_default()
        .split(',')
        .filter(|name| !name.is_empty())
        .map(|name| name.replace('-', "_"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_what_cpio_writes() {
        let mut archive = Archive::default();
        archive.directory("bin");
        archive.file("bin/a", b"hello");
        let bytes = archive.finish();
        assert_eq!(bytes.len() % 4, 0);
        let text = String::from_utf8(bytes).unwrap();
        // "070701", inode, mode, uid, gid, links, mtime, size, 4 devices, name size, check
        let zero = "00000000";
        let header = |inode: &str, mode: &str, size: &str, name: &str| {
            format!(
                "070701{inode}{mode}{zero}{zero}00000001{zero}{size}{zero}{zero}{zero}{zero}{name}{zero}"
            )
        };
        assert!(text.starts_with(&header("00000001", "000041ed", zero, "00000004")));
        let file = header("00000002", "000081ed", "00000005", "00000006");
        assert!(text.contains(&(file + "bin/a\0hello\0\0\0")), "{text:?}");
        assert!(text.contains("TRAILER!!!\0"));
    }

    #[test]
    fn finds_what_a_module_depends_on() {
        assert_eq!(
            depends_on(b"\x7fELF\0name=x\0depends=stp,net-failover\0tail"),
            ["stp", "net_failover"]
        );
        assert!(depends_on(b"x\0depends=\0").is_empty());
    }

    #[test]
    fn lists_a_shared_dependency_after_both_that_need_it() {
        let needs = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        let dependencies = BTreeMap::from([
            ("a".to_owned(), needs(&["b", "c"])),
            ("b".to_owned(), needs(&["d"])),
            ("c".to_owned(), needs(&["d", "b"])),
            ("d".to_owned(), needs(&[])),
        ]);
        let all = closure("a", &dependencies);
        let place = |name: &str| all.iter().position(|known| known == name).unwrap();
        assert!(place("c") < place("b") && place("b") < place("d"), "{all:?}");
        assert_eq!(all.len(), 3);
    }
}
