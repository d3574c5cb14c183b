//! libFuzzer's way into [`agent_fuzz::ring_record`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| agent_fuzz::ring_record(data));
