//! Reload, SIGHUP and doctor over the real binary.

use std::fs;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::live::Live;
use crate::support::eventually;
use crate::support::pki::Authority;

const SOON: Duration = Duration::from_secs(30);

/// The parts that the status calls degraded.
fn degraded(live: &Live) -> Vec<String> {
    let status = live.get("/v1/status").json();
    let parts = status["degraded"].as_array().unwrap().iter();
    parts.map(|one| one["part"].as_str().unwrap().to_owned()).collect()
}

fn hangup(live: &Live) {
    live.process().signal("HUP");
}

#[test]
fn a_reload_says_what_it_did_and_a_bad_file_changes_nothing() {
    let Some(live) = Live::start("reload", "[data]\nciphers = [\"AES-256-GCM\"]") else { return };
    let (code, out, err) = live.tunnelhead(&["reload"]);
    assert_eq!((code, out.as_str(), err.as_str()), (0, "reloaded: nothing has changed\n", ""));

    live.configure("[data]\nciphers = [\"AES-128-GCM\"]\n[tun]\nmtu = 1400");
    let reply = live.send("POST", "/v1/reload", None);
    assert_eq!(reply.status, 200, "{}", reply.body);
    let report = reply.json();
    assert_eq!(report["applied"], json!(["data.ciphers"]));
    assert_eq!(report["needs_restart"], json!(["tun"]));
    assert_eq!(report["tunnels_cut"], 0);

    live.configure("[data]\nciphers = [\"ROT13\"]\n[typo]\nx = 1");
    let reply = live.send("POST", "/v1/reload", None);
    assert_eq!(reply.status, 422, "{}", reply.body);
    let error = reply.json();
    assert_eq!(error["code"], "reload_refused");
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("data.ciphers[0]") && message.contains("typo"), "{message}");
    assert!(degraded(&live).contains(&"reload".to_owned()));
    let (code, out, err) = live.tunnelhead(&["reload"]);
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(err.contains("ROT13") && err.lines().count() == 1, "{err}");

    // The same over the signal; how it went stands in log and status.
    hangup(&live);
    eventually("the refusal in the log", SOON, || {
        (live.process().count(0, "the reload changed nothing") == 3).then_some(())
    });
    live.configure("[data]\nciphers = [\"AES-256-GCM\"]");
    hangup(&live);
    eventually("the end of the trouble", SOON, || {
        (!degraded(&live).contains(&"reload".to_owned())).then_some(())
    });
    assert!(!live.process().ended());
    // A cut-off file is no configuration either.
    let whole = fs::read_to_string(live.path("config.toml")).unwrap();
    fs::write(live.path("config.toml"), &whole[..whole.len() - 10]).unwrap();
    assert_eq!(live.send("POST", "/v1/reload", None).status, 422);
}

fn finding(found: &[Value], check: &str) -> Value {
    let of_check = found.iter().filter(|one| one["check"] == check);
    // The worst of a check counts.
    of_check
        .max_by_key(|one| one["state"] != "ok")
        .unwrap_or_else(|| panic!("{check}: {found:?}"))
        .clone()
}

/// Runs something in the concentrator's namespace.
fn inside(live: &Live, words: &[&str]) -> bool {
    let id = live.process().id().to_string();
    let mut command = Command::new("nsenter");
    command.args(["-t", &id, "-n"]).args(words);
    command.output().is_ok_and(|output| output.status.success())
}

#[test]
fn the_doctor_logs_in_and_finds_planted_faults() {
    let listeners = "[[listener]]\naddress = \"127.0.0.1:0\"\nclient_certificate = \"required\"\n\
                     [[listener]]\naddress = \"127.0.0.1:0\"\nproxy_protocol = [\"127.0.0.0/8\"]\n";
    let folder = tempfile::tempdir().unwrap();
    let authority = folder.path().join("ca.pem");
    fs::write(&authority, Authority::new("Router CA").pem()).unwrap();
    let lines = format!("{listeners}[tls]\nclient_ca = \"{}\"\n", authority.display());
    let Some(live) = Live::start("doctor", &lines) else { return };
    let doctor = || -> Vec<Value> {
        let (code, out, err) = live.tunnelhead(&["doctor", "--json"]);
        assert_eq!(err, "");
        let found: Vec<Value> = serde_json::from_str(&out).unwrap();
        let well = found.iter().all(|one| one["state"] == "ok");
        assert_eq!(code == 0, well, "{out}");
        assert!(found.iter().all(|one| (one["state"] == "ok") == one["advice"].is_null()), "{out}");
        found
    };
    let found = doctor();
    let logins: Vec<&Value> = found.iter().filter(|one| one["check"] == "listener").collect();
    assert_eq!(logins.len(), 3, "{found:?}");
    for (login, words) in
        logins.iter().zip(["reaches its verdict", "client certificate", "reaches its verdict"])
    {
        assert_eq!(login["state"], "ok", "{login}");
        assert!(login["message"].as_str().unwrap().contains(words), "{login}");
    }
    for check in ["tun", "disk", "certificate", "port_range", "rp_filter"] {
        assert_eq!(finding(&found, check)["state"], "ok", "{found:?}");
    }
    // The logins of the doctor are nobody's.
    let status = live.get("/v1/status").json();
    assert_eq!((&status["routers"], &status["tunnels"]), (&json!(0), &json!(0)));

    // Planted faults, each found by its check.
    assert!(inside(&live, &["ip", "link", "set", "tunnelhead0", "mtu", "1300"]));
    assert_eq!(finding(&doctor(), "tun")["state"], "warn");
    assert!(inside(&live, &["sh", "-c", "echo 100 > /proc/sys/net/core/somaxconn"]));
    assert_eq!(finding(&doctor(), "backlog")["state"], "warn");
    if inside(&live, &["nft", "add", "table", "inet", "planted"]) {
        assert!(inside(
            &live,
            &[
                "nft",
                "add chain inet planted closed { type filter hook input priority 0; policy drop; }"
            ],
        ));
        // The loopback is behind that chain, too.
        let found = doctor();
        let firewall = finding(&found, "firewall");
        assert!(firewall["message"].as_str().unwrap().contains("planted"), "{firewall}");
        assert_eq!(finding(&found, "listener")["state"], "fail");
        assert!(inside(&live, &["nft", "delete", "table", "inet", "planted"]));
    }
    assert!(inside(&live, &["ip", "link", "set", "tunnelhead0", "down"]));
    let found = doctor();
    assert_eq!(finding(&found, "tun")["state"], "fail");
    let (code, out, _) = live.tunnelhead(&["doctor"]);
    assert_eq!(code, 1);
    assert!(
        out.lines().any(|line| line.starts_with("FAIL  tun") && line.contains("; do: ")),
        "{out}"
    );
    assert_eq!(out.lines().count(), found.len(), "{out}");
}
