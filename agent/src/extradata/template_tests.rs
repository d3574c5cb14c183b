//! Tests of the templates; files are root's, so they need root as the agent does.

use std::{
    fs,
    os::unix::{
        ffi::OsStringExt,
        fs::{PermissionsExt, chown, symlink},
    },
};

use std::path::Path;

use super::*;

fn variable(name: &str) -> Option<OsString> {
    match name {
        "JOB" => Some("web-7".into()),
        "BAD" => Some(OsString::from_vec(vec![0xff])),
        "TWO" => Some("a\nb".into()),
        "LIKE" => Some("{env:JOB}".into()),
        _ => None,
    }
}

fn text(value: &str) -> Result<String, String> {
    expand_with(value, variable).map_err(|error| error.to_string())
}

/// A file in a directory of its own; the path leads through no other's directory.
fn file(content: &[u8]) -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("rack");
    fs::write(&path, content).expect("a file");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("a mode");
    let path = path.to_str().expect("UTF-8").to_owned();
    (directory, path)
}

#[test]
fn braces_that_are_no_templates_are_text() {
    for value in ["", "plain", "{", "}", "{}", "{files:/x}", "{ env:X}", "{{x}}", "{FILE:/x}"] {
        assert_eq!(text(value).as_deref(), Ok(value));
    }
}

#[test]
fn several_templates_are_replaced_between_text() {
    let (_directory, path) = file(b"r12\n");
    let value = format!("a{{file:{path}}}{{env:JOB}}-{{x}}{{env:JOB}}}}");
    assert_eq!(text(&value).as_deref(), Ok("ar12web-7-{x}web-7}"));
    assert_eq!(text("{env:LIKE}").as_deref(), Ok("{env:JOB}"));
}

#[test]
fn the_agents_own_environment_is_read() {
    let path = std::env::var("PATH").expect("a path");
    assert_eq!(expand("{env:PATH}").ok(), Some(path));
}

#[test]
fn what_has_no_value_is_named() {
    let error = text("{env:NONE}").expect_err("unset");
    assert!(error.contains("no variable `NONE`: set it"), "{error}");
    let error = text("{env:BAD}").expect_err("not text");
    assert!(error.contains("the variable `BAD` is not UTF-8"), "{error}");
    let error = text("{env:TWO}").expect_err("two lines");
    assert!(error.contains("the variable `TWO` has a line end"), "{error}");
    let error = text("{file:/nowhere/rack}").expect_err("no file");
    assert!(error.starts_with("cannot look at `/nowhere` for a template: No such"), "{error}");
}

#[test]
fn a_file_is_one_short_line_of_text() {
    for (content, value) in [
        (b"r12\n".as_slice(), "r12"),
        (b"r12", "r12"),
        (b"r 12\r\n\n", "r 12"),
        (b"", ""),
        ("höhe".as_bytes(), "höhe"),
    ] {
        let (_directory, path) = file(content);
        assert_eq!(text(&format!("{{file:{path}}}")).as_deref(), Ok(value));
    }
    for (content, what) in [
        (b"a\nb\n".as_slice(), "has a line end or NUL inside"),
        (b"a\0b", "has a line end or NUL inside"),
        (b"\xff", "is not UTF-8"),
        (&[b'x'; 4097], "more than 4096 bytes"),
    ] {
        let (_directory, path) = file(content);
        let error = text(&format!("{{file:{path}}}")).expect_err(what);
        assert!(error.contains(what) && error.contains(&path), "{error}");
    }
}

#[test]
fn nobody_but_root_chooses_what_is_sent() {
    let (directory, path) = file(b"r12\n");
    let value = format!("{{file:{path}}}");
    let refused = |what: &str| {
        let error = text(&value).expect_err(what);
        assert!(error.contains(what), "{error}");
    };
    fs::set_permissions(&path, fs::Permissions::from_mode(0o664)).expect("a mode");
    refused("(mode 0664): chmod go-w");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("a mode");
    chown(&path, Some(65534), None).expect("another owner");
    refused("because user 65534 owns it");
    chown(&path, Some(0), None).expect("root");
    assert_eq!(text(&value).as_deref(), Ok("r12"));

    chown(directory.path(), Some(65534), None).expect("another owner");
    refused("because user 65534 owns it");
    chown(directory.path(), Some(0), None).expect("root");
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).expect("a mode");
    refused("(mode 0777)");
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o1777)).expect("a mode");
    assert_eq!(text(&value).as_deref(), Ok("r12"));
}

#[test]
fn links_are_followed_if_they_are_roots() {
    let (directory, path) = file(b"r12\n");
    let inner = directory.path().join("inner");
    fs::create_dir(&inner).expect("a directory");
    let link = inner.join("link");
    let value = format!("{{file:{}}}", link.display());
    symlink("../rack", &link).expect("a link");
    assert_eq!(text(&value).as_deref(), Ok("r12"));
    let second = directory.path().join("second");
    symlink(&inner, &second).expect("a link");
    let through = format!("{{file:{}/./link}}", second.display());
    assert_eq!(text(&through).as_deref(), Ok("r12"));

    std::os::unix::fs::lchown(&link, Some(65534), None).expect("another owner");
    let error = text(&value).expect_err("another's link");
    assert!(error.contains("because user 65534 owns it"), "{error}");
    fs::remove_file(&link).expect("removed");
    symlink("link", &link).expect("a link");
    let error = text(&value).expect_err("a loop");
    assert!(error.contains("cannot follow"), "{error}");
    assert!(text(&format!("{{file:{path}/x}}")).is_err());
}

#[test]
fn what_is_no_regular_file_is_refused_without_waiting() {
    let (directory, _path) = file(b"");
    let pipe = directory.path().join("pipe");
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0)
        .expect("a pipe");
    for path in [pipe.as_path(), directory.path(), Path::new("/dev/null")] {
        let error = text(&format!("{{file:{}}}", path.display())).expect_err("no file");
        assert!(error.contains("is not a regular file"), "{error}");
    }
}
