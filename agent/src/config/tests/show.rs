//! What `config show` prints: where values come from, and that it means the same.

use super::*;

fn shown(main: &str, drop_in: &str) -> (Config, Shown) {
    try_shown(main, drop_in).unwrap()
}

fn try_shown(main: &str, drop_in: &str) -> Result<(Config, Shown), ConfigError> {
    let source =
        |name: &str, text: &str, role| Source { name: name.into(), text: text.into(), role };
    let sources = Sources::of_texts(vec![
        source("/etc/agent.toml", main, Role::Main),
        source("/etc/targets.d/a.toml", drop_in, Role::DropIn),
    ]);
    let change = LiveChange::Set { target: "x".to_owned(), settings: "queue = 3".to_owned() };
    let sources = sources.with_live(&change).unwrap_or(sources);
    Ok((sources.check()?, sources.show()?))
}

const MAIN: &str = "[agent]\nstore = \"32MiB\"\n[defaults]\nmax_level = 3\n[defaults.userdata]\n\
                    site = \"fra1\"\n[last_words]\nhold = \"5ms\"\n";
const DROP_IN: &str = "[target.x]\nremote = \"192.0.2.1\"\nfacility = [ \"kern\",\n  16 ]\n\
                       [target.x.userdata]\n\"odd key\" = 'a \"b\"'\n\
                       [[target.x.filter]]\ntext = \"a\"\nrate = \"1/s\"\n";

#[test]
fn each_value_has_its_place() {
    let (_, shown) = shown(MAIN, DROP_IN);
    let expected = r#"[agent]
control_socket = "/run/netconsole-agent/control.sock"  # default
# control_group is not set  # default
capture = "auto"  # default
replay = "resume"  # default
runtime_dir = "/run/netconsole-agent"  # default
state_dir = "/var/lib/netconsole-agent"  # default
store = "32MiB"  # /etc/agent.toml:2
# metrics is not set  # default
ring = "8MiB"  # default

[last_words]
hold = "5ms"  # /etc/agent.toml:8
budget = "500ms"  # default

[target.x]
remote = "192.0.2.1"  # /etc/targets.d/a.toml:2
enabled = true  # default
device = "auto"  # default
egress = "auto"  # default
queue = 3  # (live)
format = "extended"  # default
release = false  # default
max_level = 3  # /etc/agent.toml:4
facility = ["kern", 16]  # /etc/targets.d/a.toml:3
rate = "off"  # default
copies = 1  # default
# dump is not set  # default
pace = "20000/s"  # default
keepalive = "off"  # default
after_crash = false  # default
local = ":6665"  # default
remote_mac = "auto"  # default

[[target.x.filter]]
text = "a"  # /etc/targets.d/a.toml:8
rate = "1/s"  # /etc/targets.d/a.toml:9

[target.x.userdata]
site = "fra1"  # /etc/agent.toml:6
"odd key" = "a \"b\""  # /etc/targets.d/a.toml:6

[target.x.sysdata]
cpu = false  # default
taskname = false  # default
"#;
    let text = shown.to_toml();
    assert!(text.starts_with(expected), "{text}");
    let json = shown.to_json();
    assert_eq!(
        json["targets"]["x"]["max_level"],
        serde_json::json!({ "value": 3, "source": "/etc/agent.toml", "line": 4 })
    );
    assert_eq!(json["targets"]["x"]["filter"][0]["rate"]["value"], "1/s");
    assert_eq!(json["agent"]["ring"], serde_json::json!({ "value": "8MiB", "source": "default" }));
    assert_eq!(json["targets"]["x"]["facility"]["value"], serde_json::json!(["kern", 16]));
}

/// The output means the same, and as little is odd about it.
fn assert_same(config: Config, shown: &Shown) {
    let text = shown.to_toml();
    let mut again = parse(&text, "shown").unwrap_or_else(|error| panic!("{text}\n{error}"));
    assert_eq!(again.agent, config.agent, "{text}");
    let messages = |warnings: &Warnings| -> Vec<String> {
        let mut all: Vec<_> =
            warnings.problems.iter().map(|problem| problem.message.clone()).collect();
        all.sort();
        all
    };
    assert_eq!(messages(&again.warnings), messages(&config.warnings), "{text}");
    for (target, own) in again.targets.iter_mut().zip(&config.targets) {
        target.live.clone_from(&own.live);
    }
    assert_eq!(again.targets, config.targets, "{text}");
}

#[test]
fn what_is_shown_means_the_same() {
    let (config, all) = shown(MAIN, DROP_IN);
    assert_same(config, &all);
    let (config, all) = shown(&example(), "");
    assert_same(config, &all);
    let basic = "[target.x]\nremote = \"192.0.2.1\"\nformat = \"basic\"\negress = \"udp\"\n\
                 [target.y]\nremote = \"host\"\negress = \"pcap\"\npcap = \"/x\"\nqueue = 1\n\
                 [target.\"a.b\"]\nremote = \"[fe80::1]:7\"\ndevice = \"02:00:00:00:00:01\"\n";
    let (config, all) = shown(MAIN, basic);
    assert_same(config, &all);
}

prop_compose! {
    fn settings()(
        level in prop::option::of(0u8..8),
        egress in prop::option::of(prop::sample::select(vec!["auto", "xdp", "packet", "udp"])),
        queue in prop::option::of(0u16..9),
        format in prop::option::of(prop::sample::select(vec!["extended", "basic"])),
        facility in prop::option::of(prop::collection::vec(0u8..=255, 1..4)),
        rate in prop::option::of(prop::sample::select(vec!["10/5s", "1/ms", "off"])),
        lines in prop::collection::vec(("[a-z]{1,3}", "[ -~é]{0,12}"), 0..3),
        rules in prop::collection::vec(("[ -~é]{1,12}", prop::option::of(0u32..64)), 0..3),
        sysdata in any::<bool>(),
    ) -> (String, String) {
        let mut text = String::new();
        let mut set = |key: &str, value: Option<String>| {
            if let Some(value) = value { text += &format!("{key} = {value}\n"); }
        };
        set("max_level", level.map(|level| level.to_string()));
        set("egress", egress.map(|text| format!("{text:?}")));
        set("queue", queue.map(|queue| queue.to_string()));
        set("format", format.map(|text| format!("{text:?}")));
        set("facility", facility.map(|list| format!("{list:?}")));
        set("rate", rate.map(|text| format!("{text:?}")));
        let quoted = |text: &str| toml_writer::ToTomlValue::to_toml_value(text);
        let mut tables = String::new();
        for (text, cpu) in rules {
            tables += &format!("[[TABLE.filter]]\ntext = {}\naction = \"drop\"\n", quoted(&text));
            if let Some(cpu) = cpu { tables += &format!("cpu = {cpu}\n"); }
        }
        if format != Some("basic") {
            let lines: std::collections::BTreeMap<_, _> = lines.into_iter().collect();
            tables += "[TABLE.userdata]\n";
            for (key, value) in lines { tables += &format!("{key} = {}\n", quoted(&value)); }
            tables += &format!("[TABLE.sysdata]\npid = {sysdata}\n");
        }
        (text, tables)
    }
}

proptest! {
    #[test]
    fn anything_shown_means_the_same(defaults in settings(), x in settings(), y in settings()) {
        let table = |name: &str, first: &str, (keys, tables): &(String, String)| {
            format!("[{name}]\n{first}{keys}{}", tables.replace("TABLE", name))
        };
        let main = table("defaults", "", &defaults);
        let drop_in = table("target.x", "remote = \"192.0.2.1\"\n", &x)
            + &table("target.y", "remote = \"192.0.2.2\"\n", &y);
        // With the basic format as a default, a target with lines of its own is refused.
        if let Ok((config, shown)) = try_shown(&main, &drop_in) {
            assert_same(config, &shown);
        }
    }
}
