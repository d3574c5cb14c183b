//! `KEY=VALUE` on the command line to TOML, as the control socket takes settings of a target.
//!
//! What leaves here is written by the TOML library from parsed keys and values, so nothing
//! that is typed can become a further setting or table. Whether the settings exist is the
//! agent's business.

use toml::{Table, Value};

/// `KEY=VALUE`, as typed.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Setting {
    path: Vec<String>,
    value: Value,
}

impl std::str::FromStr for Setting {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (key, value) = text
            .split_once('=')
            .ok_or_else(|| format!("{text:?} is no KEY=VALUE, such as max_level=err"))?;
        let path: Vec<String> = key.split('.').map(str::to_owned).collect();
        let is_bare = |part: &String| {
            !part.is_empty()
                && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
        };
        if !path.iter().all(is_bare) {
            return Err(format!(
                "{key:?} is no key; keys have letters, digits, `_` and `-`, with dots between \
                 them (for other keys of userdata there is `userdata set`)"
            ));
        }
        Ok(Self { path, value: value_of(value) })
    }
}

/// A TOML value if it is one, else the text.
fn value_of(text: &str) -> Value {
    text.parse().unwrap_or_else(|_| Value::String(text.to_owned()))
}

/// The settings as TOML, a line each with the whole key, so that they mean the same wherever
/// they are read.
///
/// # Errors
/// If one contradicts another.
pub(super) fn to_toml(settings: &[Setting]) -> anyhow::Result<String> {
    let mut text = String::new();
    for Setting { path, value } in settings {
        // Bare keys need no quotes.
        text.push_str(&format!("{} = {value}\n", path.join(".")));
    }
    match text.parse::<Table>() {
        Ok(_) => Ok(text),
        Err(error) => {
            Err(anyhow::anyhow!("the settings contradict each other: {}", error.message()))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn toml(settings: &[&str]) -> String {
        let settings: Result<Vec<Setting>, String> =
            settings.iter().map(|setting| setting.parse()).collect();
        to_toml(&settings.expect("settings")).expect("TOML")
    }

    #[test]
    fn a_value_is_taken_as_toml_if_it_is_and_else_as_text() {
        assert_eq!(toml(&["release=true"]), "release = true\n");
        assert_eq!(toml(&["queue=3"]), "queue = 3\n");
        assert_eq!(toml(&["max_level=err"]), "max_level = \"err\"\n");
        assert_eq!(toml(&["remote=192.0.2.1:6666"]), "remote = \"192.0.2.1:6666\"\n");
        assert_eq!(toml(&["remote=\"192.0.2.1\""]), "remote = \"192.0.2.1\"\n");
        assert_eq!(toml(&["facilities=[\"kern\", 3]"]), "facilities = [\"kern\", 3]\n");
        assert_eq!(toml(&["sysdata.cpu=true"]), "sysdata.cpu = true\n");
        assert_eq!(toml(&["sysdata={cpu = true}"]), "sysdata = { cpu = true }\n");
        assert_eq!(toml(&["local="]), "local = \"\"\n");
        assert_eq!(toml(&["rate=10/5s", "a=b=c"]), "rate = \"10/5s\"\na = \"b=c\"\n");
        assert_eq!(
            toml(&["filter=[{text=\"x\",action=\"drop\"}]"]),
            "filter = [{ text = \"x\", action = \"drop\" }]\n"
        );
    }

    #[test]
    fn nothing_that_is_typed_becomes_another_setting() {
        for value in [
            "1\n[agent]\ncontrol_socket = \"/x\"",
            "true # the rest\nrelease = false",
            "\"a\"\nenabled = false",
            "a\"\nb = \"c",
            "\"\"\"x\"\"\"\n[target.other]",
            "[1]\n[x]",
            "{a = 1}\nb = 2",
            "'''\n'''\nx = 1",
            "\u{1b}[31m\0\u{7f}\r\n",
        ] {
            let text = toml(&[&format!("key={value}")]);
            let table: Table = text.parse().expect("TOML");
            assert_eq!(table.len(), 1, "{text}");
            assert_eq!(table["key"].as_str(), Some(value), "{text}");
        }
    }

    #[test]
    fn a_key_is_bare_or_refused() {
        for text in [
            "", "key", "=1", "a..b=1", ".a=1", "a.=1", "a b=1", "[x]=1", "a\nb=1", "\"a\"=1", "ä=1",
        ] {
            assert!(text.parse::<Setting>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn contradictions_are_told() {
        for pair in [["a=1", "a=2"], ["a=1", "a.b=2"], ["a={b=1}", "a.c=2"]] {
            let settings: Vec<Setting> =
                pair.iter().map(|text| text.parse().expect("a setting")).collect();
            assert!(to_toml(&settings).is_err(), "{pair:?}");
        }
    }

    proptest! {
        #[test]
        fn one_setting_in_is_one_setting_out(value in "\\PC*|[\\x00-\\x7f]{0,40}|[\\[\\]{}\"'=#\\\\\n0-9a-z.]{0,30}") {
            let setting: Setting = format!("some.key={value}").parse().expect("a setting");
            let text = to_toml(std::slice::from_ref(&setting)).expect("TOML");
            let table: Table = text.parse().expect("TOML");
            prop_assert_eq!(table.len(), 1);
            let inner = table["some"].as_table().expect("a table");
            prop_assert_eq!(inner.len(), 1);
            // NaN differs from itself.
            prop_assert_eq!(format!("{:?}", inner["key"]), format!("{:?}", setting.value));
        }
    }
}
