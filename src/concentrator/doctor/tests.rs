use super::*;
use crate::control_api::types::FindingState::{self, Fail, Ok as Fine, Warn};

const NOW: u64 = BUILT_AFTER + 100 * DAY;

fn served() -> Served {
    Served {
        subject: "vpn".into(),
        key: "RSA 2048".into(),
        not_after: NOW + 90 * DAY,
        tls: "TLSv1.3".into(),
        verdict: true,
    }
}

fn certificate_until(not_after: u64) -> CertificateStatus {
    CertificateStatus {
        subject: "vpn".into(),
        key: "RSA 2048".into(),
        not_before: Timestamp(BUILT_AFTER),
        not_after: Timestamp(not_after),
    }
}

fn crl_due(due: u64) -> CrlStatus {
    CrlStatus {
        issuer: "\"CA\"".into(),
        last_update: Timestamp(BUILT_AFTER),
        next_update: Some(Timestamp(due)),
        revoked: 3,
    }
}

/// A machine in order.
fn well() -> Facts {
    Facts {
        now: NOW,
        synchronised: Some(true),
        descriptors: Some(1 << 20),
        open: Some(300),
        tunnels: 200,
        routers: 1000,
        somaxconn: Some(4096),
        backlog: 4096,
        disk: Ok(Disk {
            path: "/var/lib/tunnelhead".into(),
            free_bytes: 10 << 30,
            free_inodes: 100_000,
            inodes: 200_000,
            not_writable: None,
        }),
        certificates: vec![certificate_until(NOW + 90 * DAY)],
        crls: vec![crl_due(NOW + DAY)],
        forwarding: Some(false),
        rp_filter: Some(1),
        port_range: Some((32_768, 60_999)),
        dials: 1000,
        tun: Tun {
            name: "tunnelhead0".into(),
            kernel: true,
            trouble: None,
            mtu: 1500,
            mtu_found: Some(1500),
            queues: 2,
            queues_found: Some(2),
        },
        firewall: Ok(Vec::new()),
        iptables: false,
        listeners: vec![Listened {
            address: "0.0.0.0:8443".parse().unwrap(),
            outcome: Ok(served()),
        }],
        degraded: Vec::new(),
    }
}

fn chain(hook: &'static str, drops: bool) -> Chain {
    Chain { family: "inet", table: "filter".into(), name: "input".into(), hook, drops }
}

#[test]
fn a_machine_in_order_needs_nothing() {
    let found = diagnose(&well());
    assert!(found.iter().all(|one| one.state == Fine && one.advice.is_none()), "{found:#?}");
    let checks: Vec<&str> = found.iter().map(|one| one.check.as_str()).collect();
    assert_eq!(
        checks,
        [
            "descriptors",
            "backlog",
            "clock",
            "disk",
            "certificate",
            "crl",
            "forwarding",
            "rp_filter",
            "port_range",
            "tun",
            "firewall",
            "listener",
        ]
    );
}

#[test]
fn each_fault_is_found_by_its_check_and_says_what_to_do() {
    type Break = fn(&mut Facts);
    let table: &[(Break, &str, FindingState, &str)] = &[
        (|f| f.descriptors = Some(1024), "descriptors", Warn, "too few for 1000 routers"),
        (|f| f.open = Some(1 << 20), "descriptors", Fail, "logins stop"),
        (|f| f.descriptors = None, "descriptors", Warn, "can not be read"),
        (|f| f.somaxconn = Some(128), "backlog", Warn, "to 128"),
        (|f| f.now = 0, "clock", Fail, "which can not be"),
        (|f| f.now = NOW + 60 * YEAR, "clock", Fail, "which can not be"),
        (|f| f.synchronised = Some(false), "clock", Warn, "nothing keeps it right"),
        (|f| f.disk = Err("no such file".into()), "disk", Fail, "no such file"),
        (|f| f.disk.as_mut().unwrap().free_bytes = 1 << 20, "disk", Warn, "1 MiB"),
        (|f| f.disk.as_mut().unwrap().free_inodes = 5, "disk", Warn, "5 inodes"),
        (
            |f| f.disk.as_mut().unwrap().not_writable = Some("read-only".into()),
            "disk",
            Fail,
            "read-only",
        ),
        (|f| f.certificates = vec![certificate_until(NOW)], "certificate", Fail, "has ended"),
        (
            |f| f.certificates = vec![certificate_until(NOW + 6 * DAY)],
            "certificate",
            Warn,
            "ends in 6 days",
        ),
        (
            |f| f.certificates[0].not_before = Timestamp(NOW + 1),
            "certificate",
            Fail,
            "begins only at",
        ),
        (|f| f.crls = vec![crl_due(NOW)], "crl", Warn, "due for renewal"),
        (|f| f.tun.trouble = Some("the route is gone".into()), "rp_filter", Fail, "strict"),
        (|f| f.port_range = Some((50_000, 50_100)), "port_range", Warn, "too few for 1000"),
        (|f| f.tun.trouble = Some("it is down".into()), "tun", Fail, "it is down"),
        (|f| f.tun.mtu_found = Some(1400), "tun", Warn, "MTU 1400 instead of 1500"),
        (|f| f.tun.queues_found = Some(1), "tun", Warn, "1 queues instead of 2"),
        (|f| f.firewall = Ok(vec![chain("input", true)]), "firewall", Warn, "drops on input"),
        (|f| f.firewall = Err("no right".into()), "firewall", Warn, "no right"),
        (|f| f.iptables = true, "firewall", Warn, "old iptables"),
        (
            |f| f.listeners[0].outcome = Err("connection refused".into()),
            "listener",
            Fail,
            "connection refused",
        ),
        (
            |f| {
                let old = Served { not_after: NOW, ..served() };
                f.listeners[0].outcome = Ok(old);
            },
            "listener",
            Fail,
            "0.0.0.0:8443",
        ),
        (
            |f| {
                let reason = "a bad file".to_owned();
                f.degraded = vec![Degraded { part: "reload".into(), reason }];
            },
            "reload",
            Warn,
            "a bad file",
        ),
    ];
    for (index, (break_it, check, state, words)) in table.iter().enumerate() {
        let mut facts = well();
        break_it(&mut facts);
        let found = diagnose(&facts);
        let hit = found.iter().find(|one| one.check == *check && one.state == *state);
        let hit = hit.unwrap_or_else(|| panic!("row {index}, {check}: {found:#?}"));
        assert!(hit.message.contains(words), "row {index}: {hit:?}");
        assert!(hit.advice.as_ref().is_some_and(|advice| !advice.is_empty()), "row {index}");
    }
}

#[test]
fn what_only_looks_like_a_fault_is_none() {
    type Change = fn(&mut Facts);
    let table: &[Change] = &[
        |f| f.firewall = Ok(vec![chain("input", false), chain("forward", true)]),
        |f| f.forwarding = Some(true),
        |f| f.rp_filter = Some(2),
        |f| f.synchronised = None,
        |f| f.disk.as_mut().unwrap().inodes = 0,
        |f| (f.tun.kernel, f.tun.queues_found) = (false, None),
        |f| f.crls[0].next_update = None,
        |f| f.crls.clear(),
        |f| f.listeners[0].outcome = Ok(Served { verdict: false, ..served() }),
        |f| (f.somaxconn, f.port_range, f.rp_filter) = (None, None, None),
    ];
    for (index, change) in table.iter().enumerate() {
        let mut facts = well();
        change(&mut facts);
        let found = diagnose(&facts);
        assert!(found.iter().all(|one| one.state == Fine), "row {index}: {found:#?}");
    }
}
