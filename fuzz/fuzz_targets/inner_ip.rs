#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tunnelhead::testing::fuzz::inner_ip(data));
