//! The files of templates: only those whose content root alone can choose, because it
//! leaves the host.
//!
//! The file and each link and directory on the way to it belong to root; the file is writable by
//! root alone, and so is each directory, unless it is sticky (`/tmp`), where others cannot touch
//! what is root's. Links as such are fine (`/etc/hostname` may be one). The file is a regular one
//! of at most [`FILE_MAX_BYTES`] bytes. It does not look at what the bytes mean.

use std::{
    collections::VecDeque,
    ffi::OsString,
    fs, io,
    io::Read,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Component, Path, PathBuf},
};

use rustix::fs::OFlags;

use super::template::TemplateError;

/// Largest file that is taken, in bytes.
pub const FILE_MAX_BYTES: u64 = 4096;

/// As many links as the kernel follows (`MAXSYMLINKS`, `include/linux/namei.h`).
const LINKS_MAX: usize = 40;
const WRITABLE_BY_OTHERS: u32 = 0o022;
const STICKY: u32 = 0o1000;

/// What the file says, without the line ends at its end.
///
/// # Errors
/// [`TemplateError`] if it cannot be read, or is none that a template takes.
pub(super) fn content(path: &Path) -> Result<Vec<u8>, TemplateError> {
    let failed =
        |operation| move |source| TemplateError::File { operation, path: path.to_owned(), source };
    let target = roots_alone(path)?;
    // To open a device may do something, so it is not tried.
    if !fs::symlink_metadata(&target).map_err(failed("look at"))?.is_file() {
        return Err(TemplateError::NotRegular { path: path.to_owned() });
    }
    // No link is left to follow; and nothing is waited for.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = fs::OpenOptions::new()
        .read(true)
        // The bits of open(2) are an `int`.
        .custom_flags(flags.bits().cast_signed())
        .open(target)
        .map_err(failed("open"))?;
    let metadata = file.metadata().map_err(failed("look at"))?;
    if !metadata.is_file() {
        return Err(TemplateError::NotRegular { path: path.to_owned() });
    }
    belongs_to_root(path, &metadata)?;
    let mut bytes = Vec::new();
    file.take(FILE_MAX_BYTES + 1).read_to_end(&mut bytes).map_err(failed("read"))?;
    if bytes.len() as u64 > FILE_MAX_BYTES {
        return Err(TemplateError::TooLarge { path: path.to_owned() });
    }
    while bytes.pop_if(|byte| matches!(byte, b'\n' | b'\r')).is_some() {}
    Ok(bytes)
}

/// Follows the path link by link and makes sure that root alone can change where it leads;
/// returns where that is. What root alone can change does not change between this and the opening.
fn roots_alone(path: &Path) -> Result<PathBuf, TemplateError> {
    let mut left: VecDeque<OsString> = parts(path).collect();
    let mut so_far = PathBuf::from("/");
    let mut links = 0;
    check_directory(&so_far)?;
    while let Some(part) = left.pop_front() {
        if part == ".." {
            so_far.pop();
            continue;
        }
        so_far.push(part);
        let failed =
            |operation, source| TemplateError::File { operation, path: so_far.clone(), source };
        let metadata = fs::symlink_metadata(&so_far).map_err(|source| failed("look at", source))?;
        if metadata.is_symlink() {
            if metadata.uid() != 0 {
                return Err(TemplateError::NotRoots { path: so_far, uid: metadata.uid() });
            }
            links += 1;
            if links > LINKS_MAX {
                return Err(failed("follow", io::Error::from(rustix::io::Errno::LOOP)));
            }
            let target = fs::read_link(&so_far).map_err(|source| failed("follow", source))?;
            if target.is_absolute() {
                so_far = PathBuf::from("/");
            } else {
                so_far.pop();
            }
            for part in parts(&target).collect::<Vec<_>>().into_iter().rev() {
                left.push_front(part);
            }
        } else if metadata.is_dir() {
            check_directory(&so_far)?;
        }
    }
    Ok(so_far)
}

fn parts(path: &Path) -> impl Iterator<Item = OsString> {
    path.components().filter_map(|component| match component {
        Component::Normal(_) | Component::ParentDir => Some(component.as_os_str().to_owned()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    })
}

fn check_directory(path: &Path) -> Result<(), TemplateError> {
    let metadata = fs::symlink_metadata(path).map_err(|source| TemplateError::File {
        operation: "look at",
        path: path.to_owned(),
        source,
    })?;
    if metadata.uid() == 0 && metadata.mode() & STICKY != 0 {
        return Ok(());
    }
    belongs_to_root(path, &metadata)
}

fn belongs_to_root(path: &Path, metadata: &fs::Metadata) -> Result<(), TemplateError> {
    if metadata.uid() != 0 {
        return Err(TemplateError::NotRoots { path: path.to_owned(), uid: metadata.uid() });
    }
    let mode = metadata.mode() & 0o7777;
    if mode & WRITABLE_BY_OTHERS != 0 {
        return Err(TemplateError::Writable { path: path.to_owned(), mode });
    }
    Ok(())
}
