//! Checks, copies, snapshots, restore and recovery of the store, and the history that it keeps.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::PROGRAM;
use crate::live::Live;
use crate::support::eventually;
use crate::support::process::Process;

const SOON: Duration = Duration::from_secs(60);

fn add(live: &Live, name: &str) -> Value {
    let (code, out, err) = live.tunnelhead(&["router", "add", name, "--json"]);
    assert_eq!(code, 0, "{err}");
    serde_json::from_str(&out).unwrap()
}

fn names(live: &Live) -> Vec<String> {
    let list = live.get("/v1/routers").json();
    let items = list["items"].as_array().unwrap().clone();
    items.iter().map(|router| router["name"].as_str().unwrap().to_owned()).collect()
}

fn backups(live: &Live) -> Vec<Value> {
    live.get("/v1/store/backups").json()["items"].as_array().unwrap().clone()
}

fn recovery(live: &Live) -> String {
    let status = live.get("/v1/status").json();
    let parts = status["degraded"].as_array().unwrap();
    let part = parts.iter().find(|part| part["part"] == "recovery");
    part.map(|part| part["reason"].as_str().unwrap().to_owned()).unwrap_or_default()
}

#[test]
fn a_backup_has_a_name_is_sound_and_is_restored_while_nothing_runs() {
    let Some(mut live) = Live::start("backup_and_restore", "[store]\nsnapshots = 0\n") else {
        return;
    };
    add(&live, "a");
    let (code, out, _) = live.tunnelhead(&["store", "check"]);
    assert_eq!((code, out.as_str()), (0, "the store is sound\n"));
    for (body, status, field) in [
        (json!({"name": "../x"}), 422, "name"),
        (json!({"name": "/etc/x"}), 422, "name"),
        (json!({"name": "snapshot-1"}), 422, "name"),
        (json!({"name": "a", "path": "/x"}), 400, "path"),
        (json!({}), 400, "name"),
    ] {
        let reply = live.send("POST", "/v1/store/backup", Some(&body));
        assert_eq!((reply.status, reply.json()["field"].as_str()), (status, Some(field)), "{body}");
    }
    assert_eq!(backups(&live), Vec::<Value>::new());
    let (code, out, err) = live.tunnelhead(&["store", "backup", "before", "--json"]);
    assert_eq!(code, 0, "{err}");
    let made: Value = serde_json::from_str(&out).unwrap();
    let file = PathBuf::from(made["path"].as_str().unwrap());
    assert_eq!(file, live.path("state/backups/before.db").canonicalize().unwrap());
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(backups(&live), [made]);
    let later = add(&live, "b");
    let state = live.path("state");
    let restore = ["store", "restore", file.to_str().unwrap(), "--state-dir"];
    let restore: Vec<&str> = restore.into_iter().chain([state.to_str().unwrap()]).collect();
    let (code, _, err) = live.tunnelhead(&restore);
    assert_eq!(code, 1);
    assert!(err.contains("another tunnelhead process uses this database"), "{err}");
    live.end("TERM");
    let (code, out, err) = live.tunnelhead(&restore);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("1 addresses that were given later rest"), "{out}");
    live.launch(&[]);
    assert_eq!(names(&live), ["a"]);
    assert!(recovery(&live).contains("addresses given after that rest until"));
    assert_eq!(live.tunnelhead(&["store", "check"]).0, 0);
    // The address of b rests for b.
    let address = later["address"].as_str().unwrap();
    let entry = live.get(&format!("/v1/directory?address={address}")).json();
    assert_eq!(entry["router"], "b");
    assert!(entry["until"].is_string(), "{entry}");
    assert_eq!(add(&live, "b")["address"], later["address"]);
}

#[test]
fn snapshots_come_and_go_and_a_damaged_database_is_recovered_from_the_newest() {
    let lines = "[store]\nsnapshots = 2\nsnapshot_every = \"1s\"\n";
    let Some(mut live) = Live::start("recovery", lines) else { return };
    let address = add(&live, "a")["address"].clone();
    let newest = || backups(&live).first().map(|one| one["created"].as_str().unwrap().to_owned());
    let first = eventually("snapshot", SOON, newest);
    // Two more, so that the account is in the newest.
    let second = eventually("later", SOON, || newest().filter(|newest| *newest > first));
    eventually("later still", SOON, || newest().filter(|newest| *newest > second));
    assert!(backups(&live).len() <= 3, "two are kept while the next is made");
    assert!(backups(&live).iter().all(|one| one["kind"] == "snapshot"));
    live.end("KILL");
    let database = live.path("state/tunnelhead.db");
    for file in [&database, &live.path("state/tunnelhead.db-wal")] {
        fs::write(file, vec![0x5A; 65_536]).unwrap();
    }
    let mut command = Command::new("unshare");
    command.args(["-n", PROGRAM, "serve", "--config"]).arg(live.path("config.toml"));
    let mut refused = Process::spawn("serve on a damaged database", &mut command);
    let exit = refused.exit(SOON);
    assert_eq!(exit.and_then(|exit| exit.code()), Some(1), "{}", refused.text());
    assert!(refused.text().contains("tunnelhead serve --recover"), "{}", refused.text());
    live.launch(&["--recover"]);
    assert_eq!(names(&live), ["a"]);
    assert_eq!(live.get("/v1/routers/a").json()["address"], address);
    assert!(recovery(&live).contains("the state is that of"), "{}", recovery(&live));
    let kept: Vec<_> = fs::read_dir(live.path("state"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.contains(".damaged-"))
        .collect();
    assert!(!kept.is_empty(), "the damaged file is kept");
    // An ordinary start from now on, still saying so.
    live.end("TERM");
    live.launch(&[]);
    assert!(recovery(&live).contains("the state is that of"));
}

#[test]
fn the_history_answers_who_had_what_and_refuses_what_it_can_not_read() {
    let Some(live) = Live::start("history", "") else { return };
    let address = add(&live, "a")["address"].as_str().unwrap().to_owned();
    let entry = live.get(&format!("/v1/directory?address={address}")).json();
    assert_eq!((entry["router"].as_str(), &entry["connected"]), (Some("a"), &Value::Bool(false)));
    assert!(entry["until"].is_null());
    let since = entry["since"].as_str().unwrap();
    let then = live.get(&format!("/v1/directory?address={address}&at={since}")).json();
    assert_eq!(then["router"], "a");
    let sessions = live.get("/v1/routers/a/sessions").json();
    assert_eq!((&sessions["items"], &sessions["next"]), (&json!([]), &Value::Null));
    for (path, status, code) in [
        ("/v1/routers/none/sessions", 404, "router_not_found"),
        ("/v1/routers/a/sessions?limit=0", 422, "invalid"),
        ("/v1/routers/a/sessions?limit=1001", 422, "invalid"),
        ("/v1/routers/a/sessions?after=x", 422, "invalid"),
        ("/v1/routers/a/sessions?from=yesterday", 400, "bad_request"),
        ("/v1/routers/a/sessions?colour=red", 400, "bad_request"),
        ("/v1/directory", 400, "bad_request"),
        ("/v1/directory?address=100.64.1", 400, "bad_request"),
        ("/v1/directory?address=100.64.255.254", 404, "router_not_found"),
        ("/v1/store/backups?all", 400, "bad_request"),
    ] {
        let reply = live.get(path);
        assert_eq!((reply.status, reply.json()["code"].as_str()), (status, Some(code)), "{path}");
    }
    let before = live.get(&format!("/v1/directory?address={address}&at=2001-01-01T00:00:00Z"));
    assert_eq!(before.status, 404);
    let (code, out, _) = live.tunnelhead(&["directory", &address]);
    assert!(code == 0 && out.contains("router        a\n"), "{out}");
    let (code, _, err) = live.tunnelhead(&["directory", &address, "--at", "30d"]);
    assert!(code == 1 && err.contains("no router has or had"), "{err}");
    let (code, out, _) = live.tunnelhead(&["router", "sessions", "a"]);
    assert!(code == 0 && out.starts_with("SINCE"), "{out}");
    // A deleted router's address is still his for those who ask.
    assert_eq!(live.send("DELETE", "/v1/routers/a", None).status, 204);
    let entry = live.get(&format!("/v1/directory?address={address}")).json();
    assert_eq!(entry["router"], "a");
    assert!(entry["until"].is_string(), "{entry}");
}
