//! The number of a group: group(5), without NSS.
//!
//! A static binary has no NSS, and a group that only a directory service knows may be
//! missing when the agent starts at boot; such a group can be given by its number.

use std::{
    fs::File,
    io::{self, Read as _},
    path::Path,
};

/// Most bytes of the file that are read.
const FILE_MAX_BYTES: u64 = 4 << 20;

/// The gid of a group given by name or number.
///
/// # Errors
/// In words, with the remedy.
pub(super) fn find(group: &str, groups: &Path) -> Result<u32, String> {
    if let Ok(gid) = group.parse() {
        return if gid == u32::MAX {
            // chown(2) takes it for "leave it as it is".
            Err(format!("`control_group` {gid} is no group"))
        } else {
            Ok(gid)
        };
    }
    let file = groups.display();
    let text = read(groups).map_err(|error| {
        format!("`control_group` {group:?} cannot be looked up in {file}: {error}")
    })?;
    gid_of(group, &text).ok_or_else(|| {
        format!(
            "`control_group` {group:?} is not in {file}; create it (groupadd --system {group}), or \
             give its number if a directory service has it"
        )
    })
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    File::open(path)?.take(FILE_MAX_BYTES).read_to_end(&mut text)?;
    Ok(text)
}

/// `name:password:gid:members`, a line each; the first one counts.
fn gid_of(group: &str, text: &[u8]) -> Option<u32> {
    text.split(|byte| *byte == b'\n').find_map(|line| {
        let mut fields = line.split(|byte| *byte == b':');
        let is_it = fields.next()? == group.as_bytes();
        let gid = std::str::from_utf8(fields.nth(1)?).ok()?.parse().ok()?;
        (is_it && gid != u32::MAX).then_some(gid)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUPS: &[u8] = b"root:x:0:\n# staff:x:9:\nbroken\nstaff:x:none:\nstaff:x:50:a,b\n\
                            staff:x:51:\n\xff:x:7:\nlast:x:4294967295:\nend:*:60:";

    #[test]
    fn a_group_is_found_by_name_as_the_first_whole_line_has_it() {
        assert_eq!(gid_of("root", GROUPS), Some(0));
        assert_eq!(gid_of("staff", GROUPS), Some(50));
        assert_eq!(gid_of("end", GROUPS), Some(60));
        for none in ["", "roo", "root:x", "broken", "last", "nobody", "x"] {
            assert_eq!(gid_of(none, GROUPS), None, "{none}");
        }
    }

    #[test]
    fn a_number_needs_no_file_and_a_missing_group_names_the_remedy() {
        let nowhere = Path::new("/nonexistent/group");
        assert_eq!(find("4711", nowhere), Ok(4711));
        assert!(find("4294967295", nowhere).is_err());
        assert!(find("ops", nowhere).expect_err("no file").contains("/nonexistent/group"));
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), GROUPS).expect("written");
        assert_eq!(find("staff", file.path()), Ok(50));
        assert!(find("ops", file.path()).expect_err("missing").contains("groupadd"));
    }
}
