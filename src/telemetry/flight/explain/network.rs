//! Strangers, and what happens between the router and us.

use super::{Explanation, Record, SET, Setting, Step};

pub(super) fn explain(
    cause: &'static str,
    record: &Record,
    setting: &Setting<'_>,
) -> Option<Explanation> {
    let port = setting.listener.map_or(8443, |listener| listener.address.port());
    let waited = record.at(Step::End).unwrap_or(0) / 1000;
    Some(match cause {
        "http_on_port" => Explanation::new(
            cause,
            format!(
                "An HTTP client (a browser, a health check, a scanner) called on port {port}; it is \
                 not a router, unless its traffic goes through an HTTP proxy."
            ),
        ),
        "tls_on_port" => Explanation::new(
            cause,
            format!(
                "A TLS client (https, or an SSTP client) called on port {port}, which speaks \
                 OpenVPN: if it is a router, its interface has to be an ovpn-client."
            ),
        )
        .router("/interface print where name~\"tunnelhead\""),
        "proxy_not_listed" => Explanation::new(
            cause,
            format!(
                "A load balancer at {} sent a PROXY header and is not listed in proxy_protocol of \
                 this listener.",
                record.source.ip()
            ),
        )
        .shell("tunnelhead reload"),
        "other_protocol" => Explanation::new(
            cause,
            format!(
                "The peer speaks {}, not OpenVPN; it is not a router.",
                record.looks_like.unwrap_or("another protocol")
            ),
        ),
        "not_openvpn" => {
            Explanation::new(cause, "The peer does not speak OpenVPN over TCP; a scanner, probably.")
        }
        "said_nothing" => Explanation::new(
            cause,
            "The connection was opened and nothing came: a port scan or a health check, or a \
             router whose packets get lost behind the first.",
        ),
        "left_early" | "deadline_first_packet" => Explanation::new(
            cause,
            "The peer sent a few bytes and never a whole first packet; a scanner, probably.",
        ),
        "proxy_header" => Explanation::new(
            cause,
            "The load balancer sent no PROXY header, or a broken one: switch it on there, or take \
             its address out of proxy_protocol.",
        ),
        "left_after_reset" | "deadline_client_hello" => Explanation::new(
            cause,
            "The client said hello and went no further: our answer does not reach it, or it uses \
             another control-channel key (tls-auth, tls-crypt) than this listener.",
        )
        .router("/log print where topics~\"ovpn\""),
        "left_in_tls" | "deadline_in_tls" => Explanation::new(
            cause,
            format!(
                "The TLS handshake began and stopped in the middle{}: something on the way drops \
                 or changes packets.",
                after(cause, waited)
            ),
        )
        .router("/log print where topics~\"ovpn\""),
        "deadline_after_server_certificate" => Explanation::new(
            cause,
            format!(
                "Nothing came for {waited} s after we sent our certificate, the first large \
                 packets of a login: they get lost on the way (MTU), or the router is busy."
            ),
        )
        .router("/ip firewall mangle add chain=output protocol=tcp tcp-flags=syn action=change-mss new-mss=1360"),
        "left_before_key_exchange" | "deadline_key_exchange" => Explanation::new(
            cause,
            "TLS stood, and the client never sent its key exchange with user name and password.",
        )
        .router("/log print where topics~\"ovpn\""),
        "no_push_request" | "left_before_push" => Explanation::new(
            cause,
            format!(
                "The login was right, and the client never asked for its configuration \
                 (PUSH_REQUEST){}: in an OpenVPN file, write \"client\" or \"pull\".",
                after(cause, waited)
            ),
        )
        .router("/log print where topics~\"ovpn\""),
        "left_after_push_reply" | "deadline_push" => Explanation::new(
            cause,
            "The client got its configuration, and the connection ended before its first packet: \
             the router did not like the configuration, or something on the way (a firewall that \
             looks into packets, a small MTU) cut the connection.",
        )
        .router("/log print where topics~\"ovpn\""),
        "key_exchange" => Explanation::new(
            cause,
            "The client's key exchange could not be read; it is a broken client, or no client.",
        ),
        "tls_alert" => Explanation::new(
            cause,
            "The client ended the TLS handshake with an alert: it shares no settings with us, or \
             its certificate store is broken.",
        )
        .router(format!("{SET} tls-version=any")),
        "peer_exit" => Explanation::new(cause, "The client said that it leaves."),
        _ => return None,
    })
}

fn after(cause: &str, seconds: u32) -> String {
    if cause.starts_with("left") { String::new() } else { format!(" for {seconds} s") }
}
