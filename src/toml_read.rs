//! TOML text → a deserialized value and every problem in it, each with its line.
//!
//! A deserializer stops at its first error. Here the offending key is taken out and the rest is read again,
//! until nothing offends: so that one look at the output mends the whole file.

use std::fmt;
use std::ops::Range;

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue, Deserializer};

/// More problems than these help nobody, and each costs another reading of the whole text.
const MAX_PROBLEMS: usize = 50;

/// One thing that is wrong in the configuration.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Problem {
    /// The key, as a path: `camera.0.fps`. Empty when the file as a whole is meant.
    pub key: String,
    /// Line in the file, from 1, where it is known.
    pub line: Option<usize>,
    /// What is wrong and how to mend it.
    pub message: String,
}

impl Problem {
    /// A problem with a key, its line unknown.
    pub fn new(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            line: None,
            message: message.into(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

/// Reads `text` into a `T`. Keys that offend are left out of the value and named in the problems; a text that is
/// not TOML gives `T::default()` and the syntax errors.
pub fn read<T: DeserializeOwned + Default>(text: &str) -> (T, Vec<Problem>) {
    let (mut document, syntax) = DeTable::parse_recoverable(text);
    if !syntax.is_empty() {
        let problems = syntax.iter().take(MAX_PROBLEMS).map(|e| Problem {
            key: String::new(),
            line: e.span().map(|s| line_of(text, s.start)),
            message: format!("not valid TOML: {}", e.message()),
        });
        return (T::default(), problems.collect());
    }
    let mut problems = Vec::new();
    loop {
        let error = match T::deserialize(Deserializer::from(document.clone())) {
            Ok(value) => {
                problems.sort_by_key(|p: &Problem| p.line);
                return (value, problems);
            }
            Err(e) => e,
        };
        let removed = error.span().and_then(|s| remove_at(document.get_mut(), &s));
        let key = removed.clone().unwrap_or_default();
        let line = error.span().map(|s| line_of(text, s.start));
        problems.push(Problem {
            key,
            line,
            message: explain(error.message()),
        });
        if removed.is_none() || problems.len() == MAX_PROBLEMS {
            return (T::default(), problems);
        }
    }
}

/// Line number, from 1, of a byte offset.
fn line_of(text: &str, offset: usize) -> usize {
    1 + text.as_bytes()[..offset.min(text.len())]
        .iter()
        .filter(|b| **b == b'\n')
        .count()
}

/// Takes out the innermost entry that `span` lies in; returns its path.
fn remove_at(table: &mut DeTable<'_>, span: &Range<usize>) -> Option<String> {
    let mut found = None;
    for (key, value) in table.iter_mut() {
        if let Some(inner) = remove_inside(value, span) {
            return Some(format!("{}.{inner}", key.get_ref()));
        }
        let touches = |s: Range<usize>| s.contains(&span.start);
        if touches(key.span()) || touches(value.span()) {
            found = Some(key.clone());
        }
    }
    let key = found?;
    table.remove(&key);
    Some(key.get_ref().to_string())
}

fn remove_inside(value: &mut Spanned<DeValue<'_>>, span: &Range<usize>) -> Option<String> {
    match value.get_mut() {
        DeValue::Table(table) => remove_at(table, span),
        DeValue::Array(items) => items
            .iter_mut()
            .enumerate()
            .find_map(|(i, item)| Some(format!("{i}.{}", remove_inside(item, span)?))),
        _ => None,
    }
}

/// serde's words, and for an unknown key the nearest known one.
fn explain(message: &str) -> String {
    let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    match (message.starts_with("unknown field"), quoted.split_first()) {
        (true, Some((unknown, known))) => match nearest(unknown, known.iter().copied()) {
            Some(near) => format!("unknown key; did you mean `{near}`?"),
            None => format!("unknown key; known here are {}", known.join(", ")),
        },
        _ => message.to_string(),
    }
}

/// The candidate that was probably meant, if one is near enough.
pub fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .map(|c| (strsim::damerau_levenshtein(word, c), c))
        .filter(|(distance, c)| *distance <= 1 + c.len().max(word.len()) / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, c)| c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, PartialEq, serde::Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Doc {
        name: String,
        camera: Vec<Cam>,
        engine: Engine,
    }
    #[derive(Debug, Default, PartialEq, serde::Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Cam {
        id: String,
        fps: Option<f64>,
    }
    #[derive(Debug, Default, PartialEq, serde::Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Engine {
        threads: u32,
    }

    #[test]
    fn every_problem_is_named_in_one_go_and_the_rest_is_read() {
        let text = "nmae = 'x'\n[engine]\nthreads = 'two'\n[[camera]]\nid = 'a'\n[[camera]]\nid = 'b'\nfsp = 3\nfps = 5.0\n[banana]\nx = 1\n";
        let (doc, problems) = read::<Doc>(text);
        assert_eq!(doc.camera.len(), 2);
        assert_eq!(
            doc.camera[1],
            Cam {
                id: "b".into(),
                fps: Some(5.0)
            }
        );
        let all: Vec<String> = problems.iter().map(|p| p.to_string()).collect();
        let has = |s: &str| assert!(all.iter().any(|p| p.contains(s)), "no `{s}` in {all:#?}");
        has("line 1: nmae: unknown key; did you mean `name`?");
        has("line 3: engine.threads: invalid type");
        has("line 8: camera.1.fsp: unknown key; did you mean `fps`?");
        has("line 10: banana: unknown key; known here are name, camera, engine");
        assert_eq!(all.len(), 4);
    }

    #[test]
    fn syntax_errors_name_their_line() {
        let (_, problems) = read::<Doc>("name = 'a'\ncamera = [\n");
        assert!(
            problems[0].to_string().contains("not valid TOML"),
            "{problems:?}"
        );
        assert_eq!(read::<Doc>("").1, []);
    }

    #[test]
    fn a_section_of_the_wrong_kind_is_named() {
        let (_, problems) = read::<Doc>("[camera]\nid = 'a'\n");
        assert_eq!(problems.len(), 1);
        assert_eq!(problems[0].key, "camera");
    }
}
