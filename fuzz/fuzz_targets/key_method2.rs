#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tunnelhead::testing::fuzz::key_method2(data));
