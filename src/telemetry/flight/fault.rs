//! What is wrong with a TLS handshake, from the client's alert or from our library's words.

/// Whose fault a failed handshake is, as far as it can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TlsFault {
    /// The client offers no version that the listener takes.
    OldVersion,
    /// The client offers no suite that we allow.
    NoSharedSuite,
    /// The client does not trust our certificate (unknown CA, bad or unknown certificate).
    NotTrusted,
    /// The client takes our certificate for expired.
    TakenForExpired,
    /// The client takes our certificate for one of another name or kind, or revoked.
    NotAccepted,
    /// The listener wants a certificate and none came.
    CertificateMissing,
    /// The client's certificate has expired.
    CertificateExpired,
    /// The client's certificate is not valid yet.
    CertificateNotYetValid,
    /// The client's certificate is revoked.
    CertificateRevoked,
    /// The client's certificate comes from a CA that we don't know.
    CertificateIssuer,
    /// A key of the client's chain is too small or of a wrong kind.
    CertificateKey,
    /// The client's certificate is refused for another reason.
    CertificateRefused,
    /// What came through the control channel is not TLS.
    NotTls,
    /// Another alert of the client.
    Alert,
    /// Anything else.
    Other,
}

impl TlsFault {
    /// Stable name.
    pub fn code(self) -> &'static str {
        match self {
            Self::OldVersion => "tls_version_too_old",
            Self::NoSharedSuite => "tls_no_shared_suite",
            Self::NotTrusted => "server_certificate_not_trusted",
            Self::TakenForExpired => "server_certificate_taken_for_expired",
            Self::NotAccepted => "server_certificate_not_accepted",
            Self::CertificateMissing => "client_certificate_missing",
            Self::CertificateExpired => "client_certificate_expired",
            Self::CertificateNotYetValid => "client_certificate_not_yet_valid",
            Self::CertificateRevoked => "client_certificate_revoked",
            Self::CertificateIssuer => "client_certificate_unknown_issuer",
            Self::CertificateKey => "client_certificate_key_not_allowed",
            Self::CertificateRefused => "client_certificate_refused",
            Self::NotTls => "not_tls",
            Self::Alert => "tls_alert",
            Self::Other => "tls",
        }
    }

    /// From the description of an alert that the client sent. Source: RFC 8446 6.
    pub fn from_alert(description: u8) -> Option<Self> {
        Some(match description {
            // Also sent where suites or certificates don't fit, so no more can be said.
            40 | 47 | 50 | 51 | 80 | 109 | 110 | 116 | 120 => Self::Alert,
            70 | 86 => Self::OldVersion,
            71 => Self::NoSharedSuite,
            42 | 46 | 48 => Self::NotTrusted,
            45 => Self::TakenForExpired,
            43 | 44 | 49 | 112 | 113 => Self::NotAccepted,
            // close_notify and user_canceled say nothing.
            _ => return None,
        })
    }

    /// From the sentence with which our TLS engine failed.
    pub fn from_sentence(sentence: &str) -> Self {
        SENTENCES
            .iter()
            .find(|(part, _)| sentence.contains(part))
            .map_or(Self::Other, |(_, fault)| *fault)
    }
}

/// Parts of the sentences of `tls::openssl`, the first that fits; the tests of the whole process
/// hold the two together. Certificate words are those of OpenSSL's `X509_verify_cert_error_string`.
const SENTENCES: [(&str, TlsFault); 25] = [
    ("offers no TLS version", TlsFault::OldVersion),
    ("offers no TLS cipher suite", TlsFault::NoSharedSuite),
    ("does not know the CA of our certificate", TlsFault::NotTrusted),
    ("does not accept our certificate", TlsFault::NotTrusted),
    ("takes our certificate for expired", TlsFault::TakenForExpired),
    ("the peer sent none", TlsFault::CertificateMissing),
    ("refused: certificate has expired", TlsFault::CertificateExpired),
    ("refused: certificate is not yet valid", TlsFault::CertificateNotYetValid),
    ("refused: certificate revoked", TlsFault::CertificateRevoked),
    ("refused: unable to get local issuer", TlsFault::CertificateIssuer),
    ("refused: unable to get issuer", TlsFault::CertificateIssuer),
    ("refused: unable to verify the first", TlsFault::CertificateIssuer),
    ("refused: self-signed certificate", TlsFault::CertificateIssuer),
    ("refused: self signed certificate", TlsFault::CertificateIssuer),
    ("refused: certificate signature failure", TlsFault::CertificateIssuer),
    ("refused: EE certificate key too weak", TlsFault::CertificateKey),
    ("refused: CA certificate key too weak", TlsFault::CertificateKey),
    ("key of the certificate chain is not allowed", TlsFault::CertificateKey),
    ("is revoked", TlsFault::CertificateRevoked),
    ("certificate was refused", TlsFault::CertificateRefused),
    ("alert protocol version", TlsFault::OldVersion),
    ("alert unsupported certificate", TlsFault::NotAccepted),
    ("alert certificate revoked", TlsFault::NotAccepted),
    ("is not TLS", TlsFault::NotTls),
    ("alert", TlsFault::Alert),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_the_engine_are_understood() {
        for (sentence, fault) in [
            (
                "the client certificate was refused: a key of the certificate chain is not \
                 allowed: an RSA key of 1024 bits",
                TlsFault::CertificateKey,
            ),
            (
                "the peer's certificate was refused: EE certificate key too weak",
                TlsFault::CertificateKey,
            ),
            (
                "the peer's certificate was refused: certificate revoked",
                TlsFault::CertificateRevoked,
            ),
            (
                "the client certificate was refused: serial 17 is revoked",
                TlsFault::CertificateRevoked,
            ),
            (
                "the client certificate was refused: the certificate has no common name",
                TlsFault::CertificateRefused,
            ),
            ("the TLS handshake failed: ssl/tls alert handshake failure", TlsFault::Alert),
            ("what the peer sent is not TLS", TlsFault::NotTls),
            ("the library gave no reason", TlsFault::Other),
        ] {
            assert_eq!(TlsFault::from_sentence(sentence), fault, "{sentence}");
        }
    }

    #[test]
    fn alerts_that_say_nothing_are_no_fault() {
        assert_eq!(TlsFault::from_alert(0), None);
        assert_eq!(TlsFault::from_alert(90), None);
        assert_eq!(TlsFault::from_alert(48), Some(TlsFault::NotTrusted));
        assert_eq!(TlsFault::from_alert(40), Some(TlsFault::Alert));
    }
}
