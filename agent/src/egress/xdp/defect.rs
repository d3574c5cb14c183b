//! Kernels whose AF_XDP must not be touched. By their release alone: nothing is opened
//! to find out.
//!
//! The judge of the VM tests compiles this file as well.

/// Whether AF_XDP in copy mode crashes a kernel of this release (as in
/// `uname -r`), and what to do instead.
///
/// CVE-2025-40290: 30f241fcf52a (Linux 6.17, and 6.16.8) kept the address of the frame in
/// the packet's control block, which the next layer overwrites; 0ebc27a4c67d
/// (6.18, and 6.17.11) put it elsewhere. Over veth the first packet is an oops
/// in softirq (seen on 6.16.12), so this is asked before anything is opened. A
/// distribution may have the fix under an older number; it is refused all the same.
#[must_use]
pub fn kernel_defect(release: &str) -> Option<&'static str> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    let mut number = || numbers.next().and_then(|digits| digits.parse::<u32>().ok()).unwrap_or(0);
    let affected = match (number(), number(), number()) {
        (6, 16, patch) => patch >= 8,
        (6, 17, patch) => patch < 11,
        (6, 18, 0) => release.contains("-rc"),
        _ => false,
    };
    affected.then_some(
        "sending on AF_XDP may crash it (CVE-2025-40290): use egress = \"packet\", or Linux 6.17.11, \
         6.18 or later",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_that_crash_are_known() {
        for release in [
            "6.16.8",
            "6.16.12+deb13-amd64",
            "6.17.0-8-generic",
            "6.17.10-300.fc43.x86_64",
            "6.18.0-rc3+",
        ] {
            assert!(kernel_defect(release).is_some(), "{release}");
        }
        for release in [
            "6.1.0-50-amd64",
            "6.12.95+deb12-amd64",
            "6.16.7-arch1-1",
            "6.17.11-300.fc43.x86_64",
            "6.18.0",
            "6.18.15+deb13-amd64",
            "7.2.12+deb13-amd64",
            "7.17.0",
            "",
        ] {
            assert!(kernel_defect(release).is_none(), "{release}");
        }
    }
}
