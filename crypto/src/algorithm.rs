//! Names and sizes of the data ciphers and digests. AES with a MAC and nothing weaker.

/// A cipher of the data channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DataCipher {
    /// AES-128-GCM.
    Aes128Gcm,
    /// AES-192-GCM.
    Aes192Gcm,
    /// AES-256-GCM.
    Aes256Gcm,
    /// AES-128-CBC with an HMAC.
    Aes128Cbc,
    /// AES-192-CBC with an HMAC.
    Aes192Cbc,
    /// AES-256-CBC with an HMAC.
    Aes256Cbc,
}

impl DataCipher {
    /// Every cipher.
    pub const ALL: [Self; 6] = [
        Self::Aes128Gcm,
        Self::Aes192Gcm,
        Self::Aes256Gcm,
        Self::Aes128Cbc,
        Self::Aes192Cbc,
        Self::Aes256Cbc,
    ];

    /// The cipher with this name in OpenVPN's spelling; names of others and other spellings: none.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|cipher| cipher.name() == name)
    }

    /// The name in OpenVPN's spelling, as used in options strings and push replies.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Aes128Gcm => "AES-128-GCM",
            Self::Aes192Gcm => "AES-192-GCM",
            Self::Aes256Gcm => "AES-256-GCM",
            Self::Aes128Cbc => "AES-128-CBC",
            Self::Aes192Cbc => "AES-192-CBC",
            Self::Aes256Cbc => "AES-256-CBC",
        }
    }

    /// Length of the key in bytes.
    pub const fn key_len(self) -> usize {
        match self {
            Self::Aes128Gcm | Self::Aes128Cbc => 16,
            Self::Aes192Gcm | Self::Aes192Cbc => 24,
            Self::Aes256Gcm | Self::Aes256Cbc => 32,
        }
    }

    /// True for GCM, which needs no separate MAC.
    pub const fn is_aead(self) -> bool {
        matches!(self, Self::Aes128Gcm | Self::Aes192Gcm | Self::Aes256Gcm)
    }

    /// Stable number for exported states.
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Aes128Gcm => 1,
            Self::Aes192Gcm => 2,
            Self::Aes256Gcm => 3,
            Self::Aes128Cbc => 4,
            Self::Aes192Cbc => 5,
            Self::Aes256Cbc => 6,
        }
    }

    pub(crate) fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|cipher| cipher.code() == code)
    }
}

/// A digest, always used as HMAC: of the data channel with a CBC cipher, and of tls-auth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AuthDigest {
    /// SHA-1; OpenVPN's default, sound as HMAC.
    Sha1,
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

impl AuthDigest {
    /// Every digest.
    pub const ALL: [Self; 4] = [Self::Sha1, Self::Sha256, Self::Sha384, Self::Sha512];

    /// The digest with this name in OpenVPN's spelling.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|digest| digest.name() == name)
    }

    /// The name in OpenVPN's spelling.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sha1 => "SHA1",
            Self::Sha256 => "SHA256",
            Self::Sha384 => "SHA384",
            Self::Sha512 => "SHA512",
        }
    }

    /// Length of the output, and of the HMAC key taken from the key material, in bytes.
    pub const fn output_len(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }

    /// Stable number for exported states.
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Sha1 => 1,
            Self::Sha256 => 2,
            Self::Sha384 => 3,
            Self::Sha512 => 4,
        }
    }

    pub(crate) fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|digest| digest.code() == code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_codes_go_both_ways() {
        for cipher in DataCipher::ALL {
            assert_eq!(DataCipher::from_name(cipher.name()), Some(cipher));
            assert_eq!(DataCipher::from_code(cipher.code()), Some(cipher));
            assert_eq!(cipher.is_aead(), cipher.name().ends_with("-GCM"));
            assert!(cipher.name().contains(&(cipher.key_len() * 8).to_string()));
        }
        for digest in AuthDigest::ALL {
            assert_eq!(AuthDigest::from_name(digest.name()), Some(digest));
            assert_eq!(AuthDigest::from_code(digest.code()), Some(digest));
        }
    }

    #[test]
    fn refuses_other_names_and_spellings() {
        for name in ["", "BF-CBC", "aes-256-gcm", "AES-256-GCM ", "AES-256-OFB", "none"] {
            assert_eq!(DataCipher::from_name(name), None, "{name:?}");
        }
        for name in ["", "MD5", "sha1", "SHA-256", "[null-digest]", "none"] {
            assert_eq!(AuthDigest::from_name(name), None, "{name:?}");
        }
        assert_eq!(DataCipher::from_code(0), None);
        assert_eq!(AuthDigest::from_code(5), None);
    }
}
