//! Templates in userdata values: `"{file:/etc/rack}"`, `"{env:JOB}"`, any number of them
//! in one value, with text between.
//!
//! What a brace begins that is neither `{file:` nor `{env:` is text. What a file or variable says
//! is taken as it is, not looked through for templates again.
//!
//! A file's content leaves the host, so nobody but root may choose it: the file and each link
//! and directory on the way to it belong to root, the file is writable by root alone, and so is each
//! directory, unless it is sticky (`/tmp`), where others cannot touch what is root's. Links as such
//! are fine. The file is a regular one of at most [`FILE_MAX_BYTES`] bytes: one line of UTF-8; line ends at
//! its end are dropped, and one inside is refused, because sending the first line alone would hide that
//! it is the wrong file. Length and use of the value are the caller's concern
//! ([`crate::netconsole::format::userdata`]); an empty one makes no line there.

use std::{
    collections::VecDeque,
    ffi::OsString,
    fs, io,
    io::Read,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Component, Path, PathBuf},
};

use rustix::fs::OFlags;

/// Largest file that is taken, in bytes.
pub const FILE_MAX_BYTES: u64 = 4096;

const FILE: &str = "{file:";
const ENV: &str = "{env:";
/// As many links as the kernel follows (`MAXSYMLINKS`, `include/linux/namei.h`).
const LINKS_MAX: usize = 40;
const WRITABLE_BY_OTHERS: u32 = 0o022;
const STICKY: u32 = 0o1000;

/// Why a template has no value.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// No closing brace.
    #[error("`{template}` is not closed: put a `}}` behind the name")]
    Unclosed {
        /// From the opening brace on.
        template: String,
    },
    /// Nothing is named.
    #[error("`{template}` names nothing: write {{file:/PATH}} or {{env:NAME}}")]
    Empty {
        /// The template.
        template: String,
    },
    /// The path depends on where the agent was started.
    #[error("the file `{path}` of a template is not an absolute path: begin it with `/`")]
    Relative {
        /// As it was written.
        path: String,
    },
    /// A variable's name that cannot exist.
    #[error("`{name}` cannot be the name of an environment variable: it has `=` or NUL inside")]
    Name {
        /// As it was written.
        name: String,
    },
    /// The file cannot be reached or read.
    #[error(
        "cannot {operation} `{path}` for a template: {source}; create the file, or drop the key"
    )]
    File {
        /// What failed.
        operation: &'static str,
        /// Of the file, or of what is on the way to it.
        path: PathBuf,
        /// What the kernel says.
        source: io::Error,
    },
    /// A directory, device, socket or pipe.
    #[error("`{path}` is not a regular file, which a template needs")]
    NotRegular {
        /// Of the file.
        path: PathBuf,
    },
    /// Somebody else than root could choose what is sent.
    #[error(
        "a template does not take `{path}`, because user {uid} owns it: chown root `{path}`, or \
         keep the file elsewhere"
    )]
    NotRoots {
        /// Of the file, or of a link or directory on the way.
        path: PathBuf,
        /// Who owns it.
        uid: u32,
    },
    /// Somebody else than root could choose what is sent.
    #[error(
        "a template does not take `{path}`, because others than root may write to it (mode \
         {mode:04o}): chmod go-w `{path}`, or keep the file elsewhere"
    )]
    Writable {
        /// Of the file, or of a directory on the way.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The file is too large.
    #[error("`{path}` has more than {FILE_MAX_BYTES} bytes, which a template does not take")]
    TooLarge {
        /// Of the file.
        path: PathBuf,
    },
    /// Not text.
    #[error("{origin} is not UTF-8, which a userdata value must be: correct it")]
    NotUtf8 {
        /// The file or variable.
        origin: String,
    },
    /// Receivers would take it for several lines.
    #[error("{origin} has a line end or NUL inside; a userdata value is one line: correct it")]
    NotOneLine {
        /// The file or variable.
        origin: String,
    },
    /// No such variable.
    #[error(
        "the agent's environment has no variable `{name}`: set it (Environment= in its unit), or \
         drop the key"
    )]
    Unset {
        /// The variable.
        name: String,
    },
}

/// A value in pieces.
#[derive(Debug, PartialEq, Eq)]
enum Piece<'a> {
    Text(&'a str),
    File(&'a str),
    Env(&'a str),
}

/// Whether anything in the value is to be replaced, be it well written or not.
#[must_use]
pub fn is_template(value: &str) -> bool {
    value.contains(FILE) || value.contains(ENV)
}

/// Checks how the templates of a value are written, without a look at the host.
///
/// # Errors
/// The first of them that is not closed, names nothing, or names what cannot exist.
pub fn check_syntax(value: &str) -> Result<(), TemplateError> {
    pieces(value).try_for_each(|piece| piece.map(drop))
}

/// Replaces the templates of a value by what the files and variables say now. It opens
/// files, so it may take as long as their file system does.
///
/// # Errors
/// The first template that has no value, and why.
pub fn expand(value: &str) -> Result<String, TemplateError> {
    expand_with(value, |name| std::env::var_os(name))
}

fn expand_with(
    value: &str,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<String, TemplateError> {
    let mut whole = String::with_capacity(value.len());
    for piece in pieces(value) {
        match piece? {
            Piece::Text(text) => whole.push_str(text),
            Piece::File(path) => whole.push_str(&file(Path::new(path))?),
            Piece::Env(name) => {
                let unset = || TemplateError::Unset { name: name.to_owned() };
                let bytes = variable(name).ok_or_else(unset)?.into_encoded_bytes();
                whole.push_str(&one_line(bytes, format!("the variable `{name}`"))?);
            }
        }
    }
    Ok(whole)
}

fn pieces(value: &str) -> impl Iterator<Item = Result<Piece<'_>, TemplateError>> {
    let mut rest = value;
    std::iter::from_fn(move || {
        let next = [FILE, ENV].into_iter().filter_map(|open| Some((rest.find(open)?, open))).min();
        let (piece, tail) = match next {
            None if rest.is_empty() => return None,
            None => (Ok(Piece::Text(rest)), ""),
            Some((0, open)) => match rest.find('}') {
                Some(end) => (named(open, &rest[..=end]), &rest[end + 1..]),
                None => (Err(TemplateError::Unclosed { template: rest.to_owned() }), ""),
            },
            Some((at, _)) => (Ok(Piece::Text(&rest[..at])), &rest[at..]),
        };
        rest = tail;
        Some(piece)
    })
}

fn named<'a>(open: &str, template: &'a str) -> Result<Piece<'a>, TemplateError> {
    let name = &template[open.len()..template.len() - 1];
    if name.is_empty() {
        return Err(TemplateError::Empty { template: template.to_owned() });
    }
    if open == ENV {
        if name.contains(['=', '\0']) {
            return Err(TemplateError::Name { name: name.to_owned() });
        }
        return Ok(Piece::Env(name));
    }
    if !name.starts_with('/') {
        return Err(TemplateError::Relative { path: name.to_owned() });
    }
    Ok(Piece::File(name))
}

fn file(path: &Path) -> Result<String, TemplateError> {
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
    one_line(bytes, format!("the file `{}`", path.display()))
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

fn one_line(bytes: Vec<u8>, origin: String) -> Result<String, TemplateError> {
    let Ok(text) = String::from_utf8(bytes) else {
        return Err(TemplateError::NotUtf8 { origin });
    };
    if text.contains(['\n', '\0']) {
        return Err(TemplateError::NotOneLine { origin });
    }
    Ok(text)
}

#[cfg(test)]
#[path = "template_tests.rs"]
mod tests;
