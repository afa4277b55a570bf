//! Answers, and what differs between two of them.

use std::fmt;

use http::response::Parts;
use serde_json::{Map, Value, json};

use super::requests::Memory;

/// Headers that clients look at; of the others, no client knows.
const HEADERS: [&str; 10] = [
    "content-type",
    "content-encoding",
    "cache-control",
    "vary",
    "warning",
    "retry-after",
    "location",
    "allow",
    "x-content-type-options",
    "connection",
];

/// Headers whose value is of no use to a comparison.
const PRESENT: [&str; 2] = ["audit-id", "etag"];

/// An answer, as a tree.
pub struct Answer(Value);

/// What two answers do not have in common.
pub struct Difference {
    pub path: String,
    expected: String,
    seen: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: expected {}, seen {}", self.path, self.expected, self.seen)
    }
}

impl Answer {
    pub fn new(head: &Parts, body: &[u8]) -> Self {
        let text = String::from_utf8_lossy(body);
        let mut headers = Map::new();
        for name in HEADERS {
            let values: Vec<_> = head
                .headers
                .get_all(name)
                .iter()
                .map(|value| String::from_utf8_lossy(value.as_bytes()))
                .collect();
            if !values.is_empty() {
                headers.insert(name.to_owned(), values.into());
            }
        }
        for name in PRESENT {
            headers.insert(name.to_owned(), head.headers.contains_key(name).into());
        }
        let is_yaml = head.headers.get("content-type").is_some_and(|value| value == "application/yaml");
        let lines = || -> Option<Value> {
            let lines: Option<Vec<Value>> =
                text.lines().map(|line| serde_json::from_str(line).ok()).collect();
            lines.filter(|lines| lines.iter().all(|line| line["type"].is_string())).map(Value::from)
        };
        let parsed = match is_yaml {
            true => serde_saphyr::from_str(&text).ok(),
            false => serde_json::from_str(&text).ok().or_else(lines),
        };
        let mut answer = Map::new();
        answer.insert("status".to_owned(), head.status.as_u16().into());
        answer.insert("headers".to_owned(), headers.into());
        let is_indented = text.starts_with("{\n");
        answer.insert("indented".to_owned(), (parsed.is_some() && is_indented).into());
        answer.insert("body".to_owned(), parsed.unwrap_or_else(|| text.into_owned().into()));
        Answer(answer.into())
    }

    /// No answer, and why.
    pub fn none(why: &str) -> Self {
        Answer(json!({"failed": why}))
    }

    /// Returns why there was no answer.
    pub fn failure(&self) -> Option<&str> {
        self.0["failed"].as_str()
    }

    /// Returns the body, if it is an object.
    pub fn body(&self) -> Option<&Value> {
        Some(&self.0["body"]).filter(|body| body.is_object())
    }

    /// Returns the answer without what is never the same: times, uids, versions, tokens, ages.
    pub fn normal(mut self, memory: &Memory) -> Self {
        normalise(&mut self.0, "", memory);
        self
    }
}

fn normalise(value: &mut Value, name: &str, memory: &Memory) {
    match value {
        Value::Object(fields) => {
            // No token is as good as an empty one.
            fields.retain(|name, value| name != "continue" || *value != "");
            for (name, value) in fields {
                normalise(value, name, memory);
            }
        }
        Value::Array(items) => {
            items.iter_mut().for_each(|item| normalise(item, name, memory));
            let order = match name {
                // In the order of their times, which may be equal or not.
                "managedFields" => ["manager", "operation", "subresource"],
                // In any order.
                "causes" => ["field", "reason", "message"],
                _ => return,
            };
            items.sort_by_key(|item| order.map(|field| item[field].to_string()));
        }
        Value::String(text) => match name {
            "resourceVersion" | "continue" if !text.is_empty() => *text = name.to_uppercase(),
            "name" if text.starts_with("made-") && text.len() == 10 => *text = "MADE".to_owned(),
            "cells" if is_age(text) => *text = "AGE".to_owned(),
            _ => *text = without_chance(text, memory),
        },
        _ => {}
    }
}

/// Returns whether a cell is the age of something.
fn is_age(text: &str) -> bool {
    text.strip_suffix('s')
        .is_some_and(|number| !number.is_empty() && number.bytes().all(|c| c.is_ascii_digit()))
}

/// Replaces uids, times and versions in a text.
fn without_chance(text: &str, memory: &Memory) -> String {
    let mut text = text.to_owned();
    for (name, value) in memory.values() {
        match name.rsplit_once('.') {
            Some((_, "uid")) => text = text.replace(value, "UID"),
            Some((_, "rv")) if value.len() > 4 => text = text.replace(value, "VERSION"),
            _ => {}
        }
    }
    let is_part = |c: char| c.is_ascii_alphanumeric() || "-:.".contains(c);
    let words: Vec<_> = text.split_inclusive(|c| !is_part(c)).collect();
    let mut replaced = String::new();
    for (number, word) in words.iter().enumerate() {
        let end = word.rfind(is_part).map_or(0, |end| end + 1);
        let (word, rest) = word.split_at(end);
        let before = number.checked_sub(1).map_or("", |number| words[number]);
        replaced.push_str(match word {
            // A generated name.
            word if word.len() == 10 && word.to_lowercase().starts_with("made") => "MADE",
            word if uuid::Uuid::parse_str(word).is_ok() => "UID",
            word if word.parse::<k8s_openapi::jiff::Timestamp>().is_ok() => "TIME",
            word if ["current: ", "("].contains(&before) && word.parse::<u64>().is_ok() => "VERSION",
            word => word,
        });
        replaced.push_str(rest);
    }
    replaced
}

/// Returns what differs between two answers.
pub fn differences(expected: &Answer, seen: &Answer) -> Vec<Difference> {
    let mut found = Vec::new();
    descend("", Some(&expected.0), Some(&seen.0), &mut found);
    found
}

fn descend(path: &str, expected: Option<&Value>, seen: Option<&Value>, found: &mut Vec<Difference>) {
    match (expected, seen) {
        (expected, seen) if expected == seen => {}
        (Some(Value::Object(expected)), Some(Value::Object(seen))) => {
            let names = expected.keys().chain(seen.keys().filter(|name| !expected.contains_key(*name)));
            for name in names {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                descend(&path, expected.get(name), seen.get(name), found);
            }
        }
        (Some(Value::Array(expected)), Some(Value::Array(seen))) => {
            for number in 0..expected.len().max(seen.len()) {
                descend(&format!("{path}[{number}]"), expected.get(number), seen.get(number), found);
            }
        }
        (expected, seen) => {
            let show = |value: Option<&Value>| value.map_or("nothing".to_owned(), Value::to_string);
            found.push(Difference { path: path.to_owned(), expected: show(expected), seen: show(seen) });
        }
    }
}
