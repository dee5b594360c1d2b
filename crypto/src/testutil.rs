//! Helpers of the unit tests.

use crate::prf::KeySource;
use crate::secret::Secret;

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn unhex_vec(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .chars()
        .filter(|c| !c.is_whitespace())
        .map(|c| u8::try_from(c.to_digit(16).unwrap()).unwrap())
        .collect();
    assert_eq!(digits.len() % 2, 0);
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

pub(crate) fn unhex<const N: usize>(text: &str) -> [u8; N] {
    unhex_vec(text).try_into().unwrap()
}

/// The client's random values of reference section 13.1 (OpenVPN 2.4.12).
pub(crate) fn live_client_source() -> KeySource {
    KeySource {
        pre_master: Secret::new(unhex(
            "bb074d2c2d44305291f1147ce823c91afb433d15bda88d2ee17db9569748b952
             ee42cae135057d49b82fa386074da561",
        )),
        random1: Secret::new(unhex(
            "32e1f9c88c4c316a74b2e761c8f247859a7892f892fb1479e702b8cd15d22420",
        )),
        random2: Secret::new(unhex(
            "b5097750d53c6f9c830866a0c4742efdcadfa6e1983088c3833e62eb12bc52a8",
        )),
    }
}

/// The server's random values of reference section 13.1.
pub(crate) fn live_server_source() -> KeySource {
    KeySource {
        pre_master: Secret::new([0; 48]),
        random1: Secret::new(unhex(
            "e2a60436625e8e7bfdc2819e1969447a95255d4a389d32883fc3e1e53e755b81",
        )),
        random2: Secret::new(unhex(
            "49aa55919fd2d5acb945a09c0f2c42114cdcd4726257737111a80a4e912fdde8",
        )),
    }
}

/// Keeps the records of packet ids of this test to itself, so that tests may share fixed keys.
pub(crate) fn isolate() -> crate::audit::IsolatedAudit {
    crate::audit::NonceAuditor::isolate()
}
