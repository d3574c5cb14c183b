//! Globs, over bytes: `*`, `**`, `?`, `[a-z]`, `[!a-z]` (or `[^a-z]`), and `\` before a
//! character that means itself. A glob has to match the whole of what it is held against.
//!
//! In a path (`Scope::Path`) `*`, `?` and `[…]` stop at a slash and `**` does not, much
//! as `FNM_PATHNAME` of fnmatch(3); in a name (`Scope::Name`) nothing does. There is no
//! rule for a leading dot, no `{a,b}`, and `?` is one byte, not one character.

use std::fmt::Write as _;

use super::{
    compile::{Compiler, Dfa},
    error::Cause,
};

/// What a glob is held against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    Name,
    Path,
}

/// One glob, ready to run.
#[derive(Debug)]
pub(super) struct Glob {
    whole: Matcher,
    /// What the last component of a path has to be like; `None` if it may be anything.
    leaf: Option<Matcher>,
}

#[derive(Debug)]
enum Matcher {
    Exact(Vec<u8>),
    Dfa(Dfa),
}

#[derive(Clone, Debug)]
enum Token {
    Byte(u8),
    /// `?` or `[…]`: one of these bytes.
    OneOf(Box<[bool; 256]>),
    /// `*`: any bytes, up to a slash in a path.
    Star,
    /// `**`: any bytes.
    StarStar,
}

impl Glob {
    pub(super) fn new(text: &str, scope: Scope, compiler: &mut Compiler) -> Result<Self, Cause> {
        let tokens = parse(text.as_bytes(), scope)?;
        let whole = Matcher::new(&tokens, compiler)?;
        let leaf = match scope {
            Scope::Name => None,
            Scope::Path => leaf(&tokens).map(|leaf| Matcher::new(&leaf, compiler)).transpose()?,
        };
        Ok(Self { whole, leaf })
    }

    /// Whether it matches all of these bytes.
    pub(super) fn is_match(&self, bytes: &[u8]) -> bool {
        self.whole.is_match(bytes)
    }

    /// Whether it may match a path whose last component is this.
    pub(super) fn may_end_in(&self, leaf: &[u8]) -> bool {
        self.leaf.as_ref().is_none_or(|matcher| matcher.is_match(leaf))
    }
}

impl Matcher {
    fn new(tokens: &[Token], compiler: &mut Compiler) -> Result<Self, Cause> {
        let exact: Option<Vec<u8>> = tokens
            .iter()
            .map(|token| match token {
                Token::Byte(byte) => Some(*byte),
                _ => None,
            })
            .collect();
        match exact {
            Some(bytes) => Ok(Self::Exact(bytes)),
            None => compiler.dfa(&regex(tokens), true).map(Self::Dfa),
        }
    }

    fn is_match(&self, bytes: &[u8]) -> bool {
        match self {
            Self::Exact(wanted) => wanted == bytes,
            Self::Dfa(dfa) => dfa.is_match(bytes),
        }
    }
}

/// The tokens that the last component has to match: those after the last slash or
/// `**`, whichever is later; before what follows a `**` anything may stand.
fn leaf(tokens: &[Token]) -> Option<Vec<Token>> {
    let last =
        tokens.iter().rposition(|token| matches!(token, Token::Byte(b'/') | Token::StarStar));
    let rest = last.map_or(tokens, |last| &tokens[last + 1..]);
    let after_stars = last.is_some_and(|last| matches!(tokens[last], Token::StarStar));
    let leaf: Vec<Token> =
        after_stars.then_some(Token::Star).into_iter().chain(rest.iter().cloned()).collect();
    let anything = !leaf.is_empty() && leaf.iter().all(|token| matches!(token, Token::Star));
    (!anything).then_some(leaf)
}

fn parse(text: &[u8], scope: Scope) -> Result<Vec<Token>, Cause> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        tokens.push(match byte {
            b'*' => {
                let stars = rest.iter().take_while(|byte| **byte == b'*').count();
                rest = &rest[stars..];
                // In a name they are the same.
                if stars == 0 && scope == Scope::Path { Token::Star } else { Token::StarStar }
            }
            b'?' => one_of([true; 256], scope)?,
            b'[' => one_of(class(&mut rest)?, scope)?,
            b'\\' => Token::Byte(escaped(&mut rest)?),
            byte => Token::Byte(byte),
        });
    }
    Ok(tokens)
}

fn one_of(mut set: [bool; 256], scope: Scope) -> Result<Token, Cause> {
    if scope == Scope::Path {
        set[usize::from(b'/')] = false;
    }
    if set.contains(&true) {
        Ok(Token::OneOf(Box::new(set)))
    } else {
        Err(Cause::Glob("a [ ] that nothing can match"))
    }
}

fn escaped(rest: &mut &[u8]) -> Result<u8, Cause> {
    let (&byte, after) = rest.split_first().ok_or(Cause::Glob("it ends in a single \\"))?;
    *rest = after;
    Ok(byte)
}

/// What follows a `[`, up to and with its `]`.
fn class(rest: &mut &[u8]) -> Result<[bool; 256], Cause> {
    const OPEN: Cause = Cause::Glob("a [ without its ]");
    let mut set = [false; 256];
    let negated = matches!(rest.first(), Some(b'!' | b'^'));
    if negated {
        *rest = &rest[1..];
    }
    let mut first = true;
    loop {
        let (&byte, after) = rest.split_first().ok_or(OPEN)?;
        *rest = after;
        // As in fnmatch(3), a ] that comes first means itself.
        if byte == b']' && !first {
            break;
        }
        first = false;
        let low = member(byte, rest)?;
        let high = match **rest {
            [b'-', b']', ..] => low,
            [b'-', byte, ref after @ ..] => {
                *rest = after;
                member(byte, rest)?
            }
            _ => low,
        };
        if low > high {
            return Err(Cause::Glob("a range in [ ] that runs backwards"));
        }
        set[usize::from(low)..=usize::from(high)].fill(true);
    }
    Ok(if negated { set.map(|member| !member) } else { set })
}

fn member(byte: u8, rest: &mut &[u8]) -> Result<u8, Cause> {
    let byte = if byte == b'\\' { escaped(rest)? } else { byte };
    if byte.is_ascii() { Ok(byte) } else { Err(Cause::Glob("a [ ] with other than ASCII in it")) }
}

/// The same as a regular expression over bytes, anchored at both ends.
fn regex(tokens: &[Token]) -> String {
    let mut regex = String::from(r"(?s-u)\A");
    for token in tokens {
        match token {
            Token::Byte(byte) => push_byte(&mut regex, *byte),
            Token::OneOf(set) => {
                regex.push('[');
                (0..=255)
                    .filter(|byte| set[usize::from(*byte)])
                    .for_each(|byte| push_byte(&mut regex, byte));
                regex.push(']');
            }
            Token::Star => regex.push_str("[^/]*"),
            Token::StarStar => regex.push_str(".*"),
        }
    }
    regex.push_str(r"\z");
    regex
}

fn push_byte(regex: &mut String, byte: u8) {
    // Writing to a string does not fail.
    let _ = write!(regex, r"\x{byte:02x}");
}
