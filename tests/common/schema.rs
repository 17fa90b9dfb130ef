//! Every message against the published schema.

use serde_json::{Value, json};

use super::mosquitto::Seen;

/// Makes every object of the schema closed: consumers must ignore unknown keys, tests must not.
fn close(schema: &mut Value) {
    match schema {
        Value::Object(m) => {
            if m.contains_key("properties") && !m.contains_key("additionalProperties") {
                m.insert("additionalProperties".into(), json!(false));
            }
            m.values_mut().for_each(close);
        }
        Value::Array(a) => a.iter_mut().for_each(close),
        _ => {}
    }
}

/// Fails with what is wrong, a key that the schema does not know included. `kind` is an entry of its `$defs`: the last part of a topic.
pub fn check(kind: &str, value: &Value) {
    let text = include_str!("../../schema/messages-1.0.json");
    let mut schema: Value = serde_json::from_str(text).unwrap();
    close(&mut schema);
    assert!(schema["$defs"][kind].is_object(), "no schema for {kind}");
    schema["$ref"] = json!(format!("#/$defs/{kind}"));
    let validator = jsonschema::validator_for(&schema).unwrap();
    let errors: Vec<String> = validator
        .iter_errors(value)
        .map(|e| format!("{} at {}", e, e.instance_path()))
        .collect();
    assert!(errors.is_empty(), "{kind}: {errors:?} in {value}");
}

/// A message as it came.
pub fn check_seen(seen: &Seen) {
    let kind = seen.topic.rsplit('/').next().unwrap();
    match kind {
        "status" => check(kind, &json!(seen.text())),
        // `<prefix>/<device>/<camera>/<setting>/state`: one level more than a camera's state.
        "state" if seen.topic.split('/').count() > 4 => check("setting", &json!(seen.text())),
        _ => check(kind, &seen.json()),
    }
}
