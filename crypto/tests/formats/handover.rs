//! Exported states: nothing lost, nothing repeated, nothing believed.

use proptest::prelude::*;
use tunnelhead_crypto::{
    AuthDigest, ControlWrap, CryptoError, DataKeys, ImportError, KeyDirection, NonceAuditor, Role,
};

use crate::support::{V1, V2, block, export, formats, pair, seal, static_key};

fn import(bytes: &[u8]) -> Result<DataKeys, CryptoError> {
    let mut input = bytes;
    let result = DataKeys::import(&mut input);
    // Refused bytes stay where they are, read ones are gone.
    assert_eq!(input.is_empty(), result.is_ok() || bytes.is_empty());
    result
}

fn wraps() -> Vec<Vec<u8>> {
    let key = static_key(60);
    let wraps = [
        ControlWrap::none(),
        ControlWrap::tls_crypt(&key, Role::Server),
        ControlWrap::tls_auth(&key, KeyDirection::Normal, AuthDigest::Sha1),
        ControlWrap::tls_auth(&key, KeyDirection::Bidirectional, AuthDigest::Sha512),
    ];
    wraps
        .into_iter()
        .map(|mut wrap| {
            wrap.wrap(b"\x20sessionI", 7, &mut Vec::new()).unwrap();
            let mut out = Vec::new();
            wrap.export(&mut out);
            out
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Traffic both ways, either side moved to another process at any moment; the auditor watches.
    #[test]
    fn traffic_survives_moves(
        format in prop::sample::select(formats()),
        steps in prop::collection::vec(0u8..4, 1..60),
    ) {
        let _audit = NonceAuditor::isolate();
        let (mut server, mut client) = pair(format, &block(61));
        for (n, step) in steps.into_iter().enumerate() {
            let payload = vec![step; n];
            match step {
                0 => server = import(&export(&server)).unwrap(),
                1 => client = import(&export(&client)).unwrap(),
                2 => {
                    let mut packet = seal(&mut server, V1, &payload);
                    prop_assert_eq!(&*client.opener.open(&mut packet).unwrap(), &payload[..]);
                }
                _ => {
                    let mut packet = seal(&mut client, V2, &payload);
                    prop_assert_eq!(&*server.opener.open(&mut packet).unwrap(), &payload[..]);
                }
            }
        }
    }

    /// Whatever is read from damaged bytes is a state that exports to the same bytes.
    #[test]
    fn damaged_states_are_refused_or_exact(
        format in prop::sample::select(formats()),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut bytes = export(&pair(format, &block(62)).0);
        for (at, value) in damage {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Ok(keys) = import(&bytes) {
            let again = export(&keys);
            prop_assert_eq!(again.len(), bytes.len());
            // Key bytes beyond what the algorithms use are dropped; the rest is exact.
            prop_assert_eq!(&again[..4], &bytes[..4]);
            prop_assert_eq!(&again[again.len() - 32..], &bytes[bytes.len() - 32..]);
        }
    }

    #[test]
    fn noise_is_no_state(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = DataKeys::import(&mut bytes.as_slice());
        let _ = ControlWrap::import(&mut bytes.as_slice());
        let with_version = [&[1], bytes.as_slice()].concat();
        let _ = DataKeys::import(&mut with_version.as_slice());
        let _ = ControlWrap::import(&mut with_version.as_slice());
    }
}

#[test]
fn cut_states_are_refused_and_what_follows_is_left() {
    for format in formats() {
        let bytes = export(&pair(format, &block(63)).0);
        for len in 0..bytes.len() {
            let refused = import(&bytes[..len]).unwrap_err();
            assert_eq!(refused, CryptoError::Import(ImportError::Truncated), "{len}");
        }
        let longer = [bytes.as_slice(), b"next"].concat();
        let mut input = longer.as_slice();
        DataKeys::import(&mut input).unwrap();
        assert_eq!(input, b"next");
    }
    for bytes in wraps() {
        for len in 0..bytes.len() {
            let mut input = &bytes[..len];
            let refused = ControlWrap::import(&mut input).unwrap_err();
            assert_eq!(refused, CryptoError::Import(ImportError::Truncated), "{len}");
            assert_eq!(input.len(), len);
        }
        let longer = [bytes.as_slice(), b"next"].concat();
        let mut input = longer.as_slice();
        let again = ControlWrap::import(&mut input).unwrap();
        assert_eq!(input, b"next");
        let mut out = Vec::new();
        again.export(&mut out);
        assert_eq!(out, bytes);
    }
}

#[test]
fn impossible_values_are_refused() {
    let good = export(&pair(formats()[2], &block(64)).0);
    let counters = good.len() - 32;
    let refused = |at: usize, value: &[u8]| {
        let mut bytes = good.clone();
        bytes[at..at + value.len()].copy_from_slice(value);
        import(&bytes).unwrap_err()
    };
    let field = |name| CryptoError::Import(ImportError::Field(name));
    for version in [0, 2, 255] {
        assert_eq!(refused(0, &[version]), ImportError::Version(version).into());
    }
    for code in [0, 7, 255] {
        assert_eq!(refused(1, &[code]), field("cipher"));
        assert_eq!(refused(2, &[code]), field("digest"));
    }
    assert_eq!(refused(3, &[2]), field("direction"));
    assert_eq!(refused(4, &[0; 32]), CryptoError::ZeroKey);
    assert_eq!(refused(4 + 96, &[0; 32]), CryptoError::ZeroKey);
    assert_eq!(refused(counters, &[0xff; 4]), field("packet id"));
    // A window that has seen ids but no highest, and the other way round.
    assert_eq!(refused(counters + 4 + 8 + 4, &1u64.to_be_bytes()), field("replay window"));
    assert_eq!(refused(counters + 4 + 8, &1u32.to_be_bytes()), field("replay window"));

    for good in wraps() {
        let mut bytes = good.clone();
        bytes[1] = 3;
        let refused = ControlWrap::import(&mut bytes.as_slice()).unwrap_err();
        assert_eq!(refused, field("wrapping"));
        if good.len() > 2 {
            let mut bytes = good.clone();
            let at = bytes.len() - 24;
            bytes[at..at + 4].fill(0xff);
            let refused = ControlWrap::import(&mut bytes.as_slice()).unwrap_err();
            assert_eq!(refused, field("replay id"));
        }
    }
}
