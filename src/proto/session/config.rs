//! What all sessions of one listener share.

use std::net::Ipv4Addr;
use std::time::Duration;

use tunnelhead_crypto::{
    AuthDigest, DataCipher, KeyDirection, Secret, StaticKey, TlsCryptV2ServerKey,
};

/// Settings of the server role, shared by all sessions of a listener.
#[derive(Debug)]
pub struct SessionConfig {
    /// How control packets are wrapped.
    pub wrap: WrapConfig,
    /// Data ciphers that are offered, best first; also the allow-list for clients that do not
    /// negotiate.
    pub ciphers: Vec<DataCipher>,
    /// A ping is sent after this much silence from our side; pushed to the client.
    pub ping: Duration,
    /// A client that has ever pinged is dead after this much silence; pushed to the client.
    pub restart: Duration,
    /// The one source address of the platform; a host route to it is pushed.
    pub management: Ipv4Addr,
    /// MTU of the tunnel, bytes of an inner packet.
    pub tun_mtu: u16,
    /// Time that a login or a rekey may take, from its first packet until the key is in use.
    pub hand_window: Duration,
    /// How long the key before the current one still opens packets, from the switch on.
    pub transition_window: Duration,
    /// How long a TLS engine outlives the end of its work.
    pub linger: Duration,
    /// How long a TLS engine waits at most for the push reply to be acknowledged.
    pub linger_max: Duration,
    /// How long a refused client may read its `AUTH_FAILED` before the connection is closed.
    pub auth_failed_linger: Duration,
    /// Age of a key at which the server starts a rekey (jittered by up to -10 %); `None`: only
    /// near the limits of a key.
    pub rekey_after: Option<Duration>,
    /// Key of the tag by which a rekey recognises the credential of the login.
    pub credential_key: Secret<32>,
    /// True: a rekey's credential is shown to the authenticator once more
    /// ([`Event::RekeyPresented`](super::Event::RekeyPresented)); nothing waits for it.
    pub judge_rekeys: bool,
    /// Bytes that one session may make us hold, and TLS bytes that one engine may be sent.
    pub preauth_bytes: usize,
    /// Longest frame that is accepted; at most [`MAX_FRAME`](crate::proto::wire::MAX_FRAME).
    pub frame_bytes: usize,
}

/// How control packets of a listener are wrapped.
/// Source: OpenVPN ssl_pkt.c; chosen by configuration, never negotiated.
#[derive(Debug)]
pub enum WrapConfig {
    /// Not at all.
    None,
    /// Signed with a shared key.
    TlsAuth {
        /// The shared key.
        key: StaticKey,
        /// The server's direction.
        direction: KeyDirection,
        /// The digest of the signature.
        digest: AuthDigest,
    },
    /// Encrypted with a shared key.
    TlsCrypt {
        /// The shared key.
        key: StaticKey,
    },
    /// Encrypted with a key of each client, which the client sends wrapped.
    TlsCryptV2 {
        /// The key that opens the clients' keys.
        server_key: TlsCryptV2ServerKey,
    },
}
