//! `pace`: how many datagrams per second a target sends at most, in the long run.

use super::{DEFAULT_PACE_PER_SECOND, table::Table};

/// Most datagrams per second that can be asked for; nothing sends faster.
const PER_SECOND_MAX: u32 = 10_000_000;
/// How a pace is written.
pub(super) const FORMS: &str =
    "datagrams per second: \"20000/s\" (from \"1/s\" to \"10000000/s\"), or \"off\"";

/// Reads `pace`: datagrams per second, `None` without a limit.
pub(super) fn pace(table: &mut Table<'_, '_>) -> Option<u32> {
    let read = table.string("pace").map(|(text, span)| (parse(text), span));
    match read {
        Some((Ok(pace), _)) => pace,
        Some((Err(message), span)) => {
            table.problem(span, message, FORMS.to_owned());
            Some(DEFAULT_PACE_PER_SECOND)
        }
        None => Some(DEFAULT_PACE_PER_SECOND),
    }
}

fn parse(text: &str) -> Result<Option<u32>, String> {
    if text == "off" {
        return Ok(None);
    }
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.strip_suffix("/s") {
        Some(number) if is_number(number) => match number.parse() {
            Ok(pace @ 1..=PER_SECOND_MAX) => Ok(Some(pace)),
            _ => Err(format!("`pace` must be from 1/s to {PER_SECOND_MAX}/s, or \"off\"")),
        },
        None if is_number(text) => Err(format!("`pace` needs its unit: \"{text}/s\"")),
        _ => Err(format!("`pace` does not understand {text:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paces() {
        for (text, wanted) in [
            ("off", None),
            ("1/s", Some(1)),
            ("20000/s", Some(20_000)),
            ("10000000/s", Some(10_000_000)),
        ] {
            assert_eq!(parse(text), Ok(wanted), "{text}");
        }
        for (text, wanted) in [
            ("0/s", "from 1/s to 10000000/s"),
            ("10000001/s", "from 1/s to 10000000/s"),
            ("99999999999999/s", "from 1/s to 10000000/s"),
            ("20000", "needs its unit: \"20000/s\""),
            ("+1/s", "does not understand"),
            ("-1/s", "does not understand"),
            ("1.5/s", "does not understand"),
            ("20k/s", "does not understand"),
            ("100/m", "does not understand"),
            ("20000 /s", "does not understand"),
            ("/s", "does not understand"),
            ("Off", "does not understand"),
            ("", "does not understand"),
        ] {
            let message = parse(text).unwrap_err();
            assert!(message.contains(wanted), "{text:?}: {message}");
        }
    }
}
