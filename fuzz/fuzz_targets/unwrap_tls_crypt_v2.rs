#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tunnelhead::testing::fuzz::unwrap_tls_crypt_v2(data));
