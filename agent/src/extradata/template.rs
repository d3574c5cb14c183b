//! What templates in userdata values stand for ([`super::template_syntax`] is how they are
//! written).
//!
//! What a file or variable says
//! is taken as it is, not looked through for templates again.
//!
//! Files are taken as `template_file` says. Files and variables are one line of UTF-8;
//! line ends at a file's end are dropped, and one inside is refused, because sending the first
//! line alone would hide that it is the wrong file. Length and use of the value are the caller's concern
//! ([`crate::netconsole::format::userdata`]); an empty one makes no line there.

use std::{ffi::OsString, io, path::PathBuf};

pub use super::template_file::FILE_MAX_BYTES;
use super::{
    template_file::content,
    template_syntax::{Piece, SyntaxError, pieces},
};

/// Why a template has no value.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// It is not written as a template is.
    #[error(transparent)]
    Syntax(#[from] SyntaxError),
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

/// Replaces the templates of a value by what the files and variables say now. It opens
/// files, so it may take as long as their file system does.
///
/// # Errors
/// The first template that has no value, and why.
pub fn expand(value: &str) -> Result<String, TemplateError> {
    expand_with(value, |name| std::env::var_os(name))
}

/// The same with variables from elsewhere: those of another process.
///
/// # Errors
/// As [`expand`].
pub fn expand_with(
    value: &str,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<String, TemplateError> {
    let mut whole = String::with_capacity(value.len());
    for piece in pieces(value)? {
        match piece {
            Piece::Text(text) => whole.push_str(text),
            Piece::File(path) => {
                let origin = format!("the file `{}`", path.display());
                whole.push_str(&one_line(content(path)?, origin)?);
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
