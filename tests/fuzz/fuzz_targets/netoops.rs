//! libFuzzer's way into [`agent_fuzz::netoops`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| agent_fuzz::netoops(data));
