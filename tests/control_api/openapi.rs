//! The committed OpenAPI document is what the program says, and what it says breaks no promise.
//!
//! `UPDATE_OPENAPI=1 cargo test --all-features --test control_api openapi` writes docs/openapi.json
//! anew, unless a client of the committed one could break; `UPDATE_OPENAPI=breaking` does it even
//! then.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::command;

fn generated() -> Value {
    let output = command("openapi").output().unwrap();
    assert!(output.status.success());
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn the_committed_document_is_what_the_program_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/openapi.json");
    let ours = generated();
    let text = fs::read_to_string(&path).unwrap_or_else(|_| "{}".to_owned());
    let committed: Value = serde_json::from_str(&text).unwrap();
    let broken = broken_promises(&committed, &ours);
    let update = std::env::var("UPDATE_OPENAPI").unwrap_or_default();
    assert!(
        broken.is_empty() || update == "breaking",
        "clients of docs/openapi.json would break:\n{}",
        broken.join("\n")
    );
    if !update.is_empty() {
        fs::write(&path, format!("{ours:#}\n")).unwrap();
    } else {
        assert!(
            committed == ours,
            "docs/openapi.json is not what the program says; run\n  \
             UPDATE_OPENAPI=1 cargo test --all-features --test control_api openapi"
        );
    }
}

#[test]
fn every_operation_is_described_and_names_its_role() {
    let ours = generated();
    let mut operations = 0;
    for (path, item) in ours["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            operations += 1;
            let role = operation["x-role"].as_str().unwrap_or_default();
            assert!(["read", "operate", "admin"].contains(&role), "{method} {path}: {role:?}");
            let summary = operation["summary"].as_str().unwrap_or_default();
            assert!(!summary.is_empty(), "{method} {path} has no summary");
            let refusal = &operation["responses"]["default"];
            assert!(refusal.is_object(), "{method} {path} does not describe its refusals");
        }
    }
    assert!(operations >= 10, "{operations}");
}

/// What a client of `old` relies on and `new` does not hold.
fn broken_promises(old: &Value, new: &Value) -> Vec<String> {
    let mut broken = Vec::new();
    for (path, item) in old["paths"].as_object().into_iter().flatten() {
        for (method, was) in item.as_object().into_iter().flatten() {
            let place = format!("{method} {path}");
            let is = &new["paths"][path][method];
            if is.is_null() {
                broken.push(format!("{place} is gone"));
                continue;
            }
            parameters(&place, was, is, &mut broken);
            let body = |operation: &Value| content(&operation["requestBody"]);
            if let (Some(was), Some(is)) = (body(was), body(is)) {
                accepted(&format!("{place} body"), old, &was, new, &is, &mut broken, 0);
            } else if body(was).is_none() && is["requestBody"]["required"] == json!(true) {
                broken.push(format!("{place} needs a body now"));
            }
            for (status, was) in was["responses"].as_object().into_iter().flatten() {
                let is = &is["responses"][status];
                if is.is_null() {
                    broken.push(format!("{place} answers {status} no more"));
                } else if let (Some(was), Some(is)) = (content(was), content(is)) {
                    given(&format!("{place} {status}"), old, &was, new, &is, &mut broken, 0);
                }
            }
        }
    }
    broken
}

fn content(part: &Value) -> Option<Value> {
    let media = part["content"].as_object()?.values().next()?;
    Some(media["schema"].clone())
}

fn parameters(place: &str, was: &Value, is: &Value, broken: &mut Vec<String>) {
    let all = |operation: &Value| operation["parameters"].as_array().cloned().unwrap_or_default();
    let same = |a: &Value, b: &Value| a["name"] == b["name"] && a["in"] == b["in"];
    let (was, is) = (all(was), all(is));
    for parameter in &was {
        if !is.iter().any(|other| same(parameter, other)) {
            broken.push(format!("{place} takes no parameter {} any more", parameter["name"]));
        }
    }
    for parameter in &is {
        let needed = parameter["required"] == json!(true);
        let before = was.iter().find(|other| same(parameter, other));
        if needed && before.is_none_or(|before| before["required"] != json!(true)) {
            broken.push(format!("{place} needs the parameter {} now", parameter["name"]));
        }
    }
}

fn resolved<'d>(document: &'d Value, schema: &'d Value) -> &'d Value {
    match schema["$ref"].as_str().and_then(|path| path.strip_prefix('#')) {
        Some(path) => document.pointer(path).unwrap_or(&Value::Null),
        None => schema,
    }
}

/// Properties and the names of the needed ones, those of `allOf` included.
fn members(document: &Value, schema: &Value) -> (serde_json::Map<String, Value>, Vec<Value>) {
    let schema = resolved(document, schema);
    let mut properties = schema["properties"].as_object().cloned().unwrap_or_default();
    let mut required = schema["required"].as_array().cloned().unwrap_or_default();
    for part in schema["allOf"].as_array().into_iter().flatten() {
        let (more, needed) = members(document, part);
        properties.extend(more);
        required.extend(needed);
    }
    (properties, required)
}

fn same_kind(place: &str, was: &Value, is: &Value, broken: &mut Vec<String>) {
    for key in ["type", "format"] {
        if was[key] != is[key] {
            broken.push(format!("{place} was {} and is {}", was[key], is[key]));
        }
    }
}

/// What clients send must still be understood.
fn accepted(
    place: &str,
    old: &Value,
    was: &Value,
    new: &Value,
    is: &Value,
    broken: &mut Vec<String>,
    depth: usize,
) {
    let (was, is) = (resolved(old, was), resolved(new, is));
    same_kind(place, was, is, broken);
    for word in was["enum"].as_array().into_iter().flatten() {
        if !is["enum"].as_array().is_some_and(|words| words.contains(word)) {
            broken.push(format!("{place} takes {word} no more"));
        }
    }
    let ((was, was_needed), (is, is_needed)) = (members(old, was), members(new, is));
    for (name, was) in &was {
        match is.get(name) {
            None => broken.push(format!("{place} takes no {name} any more")),
            Some(is) if depth < 8 => {
                accepted(&format!("{place}.{name}"), old, was, new, is, broken, depth + 1);
            }
            Some(_) => {}
        }
    }
    for name in is_needed.iter().filter(|name| !was_needed.contains(name)) {
        broken.push(format!("{place} needs {name} now"));
    }
}

/// What clients read must still be there.
fn given(
    place: &str,
    old: &Value,
    was: &Value,
    new: &Value,
    is: &Value,
    broken: &mut Vec<String>,
    depth: usize,
) {
    let (was, is) = (resolved(old, was), resolved(new, is));
    same_kind(place, was, is, broken);
    if depth < 8 && was["items"].is_object() {
        given(&format!("{place}[]"), old, &was["items"], new, &is["items"], broken, depth + 1);
    }
    let ((was, was_there), (is, is_there)) = (members(old, was), members(new, is));
    for (name, was) in &was {
        match is.get(name) {
            None => broken.push(format!("{place} gives no {name} any more")),
            Some(is) if depth < 8 => {
                given(&format!("{place}.{name}"), old, was, new, is, broken, depth + 1);
            }
            Some(_) => {}
        }
    }
    for name in was_there.iter().filter(|name| !is_there.contains(name)) {
        broken.push(format!("{place} may leave out {name} now"));
    }
}

#[test]
fn changes_that_break_a_client_are_found() {
    let document = |operation: Value, thing: Value| json!({"paths": {"/v1/x": {"get": operation}}, "components": {"schemas": {"Thing": thing}}});
    let operation = json!({
        "parameters": [{"name": "a", "in": "query", "required": false}],
        "requestBody": {"content": {"j": {"schema": {"$ref": "#/components/schemas/Thing"}}}},
        "responses": {"200": {"content": {"j": {"schema": {"$ref": "#/components/schemas/Thing"}}}}},
    });
    let thing = json!({"type": "object", "required": ["n"], "properties": {
        "n": {"type": "integer"}, "w": {"type": "string", "enum": ["a", "b"]}}});
    let old = document(operation.clone(), thing.clone());
    assert!(broken_promises(&old, &old).is_empty());

    // What only adds breaks nobody.
    let mut more = thing.clone();
    more["properties"]["m"] = json!({"type": "string"});
    more["properties"]["w"]["enum"] = json!(["a", "b", "c"]);
    assert!(broken_promises(&old, &document(operation.clone(), more)).is_empty());

    let changed = |change: &dyn Fn(&mut Value, &mut Value)| {
        let (mut operation, mut thing) = (operation.clone(), thing.clone());
        change(&mut operation, &mut thing);
        broken_promises(&old, &document(operation, thing)).join("; ")
    };
    for (found, expected) in [
        (changed(&|o, _| *o = Value::Null), "get /v1/x is gone"),
        (changed(&|o, _| o["parameters"] = json!([])), "takes no parameter \"a\""),
        (
            changed(&|o, _| o["parameters"][0]["required"] = json!(true)),
            "needs the parameter \"a\"",
        ),
        (changed(&|o, _| o["responses"] = json!({})), "answers 200 no more"),
        (changed(&|_, t| t["required"] = json!([])), "may leave out \"n\""),
        (changed(&|_, t| t["required"] = json!(["n", "w"])), "body needs \"w\""),
        (changed(&|_, t| t["properties"]["n"]["type"] = json!("string")), "was \"integer\""),
        (changed(&|_, t| t["properties"]["w"]["enum"] = json!(["a"])), "takes \"b\" no more"),
        (
            changed(&|_, t| {
                t["properties"].as_object_mut().unwrap().remove("w");
            }),
            "gives no w",
        ),
    ] {
        assert!(found.contains(expected), "{expected}: {found}");
    }
}
