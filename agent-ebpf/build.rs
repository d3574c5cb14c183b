//! Makes cargo rebuild the programs when bpf-linker changes.

use which::which;

fn main() {
    // The linker is not known to cargo as an input of this crate. Where it is
    // missing the build of the agent says so; linting works without it.
    if let Ok(bpf_linker) = which("bpf-linker") {
        println!("cargo:rerun-if-changed={}", bpf_linker.display());
    }
}
