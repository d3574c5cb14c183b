//! Templates in userdata values: `"{file:/etc/rack}"`, `"{env:JOB}"`, any number of them
//! in one value, with text between.
//!
//! What a brace begins that is neither `{file:` nor `{env:` is text. What a file or variable says
//! is taken as it is, not looked through for templates again.
//!
//! Files are taken as [`super::template_file`] says. Files and variables are one line of UTF-8;
//! line ends at a file's end are dropped, and one inside is refused, because sending the first
//! line alone would hide that it is the wrong file. Length and use of the value are the caller's concern
//! ([`crate::netconsole::format::userdata`]); an empty one makes no line there.

use std::{
    ffi::OsString,
    io,
    path::{Path, PathBuf},
};

pub use super::template_file::FILE_MAX_BYTES;
use super::template_file::content;

const FILE: &str = "{file:";
const ENV: &str = "{env:";

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
            Piece::File(path) => {
                whole.push_str(&one_line(content(Path::new(path))?, format!("the file `{path}`"))?)
            }
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
