//! Turns the models on. Not through `RUSTFLAGS`: tokio has models of its own under
//! the usual name, and everything would be built twice.

fn main() {
    println!("cargo:rustc-cfg=agent_loom");
}
