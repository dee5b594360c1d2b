//! How a client behaves: its credentials, its keys, its age and its quirks.

use std::time::Duration;

use tunnelhead_crypto::{
    AuthDigest, DataCipher, KeyDirection, SecretBytes, StaticKey, TlsCryptV2ClientKey,
};

/// How the control channel is wrapped.
#[derive(Debug)]
pub enum ClientWrap {
    /// Not at all.
    None,
    /// Authenticated.
    TlsAuth {
        /// The shared key.
        key: StaticKey,
        /// The client's direction, usually [`KeyDirection::Inverse`].
        direction: KeyDirection,
        /// The digest.
        digest: AuthDigest,
    },
    /// Encrypted with a shared key.
    TlsCrypt {
        /// The shared key.
        key: StaticKey,
    },
    /// Encrypted with a key of the client's own.
    TlsCryptV2 {
        /// The key and its wrapped form for the server.
        key: TlsCryptV2ClientKey,
    },
}

/// When a client starts to send with a new key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SwitchPolicy {
    /// As soon as it has the key.
    Immediately,
    /// This long after the renegotiation began: 60 s in OpenVPN 2.
    After(Duration),
}

/// What sets real clients apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quirks {
    /// Sends a second hard reset with message id 1 (RouterOS 6).
    pub second_reset: bool,
    /// Sends its first TLS bytes right behind the reset, before any answer (RouterOS 7.1).
    pub early_hello: bool,
    /// Repeats acknowledgements that it has sent before, newest first (OpenVPN 2.6).
    pub repeat_acks: bool,
    /// Reads the second word of `ifconfig` as a netmask whatever the topology, and gives up if it
    /// is none (RouterOS).
    pub ifconfig_is_netmask: bool,
    /// Gives up on a push reply that is split (RouterOS 7.1).
    pub no_continuation: bool,
    /// Never finishes connecting if more than 32 routes are pushed (RouterOS 7.20).
    pub stalls_on_routes: bool,
}

/// Settings of a client. The default is an OpenVPN 2.6 client without wrapping or credentials.
#[derive(Debug)]
pub struct ClientConfig {
    /// User name; `None` leaves it out of the message.
    pub username: Option<Vec<u8>>,
    /// Password; `None` leaves it out of the message.
    pub password: Option<SecretBytes>,
    /// Control channel wrapping.
    pub wrap: ClientWrap,
    /// The cipher that it is configured with and uses unless another is pushed.
    pub cipher: DataCipher,
    /// The digest that it is configured with; `None` is `auth=null`, for AEAD ciphers only.
    pub digest: Option<AuthDigest>,
    /// The options string; `None`: the one that fits cipher and digest.
    pub options: Option<String>,
    /// Peer info; `None`: the message ends after the password.
    pub peer_info: Option<String>,
    /// What sets it apart.
    pub quirks: Quirks,
    /// Sends data packets with the peer id once it was given one.
    pub data_v2: bool,
    /// From the key exchange to the first push request.
    pub push_delay: Duration,
    /// Between push requests.
    pub push_interval: Duration,
    /// Most TLS bytes that it puts into one control packet.
    pub max_control_payload: usize,
    /// Sends pings when `ping` was pushed.
    pub pings: bool,
    /// Starts a renegotiation this long after a key became active.
    pub rekey_after: Option<Duration>,
    /// When it sends with a new key.
    pub switch: SwitchPolicy,
    /// Longest time for a key negotiation, and for the push reply after the first.
    pub hand_window: Duration,
    /// How long an old key lives after the next negotiation began.
    pub transition_window: Duration,
    /// Control messages that it has under way at most: 4 before OpenVPN 2.6, then 6.
    pub send_window: usize,
    /// Acknowledgements in an `ACK_V1` at most; other packets hold 4.
    pub max_acks: usize,
    /// Longest frame that it reads, bytes: 1,768 in OpenVPN 2.6.
    pub max_frame: usize,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            username: None,
            password: None,
            wrap: ClientWrap::None,
            cipher: DataCipher::Aes256Gcm,
            digest: Some(AuthDigest::Sha1),
            options: None,
            peer_info: Some(
                "IV_VER=2.6.14\nIV_PLAT=linux\nIV_TCPNL=1\nIV_MTU=1600\nIV_NCP=2\n\
                 IV_CIPHERS=AES-256-GCM:AES-128-GCM:AES-256-CBC\nIV_PROTO=990\n"
                    .to_owned(),
            ),
            quirks: Quirks::default(),
            data_v2: true,
            push_delay: Duration::from_secs(1),
            push_interval: Duration::from_secs(5),
            max_control_payload: 1184,
            pings: true,
            rekey_after: None,
            switch: SwitchPolicy::After(Duration::from_secs(60)),
            hand_window: Duration::from_secs(60),
            transition_window: Duration::from_secs(3600),
            send_window: 4,
            max_acks: 8,
            max_frame: 1768,
        }
    }
}

impl ClientConfig {
    /// The options string that the client sends.
    pub(super) fn options_text(&self) -> String {
        if let Some(options) = &self.options {
            return options.clone();
        }
        let digest = match self.digest {
            Some(digest) if !self.cipher.is_aead() => digest.name(),
            _ => "[null-digest]",
        };
        let wrapped =
            if matches!(self.wrap, ClientWrap::TlsAuth { .. }) { "tls-auth," } else { "" };
        format!(
            "V4,dev-type tun,link-mtu 1559,tun-mtu 1500,proto TCPv4_CLIENT,cipher {},auth {digest},\
             keysize {},{wrapped}key-method 2,tls-client",
            self.cipher.name(),
            self.cipher.key_len() * 8,
        )
    }
}
