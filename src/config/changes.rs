//! What a running concentrator takes over from a configuration that was read again.
//!
//! Every field is named here once, as one that counts from now on or one that needs a restart; a
//! new field does not compile until it has its line. `docs/CONFIG.md`, "Reload", says the same.

use super::{Config, Limits};

/// What comes of reading the configuration again.
#[derive(Debug)]
pub struct Changes {
    /// What the concentrator runs with from now on: what is new, but for what needs a restart.
    pub merged: Config,
    /// Keys that have changed and count from now on.
    pub applied: Vec<&'static str>,
    /// Keys that have changed and count after a restart.
    pub needs_restart: Vec<&'static str>,
}

impl Config {
    /// Compares with a newer configuration, key by key.
    pub fn take_over(&self, newer: Self) -> Changes {
        let Self {
            listeners,
            public_host,
            public_addresses,
            state_dir,
            control_socket,
            control,
            audit,
            authenticator,
            metrics,
            management_address,
            pool,
            tun,
            tls,
            data,
            keepalive,
            allow,
            threads,
            limits,
            store,
            history,
        } = newer;
        let mut keys = Keys::default();
        let now = &mut keys.applied;
        let merged = Self {
            listeners: live("listener", &self.listeners, listeners, now),
            public_host: live("public_host", &self.public_host, public_host, now),
            public_addresses: live(
                "public_addresses",
                &self.public_addresses,
                public_addresses,
                now,
            ),
            tls: super::Tls {
                certificates: live(
                    "tls.certificates",
                    &self.tls.certificates,
                    tls.certificates,
                    now,
                ),
                client_ca: live("tls.client_ca", &self.tls.client_ca, tls.client_ca, now),
                crl: live("tls.crl", &self.tls.crl, tls.crl, now),
            },
            data: super::Data {
                ciphers: live("data.ciphers", &self.data.ciphers, data.ciphers, now),
                rekey_after: live(
                    "data.rekey_after",
                    &self.data.rekey_after,
                    data.rekey_after,
                    now,
                ),
            },
            keepalive: live("keepalive", &self.keepalive, keepalive, now),
            allow: live("isolation.allow", &self.allow, allow, now),
            state_dir: keys.fixed("state_dir", &self.state_dir, &state_dir),
            control_socket: keys.fixed("control_socket", &self.control_socket, &control_socket),
            control: keys.fixed("control", &self.control, &control),
            audit: keys.fixed("audit", &self.audit, &audit),
            authenticator: keys.fixed("authenticator", &self.authenticator, &authenticator),
            metrics: keys.fixed("metrics", &self.metrics, &metrics),
            management_address: keys.fixed(
                "management_address",
                &self.management_address,
                &management_address,
            ),
            pool: keys.fixed("pool", &self.pool, &pool),
            tun: keys.fixed("tun", &self.tun, &tun),
            threads: keys.fixed("threads", &self.threads, &threads),
            limits: limits_of(&self.limits, limits, &mut keys),
            store: keys.fixed("store", &self.store, &store),
            history: keys.fixed("history", &self.history, &history),
        };
        Changes { merged, applied: keys.applied, needs_restart: keys.needs_restart }
    }
}

/// `[limits]`, each field once.
macro_rules! limits {
    ($old:ident, $newer:ident, $keys:ident;
     live: $($live:ident),+; fixed: $($fixed:ident),+ $(,)?) => {{
        let Limits { $($live,)+ $($fixed,)+ } = $newer;
        Limits {
            $($live: live(
                concat!("limits.", stringify!($live)),
                &$old.$live,
                $live,
                &mut $keys.applied,
            ),)+
            $($fixed: $keys.fixed(
                concat!("limits.", stringify!($fixed)),
                &$old.$fixed,
                &$fixed,
            ),)+
        }
    }};
}

fn limits_of(old: &Limits, newer: Limits, keys: &mut Keys) -> Limits {
    limits!(
        old, newer, keys;
        live:
            login_deadline,
            unauthenticated,
            unauthenticated_per_source,
            source_memory,
            handshakes_per_greeter,
            listen_backlog,
            login_bytes,
            login_bytes_total,
            frame_bytes,
            queue_bytes;
        fixed:
            lease_quarantine,
            open_files,
            queue_bytes_total,
            control_connections,
            control_streams,
            dials,
            events,
            control_body_bytes,
    )
}

#[derive(Default)]
struct Keys {
    applied: Vec<&'static str>,
    needs_restart: Vec<&'static str>,
}

impl Keys {
    /// A key that needs a restart: what runs goes on as it is.
    fn fixed<T: PartialEq + Clone>(&mut self, key: &'static str, old: &T, newer: &T) -> T {
        if old != newer {
            self.needs_restart.push(key);
        }
        old.clone()
    }
}

/// A key that counts from now on.
fn live<T: PartialEq>(key: &'static str, old: &T, newer: T, applied: &mut Vec<&'static str>) -> T {
    if *old != newer {
        applied.push(key);
    }
    newer
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn parse(text: &str) -> Config {
        Config::parse(text, Path::new("/nowhere"), &[]).unwrap()
    }

    #[test]
    fn what_needs_a_restart_stays_and_the_rest_counts() {
        let old = parse("");
        let changes = old.take_over(parse(
            r#"
            listen = ["0.0.0.0:9443"]
            public_host = "vpn.example.net"
            public_addresses = ["192.0.2.1"]
            state_dir = "/elsewhere"
            control_socket = "/elsewhere.sock"
            management_address = "100.127.255.1"
            [pool]
            network = "100.64.0.0/10"
            excluded = []
            "#,
        ));
        assert_eq!(changes.applied, ["listener", "public_host", "public_addresses"]);
        assert_eq!(
            changes.needs_restart,
            ["state_dir", "control_socket", "management_address", "pool"]
        );
        assert_eq!(changes.merged.listeners.len(), 1);
        assert_eq!((&changes.merged.pool, &changes.merged.state_dir), (&old.pool, &old.state_dir));
        // Asked again, the answer is the same but for what has been done.
        let again = changes.merged.take_over(changes.merged.clone());
        assert!(again.applied.is_empty() && again.needs_restart.is_empty());
    }

    #[test]
    fn keys_of_sections_are_told_apart() {
        let changes = parse("").take_over(parse(
            r#"
            [data]
            ciphers = ["AES-128-CBC"]
            rekey_after = "1h"
            [keepalive]
            ping = "10s"
            [isolation]
            allow = ["udp/514"]
            [threads]
            greeters = 3
            [tun]
            mtu = 1400
            [limits]
            login_deadline = "10s"
            queue_bytes = "64KiB"
            queue_bytes_total = "64MiB"
            open_files = 5000
            "#,
        ));
        assert_eq!(
            changes.applied,
            [
                "data.ciphers",
                "data.rekey_after",
                "keepalive",
                "isolation.allow",
                "limits.login_deadline",
                "limits.queue_bytes",
            ]
        );
        assert_eq!(
            changes.needs_restart,
            ["tun", "threads", "limits.open_files", "limits.queue_bytes_total"]
        );
    }
}
