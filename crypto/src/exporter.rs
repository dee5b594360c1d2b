//! Labels for exporting keying material from a TLS session (RFC 5705, RFC 8446 section 7.5).
//!
//! The context is absent, not empty: with TLS 1.2 that is a difference.

/// Label of the data keys. Source: OpenVPN 2 EXPORT_KEY_DATA_LABEL.
pub const EXPORTER_DATA_KEYS: &str = "EXPORTER-OpenVPN-datakeys";

/// Label of the dynamic tls-crypt key. Source: OpenVPN 2 EXPORT_DYNAMIC_TLS_CRYPT_LABEL.
pub const EXPORTER_DYNAMIC_TLS_CRYPT: &str = "EXPORTER-OpenVPN-dynamic-tls-crypt";

/// Bytes to export for either label.
pub const EXPORTER_LEN: usize = crate::key_block::KEY_BLOCK_LEN;
