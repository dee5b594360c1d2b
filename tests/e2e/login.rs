//! Logging in, reaching each other, and everything that ends a tunnel.

use crate::bulk::{self, Way};
use crate::lab::{Lab, ready};
use crate::site::{Router, expect_reachable};
use crate::support::client::LOGIN;
use crate::support::keys::{Keys, Wrap};
use crate::tunnelhead_process::Tunnelhead;
use crate::{mtu, rekey};

/// 100 MB, as bytes.
const MANY: u64 = 100_000_000;
const CBC: &[&str] = &["data-ciphers AES-256-CBC", "cipher AES-256-CBC", "auth SHA256"];

#[test]
fn two_routers_log_in_and_are_shown_and_reached() {
    if !ready("two_routers_log_in_and_are_shown_and_reached") {
        return;
    }
    let lab = Lab::new(2);
    let head = Tunnelhead::start(&lab, "");
    let first = head.add("branch-1", &[]);
    assert_eq!((first.text("name"), first.text("username")), ("branch-1", "branch-1"));
    for key in ["password", "script", "script_v6", "ovpn"] {
        assert!(!first.text(key).is_empty(), "{key} is empty");
    }
    let second = head.add("branch-2", &["--cipher", "aes-256-cbc", "--auth", "sha256"]);
    let gcm = Router::connect(&lab, 0, first.config());
    let cbc = Router::connect(&lab, 1, second.config().lines(CBC));
    for router in [&gcm, &cbc] {
        expect_reachable(&lab, router);
        let octets = router.address.octets();
        assert_eq!(
            (octets[0], octets[1] & 0xc0),
            (100, 64),
            "{} is not of the pool",
            router.address
        );
    }

    let expected = [("branch-1", &gcm, 11, "AES-256-GCM"), ("branch-2", &cbc, 12, "AES-256-CBC")];
    for (name, router, host, cipher) in expected {
        let tunnel = head.tunnel(name).expect("the tunnel is listed");
        assert_eq!(tunnel["address"], router.address.to_string());
        assert_eq!(tunnel["cipher"], cipher);
        let real = tunnel["real_address"].as_str().expect("a real address");
        assert!(real.starts_with(&format!("203.0.113.{host}:")), "{real}");
        assert!(tunnel["auth"].is_string() && tunnel["since"].is_string(), "{tunnel}");
        for key in ["rx_bytes", "tx_bytes"] {
            assert!(tunnel[key].as_u64().expect(key) >= 84, "{key} of {tunnel}");
        }
    }
    assert_eq!(head.tunnel("branch-2").expect("listed")["auth"], "SHA256");
    let status = head.json(&["status"]);
    assert_eq!((&status["ready"], &status["tunnels"]), (&true.into(), &2.into()), "{status}");
}

#[test]
fn iperf3_runs_in_both_directions() {
    if !ready("iperf3_runs_in_both_directions") {
        return;
    }
    let lab = Lab::new(2);
    let head = Tunnelhead::start(&lab, "");
    let gcm = Router::connect(&lab, 0, head.add("gcm", &[]).config());
    let cbc = Router::connect(&lab, 1, head.add("cbc", &[]).config().lines(CBC));
    for router in [&gcm, &cbc] {
        for way in [Way::ToRouter, Way::FromRouter] {
            let bytes = bulk::iperf3(&lab, router, way);
            assert!(bytes > 1_000_000, "{bytes} bytes {way:?}");
        }
    }
}

#[test]
fn a_hundred_megabytes_each_way_with_gcm_are_the_same_bytes() {
    if ready("a_hundred_megabytes_each_way_with_gcm_are_the_same_bytes") {
        many_bytes(&[]);
    }
}

#[test]
fn a_hundred_megabytes_each_way_with_cbc_are_the_same_bytes() {
    if ready("a_hundred_megabytes_each_way_with_cbc_are_the_same_bytes") {
        many_bytes(CBC);
    }
}

fn many_bytes(lines: &[&str]) {
    let lab = Lab::new(1);
    let head = Tunnelhead::start(&lab, "");
    let router = Router::connect(&lab, 0, head.add("branch", &[]).config().lines(lines));
    std::thread::scope(|scope| {
        for way in [Way::ToRouter, Way::FromRouter] {
            let (lab, router) = (&lab, &router);
            scope.spawn(move || bulk::transfer_bytes(lab, router, way, MANY));
        }
    });
    let tunnel = head.tunnel("branch").expect("still up");
    for key in ["rx_bytes", "tx_bytes"] {
        assert!(tunnel[key].as_u64().expect(key) >= MANY, "{key} of {tunnel}");
    }
    assert_eq!(router.client.process.count(0, "Initialization Sequence Completed"), 1);
}

#[test]
fn packets_of_every_size_pass_up_to_the_mtu() {
    if !ready("packets_of_every_size_pass_up_to_the_mtu") {
        return;
    }
    for size in [1280, 1400, 1500] {
        let lab = Lab::new(1);
        let head = Tunnelhead::start(&lab, &format!("[tun]\nmtu = {size}"));
        let router = Router::connect(&lab, 0, head.add("branch", &[]).config());
        mtu::check(&lab, &router, size);
    }
}

#[test]
fn no_inner_byte_is_lost_while_keys_change_with_gcm() {
    if ready("no_inner_byte_is_lost_while_keys_change_with_gcm") {
        rekey_under_load(&[]);
    }
}

#[test]
fn no_inner_byte_is_lost_while_keys_change_with_cbc() {
    if ready("no_inner_byte_is_lost_while_keys_change_with_cbc") {
        rekey_under_load(CBC);
    }
}

fn rekey_under_load(lines: &[&str]) {
    let lab = Lab::new(1);
    let head = Tunnelhead::start(&lab, "");
    let config = head.add("branch", &[]).config().lines(lines).line("reneg-sec 2");
    let router = Router::connect(&lab, 0, config);
    let sent = rekey::datagrams(&lab, &router, 4);
    assert!(sent > 100, "only {sent} datagrams");
    for way in [Way::ToRouter, Way::FromRouter] {
        let bytes = rekey::stream(&lab, &router, way, 2);
        assert!(bytes > 1_000_000, "only {bytes} bytes {way:?}");
    }
    assert_eq!(router.client.process.count(0, "Connection reset"), 0, "the tunnel was lost");
}

#[test]
fn keys_change_when_the_server_asks() {
    if !ready("keys_change_when_the_server_asks") {
        return;
    }
    let lab = Lab::new(1);
    let head = Tunnelhead::start(&lab, "[data]\nrekey_after = \"3s\"");
    let router = Router::connect(&lab, 0, head.add("branch", &[]).config());
    assert!(rekey::datagrams(&lab, &router, 3) > 100);
    assert_eq!(router.client.process.count(0, "Connection reset"), 0, "the tunnel was lost");
}

#[test]
fn the_file_that_is_handed_out_works_with_every_wrapping() {
    if !ready("the_file_that_is_handed_out_works_with_every_wrapping") {
        return;
    }
    let keys = Keys::make();
    for wrap in Wrap::ALL {
        let lab = Lab::new(1);
        let key = keys.server_key(wrap);
        let named = if key.is_some() { "wrap_key = \"wrap.key\"" } else { "" };
        let lines = format!("wrap = \"{}\"\n{named}", wrap.name());
        let head = Tunnelhead::start_with(&lab, &[("wrap.key", key.unwrap_or(""))], &lines);
        let router = Router::connect(&lab, 0, head.add("branch", &[]).config());
        expect_reachable(&lab, &router);
    }
}

#[test]
fn after_a_kill_every_router_has_its_address_again() {
    if !ready("after_a_kill_every_router_has_its_address_again") {
        return;
    }
    let lab = Lab::new(2);
    let mut head = Tunnelhead::start(&lab, "");
    let routers = ["branch-1", "branch-2"].map(|name| head.add(name, &[]).config());
    let routers: Vec<_> = routers
        .into_iter()
        .enumerate()
        .map(|(index, config)| Router::connect(&lab, index, config))
        .collect();
    let marks: Vec<_> = routers.iter().map(|router| router.client.process.mark()).collect();
    head.kill_and_restart();
    for (router, mark) in routers.iter().zip(marks) {
        router.client.process.expect_line(mark, LOGIN, "Initialization Sequence Completed");
        assert_eq!(
            (router.client.address(), router.client.gateway()),
            (router.address, router.gateway)
        );
        expect_reachable(&lab, router);
    }
    for name in ["branch-1", "branch-2"] {
        let sessions = head.json(&["router", "sessions", name]);
        assert_eq!(sessions[0]["until"], serde_json::Value::Null, "{sessions}");
        assert_eq!(sessions[1]["reason"], "process_ended", "{sessions}");
        assert!(sessions[1]["until"].as_str() <= sessions[0]["since"].as_str(), "{sessions}");
        assert!(sessions[0]["id"].as_u64() > sessions[1]["id"].as_u64(), "{sessions}");
    }
}

#[test]
fn a_cut_tunnel_comes_back_unless_the_account_is_disabled() {
    if !ready("a_cut_tunnel_comes_back_unless_the_account_is_disabled") {
        return;
    }
    let lab = Lab::new(2);
    let head = Tunnelhead::start(&lab, "");
    let account = head.add("cut", &[]);
    let cut = Router::connect(&lab, 0, account.config());
    let other = Router::connect(&lab, 1, head.add("other", &[]).config());
    let (mark, other_mark) = (cut.client.process.mark(), other.client.process.mark());

    head.run(&["tunnel", "disconnect", "cut"]);
    cut.client.process.expect_line(mark, LOGIN, "Initialization Sequence Completed");
    assert_eq!(cut.client.address(), cut.address);
    expect_reachable(&lab, &cut);

    let mark = cut.client.process.mark();
    head.run(&["router", "disable", "cut"]);
    let refused = |line: &str| line.contains("AUTH_FAILED");
    assert!(cut.client.process.line_after(mark, LOGIN, refused).is_ok(), "not refused");
    assert!(head.tunnel("cut").is_none(), "a disabled router has a tunnel");
    assert!(lab.concentrator.ping("-c 1 -W 0.5", cut.address).is_err());

    head.run(&["router", "enable", "cut"]);
    let again = Router::connect(&lab, 0, account.config());
    assert_eq!(again.address, cut.address);
    expect_reachable(&lab, &other);
    assert_eq!(other.client.process.count(other_mark, "Initialization Sequence"), 0, "disturbed");
}
