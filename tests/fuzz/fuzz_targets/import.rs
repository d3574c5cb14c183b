//! libFuzzer's way into [`agent_fuzz::import`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| agent_fuzz::import(data));
