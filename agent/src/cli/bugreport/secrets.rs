//! What the values of the userdata stand for, where they are templates: for the mask alone.
//!
//! A template that has no value now, or whose variables this user may not see, stands for nothing
//! here; what the agent had of it at its start is not known.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fs,
    os::unix::ffi::OsStrExt as _,
};

use crate::extradata::{template, template_syntax::pieces};

/// What these values become, with the variables of the running agent, if there is one, else with ours;
/// of templates that are written wrongly, what is in them, since reports show that apart.
pub(super) fn behind(values: &[String], agent: Option<u32>) -> Vec<String> {
    let variables: BTreeMap<OsString, OsString> = match agent {
        Some(pid) => fs::read(format!("/proc/{pid}/environ")).map(|it| variables(&it)),
        None => Ok(std::env::vars_os().collect()),
    }
    .unwrap_or_default();
    let filled = |value: &String| match pieces(value) {
        Ok(_) => {
            let variable = |name: &str| variables.get(OsStr::new(name)).cloned();
            template::expand_with(value, variable).ok()
        }
        Err(error) => {
            let (_, argument) = value.get(error.span)?.split_once(':')?;
            Some(argument.strip_suffix('}').unwrap_or(argument).to_owned())
        }
    };
    values.iter().filter_map(filled).collect()
}

/// The variables of `/proc/PID/environ`.
fn variables(environ: &[u8]) -> BTreeMap<OsString, OsString> {
    let pair = |entry: &[u8]| {
        let at = entry.iter().position(|&byte| byte == b'=')?;
        let text = |bytes: &[u8]| OsStr::from_bytes(bytes).to_owned();
        Some((text(&entry[..at]), text(&entry[at + 1..])))
    };
    environ.split(|&byte| byte == 0).filter_map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_filled_as_far_as_can_be() {
        let own = std::env::var("PATH").expect("a variable");
        let values = ["p-{env:PATH}", "plain", "{env:NO_SUCH_VARIABLE}", "x{file:not-absolute}"];
        let values = values.map(str::to_owned);
        let expected = [format!("p-{own}"), "plain".to_owned(), "not-absolute".to_owned()];
        assert_eq!(behind(&values, None), expected);
        // This process is one, too.
        assert_eq!(behind(&values, Some(std::process::id())), expected);
        let nobody = behind(&values, Some(u32::MAX));
        assert_eq!(nobody, ["plain", "not-absolute"]);
    }
}
