//! The audit trail of the real binary: who did what, and what becomes of whoever edits it.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::live::Live;
use crate::{PROGRAM, command, ended};

fn database(live: &Live) -> rusqlite::Connection {
    rusqlite::Connection::open(live.path("state/tunnelhead.db")).unwrap()
}

/// Sends a change with a claimed actor.
fn claim(live: &Live, method: &str, path: &str, actor: &str, body: &Value) -> u16 {
    let body = body.to_string();
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Actor: {actor}\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    live.raw(head.as_bytes()).status
}

fn trail(live: &Live) -> Vec<Value> {
    let reply = live.get("/v1/audit?limit=1000");
    assert_eq!(reply.status, 200, "{}", reply.body);
    reply.json()["items"].as_array().unwrap().clone()
}

/// The verdict of a trail whose concentrator does not run, and whether it is good.
fn offline(state: &Path, heads: &[&str]) -> (bool, String) {
    let mut command = Command::new(PROGRAM);
    command.args(["audit", "verify", "--json", "--state-dir"]).arg(state);
    for head in heads {
        command.args(["--head", head]);
    }
    let (code, out, err) = ended(&command.output().unwrap());
    let verdict: Value = serde_json::from_str(&out).unwrap_or_else(|_| panic!("{out}{err}"));
    assert_eq!(code == 0, verdict["good"].as_bool().unwrap(), "{out}{err}");
    (code == 0, verdict["findings"].to_string())
}

#[test]
fn every_change_and_refusal_is_recorded_with_its_result() {
    let Some(live) = Live::start("every_change_and_refusal_is_recorded_with_its_result", "") else {
        return;
    };
    let secret = json!({"name": "branch-1", "password": "canary-7Q2", "cipher": "AES-256-CBC"});
    assert_eq!(claim(&live, "POST", "/v1/routers", "ci\tjob\u{202e}7", &secret), 201);
    assert_eq!(claim(&live, "POST", "/v1/routers", "", &secret), 409);
    assert_eq!(claim(&live, "PATCH", "/v1/routers/branch-1", "x", &json!({"disabled": true})), 200);
    assert_eq!(claim(&live, "POST", "/v1/nowhere", "x", &json!({})), 404);
    assert_eq!(live.send("DELETE", "/v1/routers/..%2f%0a", None).status, 404);
    assert_eq!(live.send("DELETE", "/v1/routers/branch-1", None).status, 204);
    assert_eq!(live.get("/v1/status").status, 200);
    let all = trail(&live);
    let brief: Vec<(String, Value, Value)> = all
        .iter()
        .map(|one| {
            (
                one["action"].as_str().unwrap().to_owned(),
                one["router"].clone(),
                one["status"].clone(),
            )
        })
        .collect();
    let expected = [
        ("POST /v1/routers", json!("branch-1"), json!(201)),
        ("POST /v1/routers", json!("branch-1"), json!(409)),
        ("PATCH /v1/routers/{name}", json!("branch-1"), json!(200)),
        ("POST ?", Value::Null, json!(404)),
        ("DELETE /v1/routers/{name}", json!("..%2f%0a"), json!(404)),
        ("DELETE /v1/routers/{name}", json!("branch-1"), json!(204)),
    ];
    let expected: Vec<_> = expected
        .into_iter()
        .map(|(action, name, status)| (action.to_owned(), name, status))
        .collect();
    assert_eq!(brief, expected);
    assert_eq!(all[0]["actor"], "ci?job?7");
    assert_eq!((&all[0]["uid"], &all[1]["code"]), (&json!(0), &json!("router_exists")));
    assert!(all[0]["fields"].as_array().unwrap().contains(&json!("password")));
    assert_eq!(all[2]["detail"]["disabled"], "true");
    // The password is nowhere.
    let kept = fs::read(live.path("state/tunnelhead.db-wal")).unwrap_or_default();
    let kept = [kept, fs::read(live.path("state/tunnelhead.db")).unwrap()].concat();
    assert!(!kept.windows(10).any(|part| part == b"canary-7Q2"));
    assert!(!Value::from(all).to_string().contains("canary"));
    // Pages and filters.
    let page = live.get("/v1/audit?limit=2&after=1&router=branch-1").json();
    assert_eq!((page["items"][0]["seq"].as_u64(), page["next"].as_str()), (Some(2), Some("3")));
    assert_eq!(live.get("/v1/audit?uid=77").json()["items"], json!([]));
    for (bad, field) in [("limit=0", "limit"), ("limit=1001", "limit"), ("router=..", "router")] {
        let reply = live.get(&format!("/v1/audit?{bad}"));
        assert_eq!((reply.status, &reply.json()["field"]), (400, &json!(field)), "{bad}");
    }
    let (code, out, _) = live.tunnelhead(&["audit", "list"]);
    assert!(code == 0 && out.starts_with("SEQ ") && out.lines().count() == 7, "{out}");
    let (code, out, _) = live.tunnelhead(&["audit", "verify"]);
    assert!(code == 0 && out.contains("as it was written"), "{out}");
}

#[test]
fn whoever_edits_the_database_is_found_and_a_kill_is_not() {
    let test = "whoever_edits_the_database_is_found_and_a_kill_is_not";
    let Some(mut live) = Live::start(test, "") else { return };
    for number in 0..6 {
        assert_eq!(
            claim(&live, "POST", "/v1/routers", "", &json!({"name": format!("r{number}")})),
            201
        );
    }
    let all = trail(&live);
    let known = format!("{}:{}", all[3]["seq"], all[3]["mac"].as_str().unwrap());
    let text = live.process().text();
    assert!(text.contains("audit trail"), "the head is logged at the start: {text}");
    live.end("KILL");
    let state = live.path("state");
    assert_eq!(offline(&state, &[&known]), (true, "[]".to_owned()));
    let backup = state.with_file_name("backup");
    let copy = |from: &Path, to: &Path| {
        let _ = fs::remove_dir_all(to);
        fs::create_dir(to).unwrap();
        for file in fs::read_dir(from).unwrap().flatten().filter(|file| file.path().is_file()) {
            fs::copy(file.path(), to.join(file.file_name())).unwrap();
        }
    };
    copy(&state, &backup);
    for (sql, wanted) in [
        (
            "UPDATE audit SET line = replace(line, '\"uid\":0', '\"uid\":1') WHERE seq = 3",
            "record 3 ",
        ),
        ("UPDATE audit SET at = at + 1 WHERE seq = 3", "record 3 "),
        ("DELETE FROM audit WHERE seq = 4", "record 4 is missing"),
        ("DELETE FROM audit WHERE seq >= 5", "cut"),
        ("DELETE FROM audit", "cut"),
        (
            "UPDATE audit SET seq = -seq WHERE seq IN (2, 3);
             UPDATE audit SET seq = 2 WHERE seq = -3; UPDATE audit SET seq = 3 WHERE seq = -2",
            "swapped",
        ),
        ("UPDATE audit SET mac = zeroblob(32)", "does not fit"),
    ] {
        copy(&backup, &state);
        database(&live).execute_batch(sql).unwrap();
        let (good, findings) = offline(&state, &[&known]);
        assert!(!good && findings.contains(wanted), "{sql}: {findings}");
    }
    // A head file that goes missing, or is one of an older day with a tail cut to match: the log
    // still knows.
    copy(&backup, &state);
    fs::remove_file(state.join("audit.head")).unwrap();
    assert!(offline(&state, &[]).1.contains("head file is missing"));
    copy(&backup, &state);
    let (good, findings) = offline(&state, &[&known.replace(':', ":0").replace("f", "e")[..66]]);
    assert!(!good && findings.contains("written anew"), "{findings}");
    // A start after a cut does not make it good again: it says so, for good.
    copy(&backup, &state);
    database(&live).execute_batch("DELETE FROM audit WHERE seq >= 5").unwrap();
    live.launch(&[]);
    assert_eq!(claim(&live, "POST", "/v1/routers", "", &json!({"name": "after"})), 201);
    let (code, out, _) = live.tunnelhead(&["audit", "verify"]);
    assert!(code == 1 && out.contains("the trail ended with record 4"), "{out}");
    let last = trail(&live).pop().unwrap();
    assert_eq!(last["seq"], 8);
}

#[test]
fn segments_are_sealed_exported_and_pruned_in_this_order() {
    let test = "segments_are_sealed_exported_and_pruned_in_this_order";
    let Some(mut live) = Live::start(test, "") else { return };
    for number in 0..3 {
        assert_eq!(
            claim(&live, "POST", "/v1/routers", "", &json!({"name": format!("r{number}")})),
            201
        );
    }
    let sealed = live.send("POST", "/v1/audit/segments", None);
    assert_eq!((sealed.status, &sealed.json()["last"]), (201, &json!(3)), "{}", sealed.body);
    let refused = live.send("DELETE", "/v1/audit/segments/1", None);
    assert_eq!((refused.status, &refused.json()["code"]), (409, &json!("segment_not_ready")));
    assert_eq!(live.get("/v1/audit/segments/9").status, 404);
    assert_eq!(live.get("/v1/audit/segments/x").status, 404);
    let dir = live.path("export");
    let dir = dir.to_str().unwrap();
    let (code, out, err) = live.tunnelhead(&["audit", "export", "--dir", dir]);
    assert_eq!(code, 0, "{out}{err}");
    let lines = fs::read_to_string(live.path("export/audit-000001.jsonl")).unwrap();
    assert_eq!(lines.lines().count(), 4);
    let first: Value = serde_json::from_str(lines.lines().nth(1).unwrap()).unwrap();
    assert_eq!((&first["record"]["seq"], first["mac"].as_str().unwrap().len()), (&json!(1), 64));
    let (code, out, err) = live.tunnelhead(&["audit", "prune"]);
    assert!(code == 0 && out.contains("1 segments are pruned"), "{out}{err}");
    assert_eq!(live.get("/v1/audit/segments/1").status, 409);
    // What is left begins behind it, and the whole is still sound.
    assert_eq!(trail(&live)[0]["seq"], 4);
    let (code, out, _) = live.tunnelhead(&["audit", "verify", "--json"]);
    assert_eq!(code, 0, "{out}");
    live.end("TERM");
    assert_eq!(offline(&live.path("state"), &[]), (true, "[]".to_owned()));
    live.launch(&[]);
    assert_eq!(live.tunnelhead(&["audit", "verify"]).0, 0);
    // Nobody else can say that a segment was pruned.
    live.send("POST", "/v1/audit/segments", None);
    live.end("KILL");
    database(&live)
        .execute_batch(
            "DELETE FROM audit WHERE seq <= (SELECT last FROM audit_seals WHERE segment = 2);
             UPDATE audit_seals SET line = replace(line, '\"pruned\":null', '\"pruned\":1')
             WHERE segment = 2",
        )
        .unwrap();
    let (good, findings) = offline(&live.path("state"), &[]);
    assert!(!good && findings.contains("not written by this concentrator"), "{findings}");
}

#[test]
fn verify_says_what_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let line = format!("audit verify --state-dir {}", dir.path().display());
    let (code, _, err) = ended(&command(&line).output().unwrap());
    assert!(code == 1 && err.contains("there is no database"), "{err}");
}
