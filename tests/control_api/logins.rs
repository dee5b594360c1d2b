//! `/v1/logins`, `/v1/incidents`, and the commands `why`, `logins` and `capture` of the real binary.

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::live::Live;
use crate::support::{eventually, run};

/// Anything that takes milliseconds on an idle machine is done by then.
const SOON: Duration = Duration::from_secs(60);

/// Sends bytes (in `printf` notation) to the listener, from inside its network namespace.
fn knock(live: &Live, bytes: &str) {
    let status = live.get("/v1/status").json();
    let address = status["listeners"][0]["address"].as_str().unwrap().to_owned();
    let (host, port) = address.rsplit_once(':').unwrap();
    let script = format!(
        "exec 3<>/dev/tcp/{host}/{port}; printf '{bytes}' >&3; timeout 5 cat <&3 >/dev/null; true"
    );
    let process = live.process().id().to_string();
    run(Command::new("nsenter").args(["-t", &process, "-n", "bash", "-c", &script]));
}

fn attempts(live: &Live, query: &str) -> Vec<Value> {
    let reply = live.get(&format!("/v1/logins{query}"));
    assert_eq!(reply.status, 200, "{}", reply.body);
    reply.json()["items"].as_array().unwrap().clone()
}

#[test]
fn a_failed_login_is_listed_explained_and_captured() {
    let Some(live) = Live::start("a_failed_login_is_listed_explained_and_captured", "") else {
        return;
    };
    let made = live.send("POST", "/v1/routers", Some(&json!({"name": "branch-42"})));
    assert_eq!(made.status, 201, "{}", made.body);
    let (code, out, err) = live.tunnelhead(&["why", "branch-42"]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.starts_with("branch-42 has not tried to log in since"), "{out}");

    knock(&live, "GET / HTTP/1.1\\r\\n\\r\\n");
    knock(&live, "SSH-2.0-x\\r\\n");
    let all =
        eventually("two attempts", SOON, || Some(attempts(&live, "")).filter(|all| all.len() == 2));
    assert_eq!(all[0]["answer"]["cause"], "other_protocol", "the newest comes first");
    assert_eq!(all[1]["answer"]["cause"], "http_on_port");
    assert_eq!(attempts(&live, "?outcome=http_on_port").len(), 1);
    assert_eq!(attempts(&live, "?unknown=true&source=127.0.0.1").len(), 2);
    assert_eq!(attempts(&live, "?router=branch-42").len(), 0);

    // Pages.
    let page = live.get("/v1/logins?limit=1").json();
    assert_eq!(page["items"].as_array().unwrap().len(), 1);
    let next = page["next"].as_str().unwrap();
    let page = live.get(&format!("/v1/logins?limit=1&after={next}")).json();
    assert_eq!((&page["items"][0]["id"], &page["next"]), (&all[1]["id"], &Value::Null));

    let (code, out, err) = live.tunnelhead(&["logins", "--unknown"]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.contains("http_on_port") && out.lines().count() == 3, "{out}");
    let (code, out, _) = live.tunnelhead(&["why", "--fleet", "--since", "1h"]);
    assert_eq!(code, 0);
    assert!(out.contains("no router has used") && out.contains("next:"), "{out}");
    let (code, out, _) = live.tunnelhead(&["why", "--fleet", "--json"]);
    let incidents: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, incidents.as_array().unwrap().len()), (0, 2));
}

#[test]
fn what_can_not_be_answered_is_refused_in_words() {
    let Some(live) = Live::start("what_can_not_be_answered_is_refused_in_words", "") else {
        return;
    };
    for (path, status, field) in [
        ("/v1/logins?limit=0", 400, "limit"),
        ("/v1/logins?limit=1001", 400, "limit"),
        ("/v1/logins?after=x", 400, "after"),
        ("/v1/incidents?since=0", 400, "since"),
        ("/v1/incidents?since=604801", 400, "since"),
    ] {
        let reply = live.get(path);
        assert_eq!((reply.status, &reply.json()["field"]), (status, &json!(field)), "{path}");
    }
    for path in [
        "/v1/logins?source=nowhere",
        "/v1/logins?colour=red",
        "/v1/incidents?since=1h",
        "/v1/logins/a?x=1",
    ] {
        assert_eq!(live.get(path).status, 400, "{path}");
    }
    let long = "x".repeat(600);
    for name in ["nobody", "..%2f..%2fetc", "a%1b%5b2J", "%E2%80%AE", long.as_str()] {
        for path in [format!("/v1/logins/{name}"), format!("/v1/logins/{name}/capture")] {
            let reply = live.get(&path);
            assert_eq!((reply.status, &reply.json()["code"]), (404, &json!("router_not_found")));
        }
    }
    live.send("POST", "/v1/routers", Some(&json!({"name": "quiet"})));
    let reply = live.get("/v1/logins/quiet/capture");
    assert_eq!((reply.status, &reply.json()["code"]), (404, &json!("not_found")));
    let (code, out, err) = live.tunnelhead(&["why", "nobody"]);
    assert_eq!((code, out.as_str()), (1, ""), "{err}");
    assert!(err.starts_with("error: ") && err.lines().count() == 1, "{err}");
}
