//! The string, all forms; and that whatever comes out is a configuration.

use std::net::IpAddr;

use proptest::prelude::*;

use super::*;
use crate::{
    config::{self, Target},
    netconsole::FormatKind,
};

/// The targets of an import as the agent will have them.
pub(super) fn parsed(import: &Import) -> Vec<Target> {
    if import.targets == 0 {
        assert_eq!(import.toml, "");
        return Vec::new();
    }
    let config = config::parse(&import.toml, "import").unwrap_or_else(|error| {
        panic!("{error}\n{}", import.toml);
    });
    assert_eq!(config.targets.len(), import.targets);
    config.targets
}

/// The one target of a string.
fn one(text: &str) -> Target {
    let import = string(text);
    assert_eq!(import.refusals, [""; 0], "{text}");
    let mut targets = parsed(&import);
    assert_eq!(targets.len(), 1, "{text}");
    targets.remove(0)
}

/// What a target of the string says: format, release, local, device, remote.
fn told(target: &Target) -> String {
    format!(
        "{}{}{}@{}/{},{}",
        if target.format == FormatKind::Extended { "+" } else { "" },
        if target.release { "r" } else { "" },
        target.local_port,
        target.local_ip.map_or_else(String::new, |ip| ip.to_string()),
        target.device.as_deref().unwrap_or("auto"),
        target.remote,
    )
}

#[test]
fn every_form() {
    for (text, wanted) in [
        // Documentation/networking/netconsole.rst.
        (
            "netconsole=4444@10.0.0.1/eth1,9353@10.0.0.2/12:34:56:78:9a:bc",
            "4444@10.0.0.1/eth1,10.0.0.2:9353",
        ),
        ("netconsole=@/,@10.0.0.2/", "6665@/auto,10.0.0.2:6666"),
        ("netconsole=@/,@fd00:1:2:3::1/", "6665@/auto,[fd00:1:2:3::1]:6666"),
        ("netconsole=\"+r6665@/,@192.168.0.1/\"", "+r6665@/auto,192.168.0.1:6666"),
        // The selftests netcons_cmdline, with a device by name and by MAC.
        (
            "netconsole=+1514@192.0.2.1/eni1,6666@192.0.2.2/02:00:00:00:00:02",
            "+1514@192.0.2.1/eni1,192.0.2.2:6666",
        ),
        (
            "netconsole=+1514@192.0.2.1/02:00:00:00:00:0A,6666@192.0.2.2/02:00:00:00:00:02",
            "+1514@192.0.2.1/02:00:00:00:00:0a,192.0.2.2:6666",
        ),
        ("+1514@fc00::1/eni1,6666@fc00::2/", "+1514@fc00::1/eni1,[fc00::2]:6666"),
        // Ways to write it.
        ("@/,@10.0.0.2/", "6665@/auto,10.0.0.2:6666"),
        ("netconsole='@/,@10.0.0.2/'", "6665@/auto,10.0.0.2:6666"),
        ("\"netconsole=@/,@10.0.0.2/\"", "6665@/auto,10.0.0.2:6666"),
        ("netconsole.netconsole=@/,@10.0.0.2/", "6665@/auto,10.0.0.2:6666"),
        // Odd, and the kernel takes it.
        ("+1@/,+2@010.0.0.2/ff:ff:ff:ff:ff:ff and more", "+1@/auto,10.0.0.2:2"),
        ("0@0.0.0.0/,@10.0.0.2/", "6665@/auto,10.0.0.2:6666"),
        ("@/a-name-that-is-cut,@10.0.0.2/", "6665@/a-name-that-is-,10.0.0.2:6666"),
        ("@/,@fe80::1/", "6665@/eth0,[fe80::1]:6666"),
        ("@/eth1,@fe80::1/", "6665@/eth1,[fe80::1]:6666"),
        // What our configuration does not take.
        ("@224.0.0.1/,@10.0.0.2/", "6665@/auto,10.0.0.2:6666"),
        ("@/no such,@10.0.0.2/", "6665@/auto,10.0.0.2:6666"),
        ("@/auto,@10.0.0.2/", "6665@/auto,10.0.0.2:6666"),
        ("@/01:00:5e:00:00:01,@10.0.0.2/", "6665@/auto,10.0.0.2:6666"),
    ] {
        assert_eq!(told(&one(text)), wanted, "{text}");
    }
}

#[test]
fn only_what_differs_is_written() {
    assert_eq!(string("+@/,@10.0.0.2/").toml, "[target.target1]\nremote = \"10.0.0.2:6666\"\n");
    assert_eq!(
        string("6665@10.0.0.1/eth0,514@10.0.0.2/;+r7@/eth1,@fd00::2/").toml,
        "[target.target1]\nremote = \"10.0.0.2:514\"\ndevice = \"eth0\"\nformat = \"basic\"\n\
         local = \"10.0.0.1\"\n\n\
         [target.target2]\nremote = \"[fd00::2]:6666\"\ndevice = \"eth1\"\nrelease = true\n\
         local = \":7\"\n"
    );
}

#[test]
fn what_is_left_out_is_told() {
    for (text, wanted) in [
        ("@/,@10.0.0.2/", "target1: no device is named, which is eth0 for the kernel"),
        ("@/eth0,@10.0.0.2/", "target1: the broadcast MAC is not carried over: the agent finds"),
        ("@/eth0,@10.0.0.2/02:00:00:00:00:02", "`remote_mac = \"02:00:00:00:00:02\"` would pin it"),
        ("@/eth0,@10.0.0.2/", "all targets: the kernel sends what its console_loglevel lets"),
        ("0@/eth0,@10.0.0.2/", "target1: source port 0 is not carried over"),
        ("@224.0.0.1/eth0,@10.0.0.2/", "target1: local 224.0.0.1 is not carried over: `local`"),
        ("@/a b,@10.0.0.2/", "target1: device \"a b\" is not carried over: `device`"),
        ("@/a-name-that-is-cut,@10.0.0.2/", "is \"a-name-that-is-\": the kernel cuts it"),
        ("@/auto,@10.0.0.2/", "device \"auto\" is not carried over"),
        ("@/eth0,0@10.0.0.2/", "target1: is not imported: nothing can be sent to this address"),
        ("@/eth0,@0.0.0.0/", "target1: is not imported: nothing can be sent to this address"),
    ] {
        let import = string(text);
        assert!(import.notes.iter().any(|note| note.contains(wanted)), "{text}: {import:#?}");
        parsed(&import);
    }
    let import = string("@/eth0,0@10.0.0.2/");
    assert_eq!((import.targets, import.notes.len()), (0, 1), "{import:?}");
}

#[test]
fn a_refused_target_does_not_take_the_others_with_it() {
    let import = string("@/,@10.0.0.1/;r@/,@10.0.0.2/;@/,@10.0.0.3/;");
    let names: Vec<_> = parsed(&import).into_iter().map(|target| target.name).collect();
    assert_eq!(names, ["target1", "target3"]);
    assert_eq!(import.refusals.len(), 2);
}

/// The string, the words of the refusal, and where the caret is.
const REFUSED: [(&str, &str, &str); 26] = [
    ("", "`@` must follow the source port", "^"),
    ("netconsole=", "`@` must follow the source port", "           ^"),
    ("6665", "`@` must follow the source port", "^^^^"),
    ("x@/,@10.0.0.2/", "\"x\" cannot be the source port", "^"),
    ("65536@/,@10.0.0.2/", "cannot be the source port", "^^^^^"),
    ("r@/,@10.0.0.2/", "`r` needs the extended format", "^"),
    ("r+@/,@10.0.0.2/", "`r` needs the extended format", "^"),
    ("++@/,@10.0.0.2/", "\"+\" cannot be the source port", " ^"),
    (" @/,@10.0.0.2/", "\" \" cannot be the source port", "^"),
    ("@", "`/` must follow the source address", " ^"),
    ("@10.0.0/,@10.0.0.2/", "\"10.0.0\" cannot be the source address", " ^^^^^^"),
    ("@[fd00::1]/,@fd00::2/", "cannot be the source address", " ^^^^^^^^^"),
    ("@/eth0", "`,` must follow the device", "  ^^^^"),
    ("@/02:00:00:00:00,@10.0.0.2/", "cannot be the device", "  ^^^^^^^^^^^^^^"),
    ("@/eth0:1,@10.0.0.2/", "\"eth0:1\" cannot be the device", "  ^^^^^^"),
    ("@/,", "`@` must follow the port of the receiver", "   ^"),
    ("@/, 6666@10.0.0.2/", "\" 6666\" cannot be the port of the receiver", "   ^^^^^"),
    ("@/,-1@10.0.0.2/", "cannot be the port of the receiver", "   ^^"),
    ("@/,@10.0.0.2", "`/` must follow the address of the receiver", "    ^^^^^^^^"),
    ("@/,@/", "the address of the receiver is missing", "    ^"),
    ("@/,@netcons.example/", "cannot be the address of the receiver", "    ^^^^^^^^^^^^^^^"),
    ("@/,@fe80::1%eth0/", "cannot be the address of the receiver", "    ^^^^^^^^^^^^"),
    (
        "@fd00::1/,@10.0.0.2/",
        "the two addresses are of different IP versions",
        "           ^^^^^^^^",
    ),
    ("@/,@10.0.0.2/02:00", "\"02:00\" cannot be the MAC of the receiver", "             ^^^^^"),
    ("@/,@10.0.0.2/02-00-00-00-00-02", "cannot be the MAC", "             ^^^^^^^^^^^^^^^^^"),
    ("'+@/,@10.0.0.2/;@/,@x/'", "\"x\" cannot be the address", "                    ^"),
];

#[test]
fn what_the_kernel_refuses_is_refused_with_its_place() {
    for (text, message, caret) in REFUSED {
        let import = string(text);
        let [report] = import.refusals.as_slice() else {
            panic!("{text:?}: {import:?}");
        };
        let mut lines = report.lines();
        let title = lines.next().unwrap();
        assert!(title.starts_with("error: ") && title.contains(message), "{text:?}: {title}");
        let mut shown = lines.skip_while(|line| !line.starts_with("1 |"));
        assert_eq!(shown.next().unwrap().trim_end(), format!("1 | {text}").trim_end());
        assert_eq!(shown.next().unwrap(), format!("  | {caret}"), "{text:?}\n{report}");
        assert!(report.contains("= help: "), "{report}");
    }
}

#[test]
fn a_refusal_as_it_is_shown() {
    assert_eq!(
        string("@/eth0,x6666@10.0.0.2/").refusals,
        ["error: \"x6666\" cannot be the port of the receiver\n \
          --> STRING:1:8\n  |\n\
          1 | @/eth0,x6666@10.0.0.2/\n  |        ^^^^^\n  |\n  \
          = help: a target is [+][r][src-port]@[src-ip]/[dev],[tgt-port]@<tgt-ip>/[tgt-macaddr]"]
    );
}

#[test]
fn a_string_longer_than_the_parameter_is_refused_whole() {
    let target = "@/,@10.0.0.2/;";
    let fits = target.repeat(19);
    let fits = format!("netconsole={}", &fits[..255]);
    assert!(string(&fits).targets > 10);
    let import = string(&target.repeat(19));
    assert_eq!(import.targets, 0);
    assert_eq!(import.refusals.len(), 1);
    assert!(import.refusals[0].contains("266 bytes, and the kernel takes 255"), "{import:?}");
}

proptest! {
    #[test]
    fn no_text_panics_and_all_output_is_a_configuration(text in any::<String>()) {
        parsed(&string(&text));
    }

    #[test]
    fn near_misses_as_well(text in "[+r0-9a-f@/,.:;\"'x=\u{e9} \n]{0,80}") {
        parsed(&string(&text));
    }

    #[test]
    fn what_is_written_is_read_again(
        extended: bool,
        release: bool,
        local_port in 1_u16..,
        remote_port in 1_u16..,
        local in proptest::option::of(0x0b00_0000_u32..0x7e00_0000),
        remote in 0x0b00_0000_u32..0x7e00_0000,
        device in "[a-z][a-z0-9]{0,14}",
    ) {
        prop_assume!(device != "auto");
        let release = release && extended;
        let local = local.map(|ip| IpAddr::from(ip.to_be_bytes()).to_string()).unwrap_or_default();
        let start = format!(
            "{}{}{local_port}@{local}/{device},",
            if extended { "+" } else { "" },
            if release { "r" } else { "" },
        );
        let remote = IpAddr::from(remote.to_be_bytes());
        let target = one(&format!("{start}{remote_port}@{remote}/"));
        prop_assert_eq!(told(&target), format!("{start}{remote}:{remote_port}"));
    }
}
