//! The commented example `configs/agent.toml`, made from the definitions of the keys.

use std::fmt::Write as _;

use super::keys::{
    AGENT, FILTER, Key, LAST_WORDS, LAST_WORDS_KEYS, REMOTE, RULE, SYSDATA, TARGET, USERDATA,
};
use crate::netconsole::SysdataKey;

/// A configuration with one target, in which every key is explained.
#[must_use]
pub fn example() -> String {
    let mut text = "\
#:schema ./agent.schema.json
# netconsole-agent: sends kernel log records as netconsole packets.
# A `#` directly before a setting: the setting's default.
#
# Editors that know TOML check this file by the schema of its first line and complete its keys,
# once that is there: `netconsole-agent config schema` prints it.
#
# Read from /usr/lib/netconsole-agent, /run/netconsole-agent and /etc/netconsole-agent: the last
# agent.toml counts. More targets can be in targets.d/*.toml beside it, one or more in each file;
# there, too, a file replaces the one of the same name in an earlier folder.

[agent]
"
    .to_owned();
    for key in AGENT {
        write_key(&mut text, key, "");
    }
    let _ = write!(text, "\n# What is done while the kernel panics.\n[{LAST_WORDS}]\n");
    for key in LAST_WORDS_KEYS {
        write_key(&mut text, key, "");
    }
    text.push_str(
        "
# Every key of a target but `remote` can have a default for all targets. Lines of `userdata` and
# `sysdata` are merged key by key; a target with rules of its own does not use the default ones.
# What only fits another egress or format than a target's is not used there.
# [defaults]
# max_level = \"info\"
# [defaults.userdata]
# site = \"fra1\"

# One table for each receiver; the name is yours.
[target.fleet]
",
    );
    for key in TARGET {
        write_key(&mut text, key, "");
    }
    text.push_str("\n# Added to each record by the agent (extended format).\n");
    let _ = writeln!(text, "#[target.fleet.{SYSDATA}]");
    for key in SysdataKey::ALL {
        let _ = writeln!(text, "#{} = false", key.name());
    }
    let _ = write!(
        text,
        "
# Your own additions to each record, in this order (extended format). A value can have the text of
# a file or an environment variable in it.
# [target.fleet.{USERDATA}]
# rack = \"r12\"
# role = \"{{file:/etc/role}}\"
# job = \"{{env:JOB}}\"

# Rules: the first one whose conditions all hold decides; without one the record is sent.
# [[target.fleet.{FILTER}]]
"
    );
    for key in RULE {
        write_key(&mut text, key, "# ");
    }
    text
}

/// A key with its explanation; all of it behind `before`.
fn write_key(text: &mut String, key: &Key, before: &str) {
    for line in key.help {
        let _ = writeln!(text, "# {line}");
    }
    let _ = match (key.default, key.example) {
        (Some(default), _) => writeln!(text, "{before}#{} = {default}", key.name),
        (None, Some(example)) if key.name == REMOTE => {
            writeln!(text, "{before}{} = {example}", key.name)
        }
        (None, Some(example)) => writeln!(text, "# {} = {example}", key.name),
        (None, None) => Ok(()),
    };
}
