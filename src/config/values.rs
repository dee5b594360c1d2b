//! Text forms of single values: durations, sizes, host names, "udp/514".

use std::net::IpAddr;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};

use super::{Allow, Protocol};

/// "20s", "5m", "1h", "7d"; one whole number and one unit.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let wrong =
        || format!("\"{}\" is not a duration; write \"20s\", \"5m\", \"1h\" or \"7d\"", show(text));
    let split = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(split);
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(wrong)
}

/// "64KiB", "64 MiB", "1GiB", "4096B"; one whole number and one unit.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let wrong = || {
        format!("\"{}\" is not a size; write \"64KiB\", \"64MiB\" or a number of bytes", show(text))
    };
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let factor: u64 = match unit.trim() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    number.checked_mul(factor).ok_or_else(wrong)
}

/// "udp/514".
pub(super) fn allow(text: &str) -> Result<Allow, String> {
    let wrong = || format!("\"{}\" is not a port; write \"udp/514\" or \"tcp/443\"", show(text));
    let (protocol, port) = text.split_once('/').ok_or_else(wrong)?;
    let protocol = match protocol {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        _ => return Err(wrong()),
    };
    if !port.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong());
    }
    match port.parse() {
        Ok(port) if port != 0 => Ok(Allow { protocol, port }),
        _ => Err(wrong()),
    }
}

/// An IPv4 network without host bits.
pub(super) fn network(text: &str) -> Result<Ipv4Net, String> {
    match exact_net(text) {
        Some(IpNet::V4(net)) => without_host_bits(IpNet::V4(net)).map(|_| net),
        _ => Err(format!("\"{}\" is not an IPv4 network; write \"100.64.0.0/10\"", show(text))),
    }
}

/// An address or a network of either family.
pub(super) fn peers(text: &str) -> Result<IpNet, String> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(IpNet::from(address));
    }
    let net = exact_net(text).ok_or_else(|| {
        format!(
            "\"{}\" is not an address or a network; write \"10.0.0.5\" or \"10.0.0.0/24\"",
            show(text)
        )
    })?;
    without_host_bits(net)
}

/// Stricter than ipnet's own parser, which reads "010.0.0.0/8" as "10.0.0.0/8"; others read octal.
fn exact_net(text: &str) -> Option<IpNet> {
    let (address, prefix) = text.split_once('/')?;
    let plain =
        prefix.bytes().all(|b| b.is_ascii_digit()) && (prefix == "0" || !prefix.starts_with('0'));
    let prefix = prefix.parse().ok().filter(|_| plain)?;
    IpNet::new(address.parse().ok()?, prefix).ok()
}

fn without_host_bits(net: IpNet) -> Result<IpNet, String> {
    if net.trunc() == net {
        Ok(net)
    } else {
        Err(format!("\"{net}\" has bits behind its prefix; write \"{}\"", net.trunc()))
    }
}

/// A DNS name or an address. It ends up in scripts, so nothing else gets through.
pub(super) fn host(text: &str) -> Result<String, String> {
    if text.parse::<IpAddr>().is_ok() {
        return Ok(text.to_owned());
    }
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    // All digits and dots is an address with a slip in it, not a name.
    let numeric = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    if text.len() <= 253 && !numeric && text.split('.').all(label) {
        return Ok(text.to_ascii_lowercase());
    }
    Err(format!(
        "\"{}\" is not a host name or an address; write \"vpn.example.net\", without a port",
        show(text)
    ))
}

/// An interface name that the kernel takes as it is. Source: `dev_valid_name`.
pub(super) fn interface(text: &str) -> Result<String, String> {
    let good = (1..=15).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        && !text.starts_with(['.', '-']);
    if good {
        return Ok(text.to_owned());
    }
    Err(format!(
        "\"{}\" is not an interface name; use 1 to 15 letters, digits, \"-\", \"_\" and \".\"",
        show(text)
    ))
}

/// A value as it may be shown in a terminal.
pub(super) fn show(text: &str) -> String {
    const SHOWN: usize = 80;
    let mut shown: String = text.chars().take(SHOWN).flat_map(char::escape_default).collect();
    if text.chars().count() > SHOWN {
        shown.push_str("...");
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_number_and_a_unit() {
        assert_eq!(duration("20s"), Ok(Duration::from_secs(20)));
        assert_eq!(duration("5m"), Ok(Duration::from_secs(300)));
        assert_eq!(duration("1h"), Ok(Duration::from_secs(3600)));
        assert_eq!(duration("7d"), Ok(Duration::from_secs(604_800)));
        for bad in [
            "",
            "s",
            "20",
            "-1s",
            "1.5h",
            "20 s",
            "1h30m",
            "20sec",
            "99999999999999999999s",
            "300000000000000d",
        ] {
            assert!(duration(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn sizes_have_binary_units() {
        assert_eq!(size("4096"), Ok(4096));
        assert_eq!(size("64KiB"), Ok(65_536));
        assert_eq!(size("64 MiB"), Ok(67_108_864));
        for bad in
            ["", "KiB", "64KB", "64k", "-1", "99999999999999999999", "18446744073709551615GiB"]
        {
            assert!(size(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn ports_name_their_protocol() {
        assert_eq!(allow("udp/514"), Ok(Allow { protocol: Protocol::Udp, port: 514 }));
        for bad in
            ["514", "udp", "udp/", "udp/0", "udp/65536", "icmp/1", "UDP/514", "udp/+5", "udp/5/6"]
        {
            assert!(allow(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn networks_have_no_host_bits() {
        assert!(network("100.64.0.0/10").is_ok());
        for bad in [
            "100.64.0.1/10",
            "100.64.0.0",
            "100.64.0.0/33",
            "2001:db8::/32",
            "010.0.0.0/8",
            "10.0.0.0/08",
            "10.0.0.0/+8",
            "10.0.0.0/",
        ] {
            assert!(network(bad).is_err(), "{bad:?} was accepted");
        }
        assert!(peers("10.0.0.5").is_ok() && peers("2001:db8::/32").is_ok());
        assert!(peers("10.0.0.5/24").is_err() && peers("lb.example.net").is_err());
    }

    #[test]
    fn hosts_are_names_or_addresses_and_nothing_a_script_could_run() {
        for good in ["vpn.example.net", "VPN", "192.0.2.1", "2001:db8::1", "a-b_c.example"] {
            assert!(host(good).is_ok(), "{good:?} was refused");
        }
        for bad in [
            "",
            "a b",
            "a;b",
            "a\"b",
            "$a",
            "a?b",
            "vpn.example.net:8443",
            "-a",
            "a-.b",
            "a..b",
            "1.2.3",
            "1.2.3.04",
            "[2001:db8::1]",
            "a\nb",
            "\u{e4}.de",
        ] {
            assert!(host(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn interface_names_fit_the_kernel() {
        assert!(interface("tunnelhead0").is_ok());
        for bad in ["", "..", "a/b", "a b", "tun%d", "sixteen-letters-", "-a"] {
            assert!(interface(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn shown_values_are_short_and_printable() {
        let shown = show(&format!("\u{1b}[31m\n{}", "x".repeat(500)));
        assert!(shown.is_ascii() && !shown.contains('\u{1b}') && shown.len() < 200);
    }
}
