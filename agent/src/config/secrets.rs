//! What of a configuration may be a secret: the values of the userdata. For reports that leave the
//! host; nothing is decided by it.

use toml::de::DeTable;

use super::{keys::USERDATA, places, source::Sources};

impl Sources {
    /// All values of the userdata, of all targets and of the defaults, also where they do not
    /// count or the configuration is bad; each once.
    #[must_use]
    pub fn userdata_values(&self) -> Vec<String> {
        let mut values = Vec::new();
        for source in self.files() {
            let (root, _) = places::parse(&source.text, 0);
            let inner = |table: &DeTable<'_>| collect(table, &mut values);
            let targets = root.get("target").and_then(|value| value.get_ref().as_table());
            let targets = targets.into_iter().flatten().map(|(_, target)| target);
            let tables = targets.chain(root.get("defaults"));
            tables.filter_map(|value| value.get_ref().as_table()).for_each(inner);
        }
        values.sort_unstable();
        values.dedup();
        values
    }
}

fn collect(table: &DeTable<'_>, values: &mut Vec<String>) {
    let userdata = table.get(USERDATA).and_then(|value| value.get_ref().as_table());
    let texts = userdata.into_iter().flatten().filter_map(|(_, value)| value.get_ref().as_str());
    values.extend(texts.map(str::to_owned));
}

#[cfg(test)]
mod tests {
    use crate::config::{MASK, Role, Source, Sources};

    fn sources(main: &str, drop_in: &str) -> Sources {
        let source =
            |name: &str, text: &str, role| Source { name: name.into(), text: text.into(), role };
        Sources::of_texts(vec![
            source("agent.toml", main, Role::Main),
            source("a.toml", drop_in, Role::DropIn),
        ])
    }

    const MAIN: &str = "[defaults.userdata]\nsite = \"first\"\n[target.x]\nremote = \"192.0.2.1\"\n\
                        [target.x.userdata]\nsite = \"second\"\nkey = 'a \"b\"'\n";

    #[test]
    fn values_are_found_wherever_they_are() {
        // Bad in several ways, and still read.
        let drop_in = "[target.y]\nremote = 3\nuserdata = { a = \"third\", b = 4 }\n\
                       [target.x.userdata]\nsite = \"fourth\"\n[target.z\n";
        let found = sources(MAIN, drop_in).userdata_values();
        assert_eq!(found, ["a \"b\"", "first", "fourth", "second", "third"]);
    }

    #[test]
    fn masked_is_shown_with_its_keys_alone() {
        let mut shown = sources(MAIN, "").show().expect("a configuration");
        shown.mask_userdata();
        let (toml, json) = (shown.to_toml(), shown.to_json().to_string());
        for value in ["first", "second", "a \"b\"", "a \\\"b"] {
            assert!(!toml.contains(value) && !json.contains(value), "{toml}\n{json}");
        }
        assert!(toml.contains(&format!("site = \"{MASK}\"  # agent.toml:6")), "{toml}");
        assert!(toml.contains(&format!("key = \"{MASK}\"  # agent.toml:7")), "{toml}");
        assert!(toml.contains("remote = \"192.0.2.1\""), "{toml}");
    }
}
