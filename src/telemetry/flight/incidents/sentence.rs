//! An incident in words.

use super::fleet::Strangers;
use super::{Context, EXAMPLES, Group, Incident, Property, Subject};
use crate::telemetry::flight::explain::utc;

/// A group is a burst if nine of ten fell within this time.
const BURST_MS: u64 = 60_000;

pub(super) fn incident(
    group: &Group,
    members: &[Subject],
    total: usize,
    context: &Context<'_>,
) -> Incident {
    let count = members.len();
    let of = if group.property.is_some() { group.population } else { total };
    let recovered = members.iter().filter(|member| member.recovered).count();
    let first_ms = members.iter().map(|member| member.first_ms).min().unwrap_or(0);
    let last_ms = members.iter().map(|member| member.last_ms).max().unwrap_or(0);
    let shared = group.property.as_ref().map(|property| shared(property, context));
    let who = match &shared {
        None => format!("{} of {} routers", number(count), number(of)),
        Some((_, value)) if count == of => format!("All {} routers {value}", number(count)),
        Some((_, value)) => format!("{} of {} routers {value}", number(count), number(of)),
    };
    let (why, command) = explanation(group, members, context);
    let mut sentence = format!("{who} {}: {why}", how(members, recovered));
    if recovered == count {
        sentence.push_str("; all are back");
    } else if recovered > 0 {
        sentence.push_str(&format!("; {} are back", number(recovered)));
    }
    sentence.push('.');
    Incident {
        count,
        of,
        sentence,
        command,
        cause: group.family,
        shared: shared.into_iter().collect(),
        first_ms,
        last_ms,
        recovered,
        examples: members.iter().take(EXAMPLES).map(|member| member.name.clone()).collect(),
    }
}

pub(super) fn strangers(cause: &'static str, strangers: &Strangers) -> Incident {
    let sources = strangers.sources.len();
    let what = match cause {
        "http_on_port" => "HTTP instead of OpenVPN",
        "tls_on_port" => "plain TLS instead of OpenVPN",
        "unknown_user" => "user names that no account has",
        "said_nothing" => "connections without a word",
        "wrap_mismatch" => "first packets that can't be opened",
        "not_openvpn" | "other_protocol" | "left_early" => "something that is not OpenVPN",
        other => other,
    };
    let sentence = format!(
        "{} attempts from {} address{} that no router has used: {what}.",
        number(usize::try_from(strangers.times).unwrap_or(usize::MAX)),
        number(sources),
        if sources == 1 { "" } else { "es" },
    );
    Incident {
        count: usize::try_from(strangers.times).unwrap_or(usize::MAX),
        of: 0,
        sentence,
        command: "tunnelhead logins --unknown".to_owned(),
        cause,
        shared: Vec::new(),
        first_ms: strangers.first_ms,
        last_ms: strangers.last_ms,
        recovered: 0,
        examples: Vec::new(),
    }
}

/// What happened to them and how quickly.
fn how(members: &[Subject], recovered: usize) -> String {
    let mut falls: Vec<u64> = members.iter().filter_map(|member| member.fell_ms).collect();
    falls.sort_unstable();
    let mostly_fell = falls.len() * 2 > members.len();
    let mut starts: Vec<u64> =
        if mostly_fell { falls } else { members.iter().map(|member| member.first_ms).collect() };
    starts.sort_unstable();
    let (span, since) = shortest(&starts);
    let time = if members.len() > 2 && span <= BURST_MS {
        format!("within {} s at {}", span.div_ceil(1000).max(1), clock(since))
    } else {
        format!("since {}", clock(starts.first().copied().unwrap_or(0)))
    };
    match (mostly_fell, recovered == members.len()) {
        (true, _) => format!("fell {time}"),
        (false, true) => format!("could not log in {time}"),
        (false, false) => format!("can't log in, {time}"),
    }
}

/// The shortest time that holds nine of ten: its length and its begin.
fn shortest(sorted: &[u64]) -> (u64, u64) {
    let Some(&first) = sorted.first() else { return (0, 0) };
    let wanted = (sorted.len() * 9).div_ceil(10).max(1);
    sorted
        .windows(wanted)
        .filter_map(|window| Some((window.last()? - window.first()?, *window.first()?)))
        .min()
        .unwrap_or((0, first))
}

/// What they share, as a name for machines and a text for people.
fn shared(property: &Property, context: &Context<'_>) -> (&'static str, String) {
    match property {
        Property::Listener(index) => {
            let listener = context.listeners.get(*index);
            let text = match listener {
                Some((address, wrap)) if *wrap != "none" => {
                    format!("of listener {address} ({wrap})")
                }
                Some((address, _)) => format!("of listener {address}"),
                None => format!("of listener number {index}"),
            };
            ("listener", text)
        }
        Property::Wide(network) => {
            let bits = if network.is_ipv4() { 16 } else { 32 };
            ("source", format!("in {network}/{bits}"))
        }
        Property::Narrow(network) => {
            let bits = if network.is_ipv4() { 24 } else { 48 };
            ("source", format!("in {network}/{bits}"))
        }
        Property::Settings(text) => ("client", format!("with \"{text}\"")),
        Property::Hello(kind) => ("client_hello", format!("with TLS client {kind:08x}")),
        Property::Certificates(_) => {
            ("server_certificate", "that met the new server certificate".to_owned())
        }
        Property::Issuer(issuer) => {
            ("certificate_issuer", format!("with a certificate of issuer {issuer:08x}"))
        }
    }
}

/// Why, and the next command.
fn explanation(group: &Group, members: &[Subject], context: &Context<'_>) -> (String, String) {
    let example = members.first().map_or("NAME", |member| &*member.name);
    let why = format!("tunnelhead why {example}");
    match group.family {
        "server_certificate" => (certificate(context), "tunnelhead doctor".to_owned()),
        "wrap_mismatch" => (
            "their first packets can't be opened, so the control-channel key (tls-auth, tls-crypt) \
             of the listener is not the one they have; compare wrap and wrap_key with the backup"
                .to_owned(),
            "tunnelhead status".to_owned(),
        ),
        "lost" => match &group.property {
            Some(Property::Wide(_) | Property::Narrow(_)) => (
                "their connections were lost, and nobody else's: the network between them and us, \
                 or their provider, is down"
                    .to_owned(),
                why,
            ),
            _ => (
                format!("their connections were lost ({})", causes(members)),
                "tunnelhead doctor".to_owned(),
            ),
        },
        "cipher" => (
            format!(
                "data.ciphers allows only {}, and they use another cipher ({})",
                if context.ciphers.is_empty() { "others".to_owned() } else { context.ciphers.join(", ") },
                causes(members)
            ),
            why,
        ),
        "auth" => (format!("their digest is not allowed ({})", causes(members)), why),
        "authenticator_unavailable" => (
            "the authenticator gives no answer, so nobody new gets in (tunnels that are up stay)"
                .to_owned(),
            "tunnelhead status".to_owned(),
        ),
        "pool_full" => (
            "the address pool is full: enlarge pool.network, or delete routers that are gone"
                .to_owned(),
            "tunnelhead status".to_owned(),
        ),
        "store_degraded" => (
            "no address can be recorded for new routers: the disk is full, read-only or broken"
                .to_owned(),
            "tunnelhead store check".to_owned(),
        ),
        "disabled" => (
            "their accounts are disabled".to_owned(),
            format!("tunnelhead router enable {example}"),
        ),
        "account_removed" => {
            ("their accounts were deleted".to_owned(), "tunnelhead audit list".to_owned())
        }
        "unknown_user" => (
            "no account has their user names: were accounts deleted, or an old backup restored?"
                .to_owned(),
            "tunnelhead router list".to_owned(),
        ),
        "wrong_password" => ("their passwords are wrong: was the state folder replaced?".to_owned(), why),
        "disconnected_by_operator" => {
            ("an operator disconnected them".to_owned(), "tunnelhead audit list".to_owned())
        }
        "stopping" | "shut_down" => {
            ("the concentrator was stopped".to_owned(), "tunnelhead status".to_owned())
        }
        "tls_version_too_old" => (
            "their newest TLS version is too old for their listener; they need one with legacy = true"
                .to_owned(),
            why,
        ),
        "client_certificate_expired" => {
            ("their client certificates have expired".to_owned(), why)
        }
        "client_certificate_unknown_issuer" => (
            "their client certificates come from a CA that is not in tls.client_ca".to_owned(),
            why,
        ),
        "client_certificate_revoked" => {
            ("their client certificates are revoked".to_owned(), why)
        }
        "clone" => ("each is a copy of a router that is logged in".to_owned(), why),
        "back_off" => ("too many failures before; they wait".to_owned(), why),
        "deadline_after_server_certificate" => (
            "nothing comes from them after our certificate: large packets get lost on the way (MTU)"
                .to_owned(),
            why,
        ),
        "left_after_push_reply" | "deadline_push" => (
            "they end the connection when they have their configuration".to_owned(),
            why,
        ),
        other => (format!("the reason is {other}"), why),
    }
}

fn certificate(context: &Context<'_>) -> String {
    match context.certificate {
        Some((end_s, subject)) if end_s <= context.now_ms / 1000 => {
            format!("the server certificate of {subject} expired at {}", clock(end_s * 1000))
        }
        _ => match context.certificates_changed_ms.filter(|at| *at >= context.from_ms) {
            Some(at) => format!(
                "they don't trust the server certificate, which was changed at {}",
                clock(at)
            ),
            None => "they don't trust the server certificate: it expired, was replaced, or their \
                     CA is another one"
                .to_owned(),
        },
    }
}

/// The causes of the members, the most frequent first.
fn causes(members: &[Subject]) -> String {
    let mut counts: Vec<(&str, usize)> = Vec::new();
    for member in members {
        match counts.iter_mut().find(|(cause, _)| *cause == member.cause) {
            Some((_, count)) => *count += 1,
            None => counts.push((member.cause, 1)),
        }
    }
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let names: Vec<&str> = counts.iter().take(3).map(|(cause, _)| *cause).collect();
    names.join(", ")
}

/// The time of day, to the second.
fn clock(ms: u64) -> String {
    let seconds = ms / 1000;
    let day = utc(seconds);
    let day = day.strip_suffix(" UTC").unwrap_or(&day);
    format!("{day}:{:02} UTC", seconds % 60)
}

/// Digits in groups of three.
fn number(value: usize) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
