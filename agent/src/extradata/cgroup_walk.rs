//! One walk over the cgroup2 tree: which directory has which id.
//!
//! The id of a cgroup is the inode number of its directory (`cgroup_id`, `include/linux/cgroup.h`;
//! `kernfs_ino`, `include/linux/kernfs.h`), which `getdents(2)` tells without a `stat` of each.
//! Where the tree is mounted is in `/proc/self/mountinfo` (proc_pid_mountinfo(5)). It walks breadth
//! first, so that a tree that is too large is known from the top down, and keeps
//! nothing; [`super::cgroup`] does.

use std::{collections::VecDeque, ffi::OsStr, io, os::unix::ffi::OsStrExt, path::PathBuf};

use rustix::{
    fd::OwnedFd,
    fs::{AtFlags, FileType, Mode, OFlags, RawDir},
    io::Errno,
};

/// Most groups of one walk.
pub(super) const GROUPS_MAX: usize = 20_000;
/// `CGROUP2_SUPER_MAGIC` (`include/uapi/linux/magic.h`).
const CGROUP2_MAGIC: rustix::fs::FsWord = 0x6367_7270;
const MOUNTINFO: &str = "/proc/self/mountinfo";
/// A group has some fifty files, and a slice some hundred groups.
const DIRENT_BYTES: usize = 16 * 1024;
const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Why the tree could not be walked.
#[derive(Debug, thiserror::Error)]
pub enum WalkError {
    /// The list of mounts cannot be read.
    #[error("cannot read {MOUNTINFO}, which tells where the cgroups are: {0}; mount /proc")]
    Mounts(io::Error),
    /// No such file system.
    #[error(
        "no cgroup2 file system is mounted, so that records get the leaf name of their cgroup \
         alone: mount -t cgroup2 none /sys/fs/cgroup"
    )]
    NoMount,
    /// Its root cannot be opened or read.
    #[error("cannot read the cgroups at `{path}`: {source}; let the agent's unit see them")]
    Root {
        /// The mount point.
        path: PathBuf,
        /// What the kernel says.
        source: io::Error,
    },
}

/// Where a cgroup2 file system is mounted.
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    point: PathBuf,
    /// The directory of the tree that is seen there; `/` if all is.
    root: Vec<u8>,
}

/// Calls `found` with id and path of each cgroup that can be seen, the root (`/`) first, and
/// returns whether those were all. Groups that vanish meanwhile are passed over.
pub(super) fn walk(
    groups_max: usize,
    mut found: impl FnMut(u64, &[u8]),
) -> Result<bool, WalkError> {
    let mountinfo = std::fs::read(MOUNTINFO).map_err(WalkError::Mounts)?;
    let mount = whole_tree(&mountinfo).ok_or(WalkError::NoMount)?;
    let failed = |errno: Errno| WalkError::Root { path: mount.point.clone(), source: errno.into() };
    let root = rustix::fs::open(&mount.point, DIRECTORY, Mode::empty()).map_err(failed)?;
    // Something else may be mounted over it.
    if rustix::fs::fstatfs(&root).map_err(failed)?.f_type != CGROUP2_MAGIC {
        return Err(WalkError::NoMount);
    }
    let prefix = mount.root.strip_suffix(b"/").unwrap_or(&mount.root);
    let id = rustix::fs::fstat(&root).map_err(failed)?.st_ino;
    found(id, if prefix.is_empty() { b"/" } else { prefix });

    let mut count = 1;
    let mut buf = Vec::with_capacity(DIRENT_BYTES);
    let mut left = VecDeque::from([prefix.to_vec()]);
    while let Some(path) = left.pop_front() {
        let Some(directory) = open_with_groups(&root, path.get(prefix.len() + 1..)) else {
            continue;
        };
        let mut entries = RawDir::new(directory, buf.spare_capacity_mut());
        // An error here means that the group is gone.
        while let Some(Ok(entry)) = entries.next() {
            let name = entry.file_name().to_bytes();
            if entry.file_type() != FileType::Directory || matches!(name, b"." | b"..") {
                continue;
            }
            if count == groups_max {
                return Ok(false);
            }
            count += 1;
            let path = [&path, name].join(&b'/');
            found(entry.ino(), &path);
            left.push_back(path);
        }
    }
    Ok(true)
}

/// Opens the group at `path` below the root, `None` being the root; not if it has no groups
/// inside, which its link count tells for less than reading it
/// (`kernfs_refresh_inode`, `fs/kernfs/inode.c`).
fn open_with_groups(root: &OwnedFd, path: Option<&[u8]>) -> Option<OwnedFd> {
    const LINKS_WITHOUT_GROUPS: u64 = 2;
    let path = OsStr::from_bytes(path.unwrap_or(b"."));
    let stat = rustix::fs::statat(root, path, AtFlags::SYMLINK_NOFOLLOW).ok()?;
    // Its type differs between architectures.
    if stat.st_nlink as u64 == LINKS_WITHOUT_GROUPS {
        return None;
    }
    rustix::fs::openat(root, path, DIRECTORY, Mode::empty()).ok()
}

/// The mount that shows most of the tree.
fn whole_tree(mountinfo: &[u8]) -> Option<Mount> {
    mountinfo.split(|&b| b == b'\n').filter_map(mount).min_by_key(|mount| mount.root.len())
}

/// `36 35 0:30 ROOT POINT OPTIONS [TAG…] - cgroup2 SOURCE OPTIONS`.
fn mount(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|&b| b == b' ');
    let root = fields.nth(3)?;
    let point = fields.next()?;
    fields.find(|field| *field == b"-")?;
    (fields.next()? == b"cgroup2").then(|| Mount {
        point: OsStr::from_bytes(&unescaped(point)).into(),
        root: unescaped(root),
    })
}

/// The kernel writes blanks and backslashes as three octal digits (`mangle`, `fs/seq_file.c`).
fn unescaped(field: &[u8]) -> Vec<u8> {
    let mut whole = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, tail)) = rest.split_first() {
        let digit = |b: u8| (b'0'..=b'7').contains(&b).then(|| b - b'0');
        if byte == b'\\'
            && let Some(([high, middle, low], tail)) = tail.split_first_chunk()
            && let (Some(high @ 0..=3), Some(middle), Some(low)) =
                (digit(*high), digit(*middle), digit(*low))
        {
            whole.push(high << 6 | middle << 3 | low);
            rest = tail;
        } else {
            whole.push(byte);
            rest = tail;
        }
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_is_found_wherever_it_is() {
        let found = |text: &str| {
            whole_tree(text.as_bytes()).map(|mount| {
                (
                    mount.point.display().to_string(),
                    String::from_utf8_lossy(&mount.root).into_owned(),
                )
            })
        };
        let some = |point: &str, root: &str| Some((point.to_owned(), root.to_owned()));
        let hybrid = "24 1 0:22 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
            25 24 0:23 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
            33 24 0:31 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw\n";
        assert_eq!(found(hybrid), some("/sys/fs/cgroup/unified", "/"));
        let twice = "30 1 0:26 /docker/ab /sys/fs/cgroup rw - cgroup2 cgroup rw\n\
            31 1 0:26 / /mnt/all\\040cgroups\\134 rw - cgroup2 cgroup rw\n";
        assert_eq!(found(twice), some("/mnt/all cgroups\\", "/"));
        let inner = "30 1 0:26 /docker/ab /sys/fs/cgroup rw - cgroup2 cgroup rw";
        assert_eq!(found(inner), some("/sys/fs/cgroup", "/docker/ab"));
        assert_eq!(found("1 0 8:1 / / rw - ext4 /dev/sda1 rw\n\nodd line\n"), None);
    }

    #[test]
    fn escapes_of_mountinfo_are_undone_and_others_kept() {
        assert_eq!(unescaped(b"a\\040b\\011\\x\\77"), b"a b\t\\x\\77");
        assert_eq!(unescaped(b"\\777\\"), b"\\777\\");
    }
}
