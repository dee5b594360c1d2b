#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tunnelhead::testing::fuzz::session_import(data));
