//! The bytes of a command → what is wanted, or an answer that says what is wrong with them. Pure.

use serde::Deserialize;
use serde_json::{Map, Value};

/// Longer commands are refused.
pub(super) const MAX_BYTES: usize = 16 << 10;
/// Longer ids are refused: answers repeat them, and the memory of answered ids holds them.
const MAX_ID_BYTES: usize = 128;

/// A command's name, given by whoever sent it: a string or an integer, repeated as it came.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(untagged)]
pub(super) enum Id {
    Text(String),
    Number(i64),
}

impl Id {
    fn of(value: &Value) -> Option<Self> {
        match value {
            Value::String(s) if !s.is_empty() && s.len() <= MAX_ID_BYTES => {
                Some(Self::Text(s.clone()))
            }
            Value::Number(n) => n.as_i64().map(Self::Number),
            _ => None,
        }
    }
}

/// What is wanted.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Op {
    /// A sign of life.
    Ping,
    /// What the device is and how its cameras are set.
    Info,
    /// The next frame of a camera, or of each, inferred.
    Infer { camera: Option<String> },
    /// The next frame of a camera as a JPEG.
    Snapshot(SnapshotArgs),
    /// Settings of a camera.
    Set {
        camera: Option<String>,
        settings: Map<String, Value>,
        persist: bool,
    },
    /// The configuration, read again.
    Reload,
    /// The program, started again by whoever supervises it.
    Restart,
}

/// Names of every op, for messages.
pub(super) const OPS: &[&str] = &[
    "ping", "info", "infer", "snapshot", "set", "reload", "restart",
];

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct SnapshotArgs {
    pub camera: Option<String>,
    pub quality: Option<u8>,
    pub max_side_px: Option<u32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct CameraArgs {
    camera: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct NoArgs {}

/// A command that is not obeyed.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Refusal {
    /// The id, where one could be read.
    pub id: Option<Id>,
    pub error: String,
}

/// Reads a command: `{"id":…,"op":…,"args":{…}}`.
pub(super) fn parse(bytes: &[u8]) -> Result<(Id, Op), Refusal> {
    // Whatever else is wrong, its id is looked for, so that the answer finds its asker.
    let nameless = |error: String| Refusal { id: None, error };
    let value: Value = serde_json::from_slice(bytes).map_err(|e| {
        nameless(format!(
            "not valid JSON: {e}; send {{\"id\":…,\"op\":…,\"args\":{{…}}}}"
        ))
    })?;
    let Value::Object(mut command) = value else {
        return Err(nameless(
            "a command is a JSON object: {\"id\":…,\"op\":…,\"args\":{…}}".into(),
        ));
    };
    let Some(id) = command.remove("id").as_ref().and_then(Id::of) else {
        let fix = "a command needs an `id`, a string of 1 to 128 bytes or an integer: its answer repeats it";
        return Err(nameless(fix.into()));
    };
    let refuse = |error: String| Refusal {
        id: Some(id.clone()),
        error,
    };
    if bytes.len() > MAX_BYTES {
        let error = format!(
            "{} bytes are more than a command's {MAX_BYTES}",
            bytes.len()
        );
        return Err(refuse(error));
    }
    let op = match command.remove("op") {
        Some(Value::String(op)) => op,
        Some(_) => return Err(refuse("`op` must be a string".into())),
        None => return Err(refuse(format!("no `op`; there are {}", OPS.join(", ")))),
    };
    let args = match command.remove("args") {
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(args)) => args,
        Some(_) => return Err(refuse("`args` must be an object".into())),
    };
    if let Some(unknown) = command.keys().next() {
        let error = format!("unknown key `{}`; there are id, op, args", short(unknown));
        return Err(refuse(error));
    }
    let op = parse_op(&op, args).map_err(refuse)?;
    Ok((id, op))
}

fn parse_op(op: &str, args: Map<String, Value>) -> Result<Op, String> {
    fn read<T: serde::de::DeserializeOwned>(args: Map<String, Value>) -> Result<T, String> {
        serde_json::from_value(Value::Object(args))
            .map_err(|e| format!("args: {}", short(&e.to_string())))
    }
    Ok(match op {
        "ping" => read::<NoArgs>(args).map(|_| Op::Ping)?,
        "info" => read::<NoArgs>(args).map(|_| Op::Info)?,
        "reload" => read::<NoArgs>(args).map(|_| Op::Reload)?,
        "restart" => read::<NoArgs>(args).map(|_| Op::Restart)?,
        "infer" => Op::Infer {
            camera: read::<CameraArgs>(args)?.camera,
        },
        "snapshot" => Op::Snapshot(read(args)?),
        "set" => parse_set(args)?,
        other => {
            let near = crate::toml_read::nearest(other, OPS.iter().copied());
            let hint = match near {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("there are {}", OPS.join(", ")),
            };
            return Err(format!("unknown op `{}`; {hint}", short(other)));
        }
    })
}

fn parse_set(mut settings: Map<String, Value>) -> Result<Op, String> {
    let camera = match settings.remove("camera") {
        None | Some(Value::Null) => None,
        Some(Value::String(camera)) => Some(camera),
        Some(_) => return Err("args: `camera` must be a camera's id".into()),
    };
    let persist = match settings.remove("persist") {
        None => false,
        Some(Value::Bool(persist)) => persist,
        Some(_) => return Err("args: `persist` must be true or false".into()),
    };
    if settings.is_empty() {
        return Err("args: no setting; such as {\"camera\":\"porch\",\"enter\":0.7}".into());
    }
    Ok(Op::Set {
        camera,
        settings,
        persist,
    })
}

/// What a stranger wrote, so short that an answer stays small.
pub(super) fn short(text: &str) -> String {
    const LIMIT: usize = 200;
    match text.char_indices().nth(LIMIT) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ok(text: &str) -> (Id, Op) {
        parse(text.as_bytes()).unwrap()
    }

    fn refused(text: &str) -> Refusal {
        parse(text.as_bytes()).unwrap_err()
    }

    #[test]
    fn commands() {
        assert_eq!(
            ok(r#"{"id":"a","op":"ping"}"#),
            (Id::Text("a".into()), Op::Ping)
        );
        assert_eq!(
            ok(r#"{"id":7,"op":"info","args":{}}"#),
            (Id::Number(7), Op::Info)
        );
        let infer = Op::Infer {
            camera: Some("porch".into()),
        };
        assert_eq!(
            ok(r#"{"id":"a","op":"infer","args":{"camera":"porch"}}"#).1,
            infer
        );
        let Op::Set {
            settings,
            persist: true,
            ..
        } = ok(r#"{"id":"a","op":"set","args":{"enter":0.7,"persist":true}}"#).1
        else {
            panic!()
        };
        assert_eq!(settings["enter"], 0.7);
    }

    #[test]
    fn what_is_wrong_is_said_to_its_asker() {
        for (text, says) in [
            (r#"{"id":"a"}"#, "no `op`"),
            (r#"{"id":"a","op":"pnig"}"#, "did you mean `ping`?"),
            (r#"{"id":"a","op":["ping"]}"#, "must be a string"),
            (r#"{"id":"a","op":"ping","args":[]}"#, "must be an object"),
            (
                r#"{"id":"a","op":"ping","args":{"x":1}}"#,
                "unknown field `x`",
            ),
            (r#"{"id":"a","op":"ping","arg":{}}"#, "unknown key `arg`"),
            (
                r#"{"id":"a","op":"snapshot","args":{"quality":1000}}"#,
                "args: invalid value",
            ),
            (
                r#"{"id":"a","op":"set","args":{"camera":"b"}}"#,
                "no setting",
            ),
        ] {
            let refusal = refused(text);
            assert_eq!(refusal.id, Some(Id::Text("a".into())), "{text}");
            assert!(refusal.error.contains(says), "{text}: {}", refusal.error);
        }
        for text in [
            "",
            "{",
            "[]",
            "null",
            "\"x\"",
            r#"{"op":"ping"}"#,
            r#"{"id":"","op":"ping"}"#,
            r#"{"id":1.5}"#,
            r#"{"id":null}"#,
        ] {
            assert_eq!(refused(text).id, None, "{text}");
        }
        let long = format!(
            r#"{{"id":"a","op":"ping","args":{{"x":"{}"}}}}"#,
            "x".repeat(MAX_BYTES)
        );
        let refusal = refused(&long);
        assert!(refusal.id.is_some() && refusal.error.contains("more than a command's"));
        assert!(
            refused(&format!(r#"{{"id":"{}"}}"#, "x".repeat(129)))
                .id
                .is_none()
        );
        let deep = format!(
            r#"{{"id":"a","op":"ping","args":{}{}}}"#,
            "[".repeat(9000),
            "]".repeat(9000)
        );
        assert!(refused(&deep).error.contains("recursion limit"));
    }
}
