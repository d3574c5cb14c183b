//! libFuzzer's way into [`agent_fuzz::control`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| agent_fuzz::control(data));
