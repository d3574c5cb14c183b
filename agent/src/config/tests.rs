//! What is understood, and what the reports say.

mod keys;
mod layers;
mod live;
mod readme;
mod schema;
mod show;

use proptest::prelude::*;

use super::*;

/// Checks one text as if it were the main file; what is good, the schema takes, too.
pub(super) fn parse(text: &str, file: &str) -> Result<Config, ConfigError> {
    let source = Source { name: file.to_owned(), text: text.to_owned(), role: Role::Main };
    let checked = Sources::of_texts(vec![source]).check();
    if checked.is_ok() {
        schema::assert_taken(text);
    }
    checked
}
use crate::{capture::SourceKind, netconsole::SysdataKey};

fn problems(text: &str) -> Vec<Diagnostic> {
    match parse(text, "agent.toml") {
        Ok(config) => panic!("accepted: {config:?}"),
        Err(ConfigError::Invalid { problems, .. }) => problems,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn the_smallest_configuration_has_the_defaults() {
    let config = parse("[target.fleet]\nremote = \"192.0.2.10:6666\"\n", "agent.toml").unwrap();
    assert_eq!(config.agent, Agent::default());
    let target = &config.targets[0];
    assert_eq!(target.name, "fleet");
    assert_eq!(target.remote, Remote::Address("192.0.2.10:6666".parse().unwrap()));
    assert_eq!(target.pace, Some(20_000));
    assert_eq!((target.egress, target.queue, target.max_level), (None, 0, 7));
    assert_eq!((target.local_ip, target.local_port), (None, 6665));
    assert_eq!(target.format, FormatKind::Extended);
}

#[test]
fn everything_is_understood() {
    let text = r#"
[agent]
control_socket = "/run/x.sock"
capture = "tracepoint"
store = "32MiB"
ring = "1MiB"
[target.a]
remote = "[2001:db8::1]:1514"
device = "eth7"
egress = "xdp"
queue = 3
release = true
max_level = "warning"
local = "[2001:db8::2]:7000"
remote_mac = "52:54:00:aa:bb:01"
pace = "off"
[target.a.userdata]
zebra = "last letter first"
rack = "r12"
[target.a.sysdata]
cpu = true
msgid = true
[target.b]
remote = "192.0.2.1"
egress = "pcap"
pcap = "/tmp/x.pcap"
format = "basic"
max_level = 3
local = ":7"
[target.c]
remote = "Netcons.Example.net:1514"
device = "02:00:00:00:00:0A"
local = "2001:db8::2"
pace = "100/s"
"#;
    let config = parse(text, "agent.toml").unwrap();
    assert_eq!(config.agent.capture, Choice::Only(SourceKind::Tracepoint));
    assert_eq!((config.agent.store_bytes, config.agent.ring_bytes), (32 << 20, 1 << 20));
    let [a, b, c] = &config.targets[..] else { panic!("{:?}", config.targets) };
    assert_eq!(a.remote, Remote::Address("[2001:db8::1]:1514".parse().unwrap()));
    assert_eq!((a.device.as_deref(), a.egress, a.queue), (Some("eth7"), Some(EgressKind::Xdp), 3));
    assert_eq!((a.release, a.max_level, a.local_port), (true, 4, 7000));
    assert_eq!(a.remote_mac, Some([0x52, 0x54, 0, 0xaa, 0xbb, 1]));
    let keys: Vec<_> = a.userdata.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(keys, ["zebra", "rack"], "the order of the file");
    assert_eq!(a.sysdata, [SysdataKey::Cpu, SysdataKey::Msgid].into_iter().collect());
    assert_eq!((a.pace, b.pace, c.pace), (None, Some(20_000), Some(100)));
    assert_eq!(c.remote.to_string(), "netcons.example.net:1514");
    assert_eq!(c.device.as_deref(), Some("02:00:00:00:00:0a"));
    assert_eq!((b.remote.port(), b.max_level, b.local_port), (6666, 3, 7));
    assert_eq!(b.format, FormatKind::Basic);
}

#[test]
fn every_problem_is_told_at_its_place() {
    let text = "[agent]\ncaptur = \"auto\"\nstore = \"lots\"\n\n[target.x]\nremote = \"host_a.example\"\nmax_level = 9\npace = \"20000\"\n";
    let error = parse(text, "agent.toml").unwrap_err().to_string();
    let expected = r#"error: [agent] has no key `captur`
 --> agent.toml:2:1
  |
2 | captur = "auto"
  | ^^^^^^
  |
  = help: the keys there are: capture, control_group, control_socket, metrics, replay, ring, runtime_dir, state_dir, store

error: `store` does not understand "lots"
 --> agent.toml:3:9
  |
3 | store = "lots"
  |         ^^^^^^
  |
  = help: a size from 1MiB to 1GiB, such as "16MiB"

error: the name "host_a.example" has an underscore, which no host name may have
 --> agent.toml:6:10
  |
6 | remote = "host_a.example"
  |          ^^^^^^^^^^^^^^^^
  |
  = help: an address or a name, with a port unless it is 6666: "192.0.2.10", "192.0.2.10:6666", "[2001:db8::10]:6666", "netcons.example.net:6666"

error: `max_level` must be a number from 0 to 7
 --> agent.toml:7:13
  |
7 | max_level = 9
  |             ^

error: `pace` needs its unit: "20000/s"
 --> agent.toml:8:8
  |
8 | pace = "20000"
  |        ^^^^^^^
  |
  = help: datagrams per second: "20000/s" (from "1/s" to "10000000/s"), or "off""#;
    assert_eq!(error, expected);
}

#[test]
fn bad_values_are_refused() {
    let target = |line: &str| format!("[target.x]\nremote = \"192.0.2.1\"\n{line}\n");
    for (text, wanted) in [
        (String::new(), "no target"),
        ("[target]\n".to_owned(), "needs a name"),
        ("[target]\nremote = \"192.0.2.1\"\n".to_owned(), "must be a table"),
        ("[target.x]\n".to_owned(), "no `remote`"),
        ("[target.\"a b\"]\nremote = \"192.0.2.1\"\n".to_owned(), "cannot be the name"),
        (target("remote = \"192.0.2.2\""), "duplicate key"),
        (target("queue = -1"), "0 to 65535"),
        (target("queue = 99999999999999999999"), "0 to 65535"),
        (target("queue = \"0\""), "a whole number"),
        (target("release = 1"), "true or false"),
        (target("format = \"basic\"\nrelease = true"), "needs the extended format"),
        (target("format = \"basic\"\n[target.x.userdata]\na = \"b\""), "needs the extended format"),
        (target("egress = \"pcap\""), "needs the file `pcap`"),
        (target("pcap = \"/tmp/x\""), "only for egress"),
        (target("local = \"2001:db8::1\""), "different IP versions"),
        (target("remote_mac = \"1:2:3:4:5:6\""), "does not understand"),
        (target("device = \"a/b\""), "does not understand"),
        (target("device = \"02:00:00:00:01\""), "`device` does not understand"),
        (target("device = \"03:00:00:00:00:01\""), "`device` does not understand"),
        (target("pace = 20000"), "a string in quotes"),
        (target("pace = \"0/s\""), "from 1/s"),
        (target("pace = \"fast\""), "`pace` does not understand"),
        ("[target.x]\nremote = \"192.0.2.300\"\n".to_owned(), "does not understand"),
        ("[target.x]\nremote = \"host:0\"\n".to_owned(), "is not a port"),
        (target("[target.x.userdata]\nkey = 1"), "must be a string"),
        (target("[target.x.sysdata]\ncpus = true"), "[target.x.sysdata] has no key `cpus`"),
        (target("x = [1"), "unclosed array"),
        (target("pcap = \"\"\negress = \"pcap\""), "`pcap` does not understand"),
        (target("device = \"a\\u0000b\""), "`device` does not understand"),
        (target("remote_mac = \"+1:02:03:04:05:06\""), "`remote_mac` does not understand"),
        (target("[target.x.userdata]\n\"a/b\" = \"c\""), "cannot be a userdata key"),
        (
            target(&format!("[agent]\ncontrol_socket = \"/{}\"", "x".repeat(107))),
            "`control_socket`",
        ),
        (target("[agent]\ncontrol_socket = \"x.sock\""), "`control_socket` does not understand"),
        ("[target.x]\nremote = \"fe80::1\"\n".to_owned(), "which link"),
        ("[target.x]\nremote = \"0.0.0.0:1\"\n".to_owned(), "nothing can be sent"),
        (target("enabled = \"no\""), "true or false"),
        (target("[agent]\ncontrol_group = \"\""), "`control_group` does not understand"),
        (target("[agent]\ncontrol_group = 4"), "a string in quotes"),
        (target("facility = []"), "nothing would be sent"),
        (target("facility = \"kern\""), "must be \"all\" or an array"),
        (target("facility = [\"kern\", \"local8\"]"), "`facility` does not understand"),
        (target("facility = [256]"), "`facility` does not understand"),
        (target("rate = \"10\""), "`rate` does not understand"),
        (target("keepalive = \"9s\""), "`keepalive` does not understand"),
        (target("keepalive = \"8days\""), "`keepalive` does not understand"),
        (target("filter = 1"), "must be an array of tables"),
        (target("filter = [1]"), "must be an array of tables"),
        (target("[[target.x.filter]]\n"), "has no action"),
        (target("[[target.x.filter]]\naction = \"rate\""), "needs a `rate`"),
        (target("[[target.x.filter]]\naction = \"drop\"\nrate = \"1/s\""), "does not go with"),
        (target("[[target.x.filter]]\naction = \"log\""), "`action` does not understand"),
        (target("[[target.x.filter]]\nrate = \"1\""), "`rate` does not understand"),
        (target("[[target.x.filter]]\ntext = \"\"\naction = \"drop\""), "`text` is empty"),
        (target("[[target.x.filter]]\ntext = \"a\"\nregex = \"b\"\naction = \"drop\""), "not both"),
        (target("[[target.x.filter]]\ncpu = \"3-1\"\naction = \"drop\""), "`cpu` needs CPUs"),
        (target("[[target.x.filter]]\ncpu = []\naction = \"drop\""), "`cpu` needs CPUs"),
        (target("[[target.x.filter]]\ncpus = 1\naction = \"drop\""), "has no key `cpus`"),
        (target("[[target.x.filter]]\nregex = \"(\"\naction = \"drop\""), "unclosed group"),
        (target("[target.x.userdata]\na = \"{file:a}\""), "needs an absolute path"),
        (target("[target.x.userdata]\na = \"{env:}\""), "cannot be an environment"),
    ] {
        let problems = problems(&text);
        assert!(
            problems.iter().any(|problem| problem.message.contains(wanted)),
            "{text:?} gives {problems:?}, not {wanted:?}"
        );
    }
    let long: String = (0..40).map(|n| format!("key{n} = \"{}\"\n", "v".repeat(190))).collect();
    let found = problems(&target(&format!("[target.x.userdata]\n{long}")));
    assert!(found[0].message.contains("which is less than 8192"), "{found:?}");
}

#[test]
fn a_broken_line_is_told_once() {
    let text = "[agent]\nstore = \"lots\"\n[target.x]\nremote = \n[target.y]\nremote 192.0.2.1\n";
    let error = parse(text, "agent.toml").unwrap_err().to_string();
    let expected = r#"error: `store` does not understand "lots"
 --> agent.toml:2:9
  |
2 | store = "lots"
  |         ^^^^^^
  |
  = help: a size from 1MiB to 1GiB, such as "16MiB"

error: string values must be quoted, expected literal string
 --> agent.toml:4:10
  |
4 | remote = 
  |          ^

error: key with no value, expected `=`
 --> agent.toml:6:8
  |
6 | remote 192.0.2.1
  |        ^"#;
    assert_eq!(error, expected);
}

#[test]
fn what_is_odd_is_said_and_used() {
    let text = r#"[target.a]
remote = "192.0.2.1"
egress = "udp"
queue = 3
remote_mac = "52:54:00:12:34:56"
[target.a.userdata]
cpu = "mine"
[target.a.sysdata]
cpu = true
[target.b]
remote = "192.0.2.1:6666"
[target.c]
remote = "192.0.2.1"
local = "192.0.2.9"
"#;
    let config = parse(text, "agent.toml").unwrap();
    assert_eq!(config.targets.len(), 3);
    let expected = r#"warning: `queue` changes nothing with egress = "udp"
 --> agent.toml:4:9
  |
4 | queue = 3
  |         ^
  |
  = help: it is for egress = "xdp"

warning: `remote_mac` changes nothing with egress = "udp"
 --> agent.toml:5:14
  |
5 | remote_mac = "52:54:00:12:34:56"
  |              ^^^^^^^^^^^^^^^^^^^
  |
  = help: the kernel resolves the next hop of a UDP socket

warning: receivers will see `cpu` twice: from userdata and sysdata
 --> agent.toml:7:1
  |
7 | cpu = "mine"
  | ^^^
  |
  = help: the line of userdata comes first

warning: b sends to the same receiver as a
  --> agent.toml:10:9
   |
10 | [target.b]
   |         ^
   |
   = help: netconsd tells senders apart by their address alone, and drops a sequence number that it has had"#;
    assert_eq!(config.warnings.report, expected);
    assert_eq!(config.warnings.problems.len(), 4);
}

#[test]
fn userdata_fits_up_to_its_limit() {
    // 29 lines of 205 bytes, and one of 6 and its value: the limit is 6143 less the sysdata.
    let full: String = (10..39).map(|n| format!("k{n} = \"{}\"\n", "v".repeat(199))).collect();
    let with = |last: &str, sysdata: &str| {
        let last = format!("k39 = \"{last}\"\n[target.x.sysdata]\n{sysdata}");
        let head = "[target.x]\nremote = \"192.0.2.1\"\n[target.x.userdata]\n";
        parse(&[head, &full, &last].concat(), "x")
    };
    let value = |bytes: usize| "v".repeat(bytes);
    assert_eq!(with(&value(192), "").unwrap().targets[0].userdata.len(), 30);
    let error = with(&value(193), "").unwrap_err().to_string();
    assert!(error.contains("the userdata has 6144 bytes"), "{error}");
    assert!(error.contains("at most 6143 bytes of userdata"), "{error}");
    let cpu = SysdataKey::Cpu.line_max_bytes();
    assert!(with(&value(192 - cpu), "cpu = true\n").is_ok());
    let error = with(&value(193 - cpu), "cpu = true\n").unwrap_err().to_string();
    assert!(error.contains(&format!("sysdata of up to {cpu} ")), "{error}");
    assert!(error.contains(&format!("at most {} bytes", 6143 - cpu)), "{error}");
    // A template can become as long as any value.
    let error = with("{env:X}", "").unwrap_err().to_string();
    assert!(error.contains("the userdata has 6150 bytes"), "{error}");
}

#[test]
fn a_long_report_is_cut() {
    let text: String = (0..80).map(|n| format!("key{n} = 1\n")).collect();
    let error = parse(&text, "agent.toml").unwrap_err().to_string();
    assert_eq!(error.matches("error: ").count(), 50);
    assert!(error.ends_with("agent.toml: 30 more problems"), "{error}");
}

#[test]
fn a_huge_file_is_not_read() {
    let error = load(Path::new("/dev/zero")).unwrap_err().to_string();
    assert!(error.contains("more than 1048576 bytes"), "{error}");
}

#[test]
fn a_missing_file_is_named() {
    let error = load(Path::new("/nonexistent/agent.toml")).unwrap_err().to_string();
    assert!(error.contains("/nonexistent/agent.toml"), "{error}");
}

proptest! {
    #[test]
    fn no_text_panics(text in "(?s).{0,200}") {
        let _ = parse(&text, "x");
    }

    #[test]
    fn no_toml_panics(
        key in "(remote|device|queue|egress|local|pcap|pace|remote_mac|max_level|userdata|[a-zé]{1,4})",
        value in "(\"\\PC{0,12}\"|[0-9x.-]{1,9}|\\[\\]|\\{a=1\\}|true)",
    ) {
        let _ = parse(&format!("[target.a]\n{key} = {value}\n[agent]\n{key} = {value}"), "x");
    }

    /// A good file with one piece replaced by anything.
    #[test]
    fn no_damage_panics(at in 0usize..2000, cut in 0usize..40, piece in "(?s).{0,20}") {
        let example = include_str!("../../../configs/agent.toml");
        let start = example.floor_char_boundary(at);
        let end = example.floor_char_boundary((at + cut).max(start));
        let _ = parse(&[&example[..start], &piece, &example[end..]].concat(), "x");
    }
}

#[test]
fn the_control_socket_is_known_whatever_else_is_wrong() {
    let socket = |text: &str| {
        let source = Source { name: "agent.toml".into(), text: text.to_owned(), role: Role::Main };
        Sources::of_texts(vec![source]).control_socket()
    };
    assert_eq!(socket("[target.x]\nremote = \"192.0.2.1\"\n"), None);
    let wanted = Some(PathBuf::from("/run/x.sock"));
    let named = "[agent]\ncontrol_socket = \"/run/x.sock\"\n";
    assert_eq!(socket(named), wanted);
    assert_eq!(socket(&format!("{named}store = 1\n[target.x]\nremoet = 1\n[target\n")), wanted);
    assert_eq!(socket("[agent]\ncontrol_socket = 1\n"), None);
}
