//! libFuzzer's way into [`agent_fuzz::kmsg`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| agent_fuzz::kmsg(data));
