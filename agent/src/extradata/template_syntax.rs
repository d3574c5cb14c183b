//! How templates in userdata values are written: `{file:/absolute/path}` stands for what is in the file,
//! `{env:NAME}` for an environment variable. Only these two beginnings make a template; every
//! other brace stands for itself, so that values such as `{"rack":12}` need no escape (and
//! the texts `{file:` and `{env:` cannot be values). Pure text: nothing is read here.

use std::{ops::Range, path::Path};

/// A part of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Stands for itself.
    Text(&'a str),
    /// What is in this file; its path is absolute.
    File(&'a Path),
    /// The value of this environment variable.
    Env(&'a str),
}

/// What is wrong with how a template is written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SyntaxError {
    /// Where in the value, in bytes.
    pub span: Range<usize>,
    /// What is wrong.
    pub message: String,
}

/// Splits a value into its parts; a value without a template is one text.
///
/// # Errors
/// For a template without its end, a path that is not absolute, or what is no name.
pub fn pieces(value: &str) -> Result<Vec<Piece<'_>>, SyntaxError> {
    let mut pieces = Vec::new();
    let (mut text_start, mut at) = (0, 0);
    while let Some(brace) = value[at..].find('{').map(|found| at + found) {
        let inner = &value[brace + 1..];
        let Some((kind, argument)) =
            ["file:", "env:"].into_iter().find_map(|kind| Some((kind, inner.strip_prefix(kind)?)))
        else {
            at = brace + 1;
            continue;
        };
        let wrong = |end: usize, message: String| SyntaxError { span: brace..end, message };
        let Some(len) = argument.find('}') else {
            return Err(wrong(value.len(), format!("the template `{{{kind}` has no `}}`")));
        };
        let argument = &argument[..len];
        let end = brace + 1 + kind.len() + len + 1;
        if text_start < brace {
            pieces.push(Piece::Text(&value[text_start..brace]));
        }
        pieces.push(match kind {
            "file:" if is_path(argument) => Piece::File(Path::new(argument)),
            "file:" => {
                let message = format!("a template needs an absolute path, not {argument:?}");
                return Err(wrong(end, message));
            }
            _ if is_name(argument) => Piece::Env(argument),
            _ => {
                let message = format!("{argument:?} cannot be an environment variable");
                return Err(wrong(end, message));
            }
        });
        (text_start, at) = (end, end);
    }
    if text_start < value.len() || pieces.is_empty() {
        pieces.push(Piece::Text(&value[text_start..]));
    }
    Ok(pieces)
}

fn is_path(text: &str) -> bool {
    text.len() > 1 && text.starts_with('/') && !text.contains('\0')
}

/// The names that a shell takes (POSIX, 8.1 of the base definitions, with small letters).
fn is_name(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with(|first: char| first.is_ascii_digit())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_split() {
        let file = |path| Piece::File(Path::new(path));
        for (value, wanted) in [
            ("", vec![Piece::Text("")]),
            ("r12", vec![Piece::Text("r12")]),
            ("{\"a\": {1}} }{{ {File:/x}", vec![Piece::Text("{\"a\": {1}} }{{ {File:/x}")]),
            ("{file:/etc/rack}", vec![file("/etc/rack")]),
            ("{{file:/a}}", vec![Piece::Text("{"), file("/a"), Piece::Text("}")]),
            (
                "é{env:JOB}-{file:/a b}!",
                vec![
                    Piece::Text("é"),
                    Piece::Env("JOB"),
                    Piece::Text("-"),
                    file("/a b"),
                    Piece::Text("!"),
                ],
            ),
        ] {
            assert_eq!(pieces(value), Ok(wanted), "{value}");
        }
        for (value, span, wanted) in [
            ("x{file:/a", 1..9, "has no `}`"),
            ("{file:}", 0..7, "absolute path"),
            ("{file:a/b}", 0..10, "absolute path"),
            ("{file:/}", 0..8, "absolute path"),
            ("a{env:}", 1..7, "cannot be an environment variable"),
            ("{env:1A}", 0..8, "cannot be"),
            ("{env:A B}", 0..9, "cannot be"),
        ] {
            let error = pieces(value).unwrap_err();
            assert_eq!(error.span, span, "{value}");
            assert!(error.message.contains(wanted), "{value}: {error}");
        }
    }
}
