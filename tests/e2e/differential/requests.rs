//! What is asked, and which differences are known: read from two files beside this one.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use super::compare::{Answer, Difference};

/// A request of the table.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ask {
    pub name: String,
    ask: String,
    source: Option<String>,
    with: Option<Value>,
    body: Option<Value>,
    r#as: Option<String>,
    accept: Option<String>,
    agent: Option<String>,
}

/// A difference that may be.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Permitted {
    /// Names of requests, separated by commas; a star stands for anything.
    at: String,
    /// Where in the answer: paths, as the names are.
    what: String,
    /// Why it is so.
    why: String,
}

/// What a server has answered, by the names that requests use for it.
pub struct Memory(BTreeMap<String, String>);

/// Returns the scenes of the table, in its order.
pub fn read_scenes() -> Vec<(String, Vec<Ask>)> {
    let scenes: Vec<BTreeMap<String, Vec<Ask>>> =
        serde_saphyr::from_str(include_str!("requests.yaml")).expect("the table is good");
    scenes.into_iter().flatten().collect()
}

/// Returns the differences that may be.
pub fn read_permitted() -> Vec<Permitted> {
    serde_saphyr::from_str(include_str!("differences.yaml")).expect("the list is good")
}

impl Ask {
    /// Returns method and path.
    pub fn line(&self, memory: &Memory) -> (String, String) {
        let (method, path) = self.ask.split_once(' ').expect("a request has a method and a path");
        let path = memory.fill(path);
        let path = match path.starts_with('/') {
            true => path,
            false => format!("/apis/core.rukpak.io/v1beta1/namespaces/{}/{path}", memory.0["ns"]),
        };
        (method.to_owned(), path)
    }

    /// Returns the body.
    pub fn body(&self, memory: &Memory) -> String {
        let mut body = match (&self.body, &self.source) {
            (Some(Value::String(text)), _) => return memory.fill(text),
            (Some(body), _) => body.clone(),
            (None, None) => return String::new(),
            (None, Some(name)) => json!({
                "apiVersion": "core.rukpak.io/v1beta1", "kind": "CatalogSource",
                "metadata": {"name": name}, "spec": {"image": "example.com/c:v1"},
            }),
        };
        if let Some(with) = &self.with {
            json_patch::merge(&mut body, with);
        }
        memory.fill(&body.to_string())
    }

    /// Returns the headers; those that are empty are not sent.
    pub fn headers(&self) -> Vec<(&'static str, &str)> {
        let has_body = self.body.is_some() || self.source.is_some();
        let content = self.r#as.as_deref().or(has_body.then_some("application/json"));
        let accept = Some(self.accept.as_deref().unwrap_or("application/json"));
        let agent = Some(self.agent.as_deref().unwrap_or("judge/1.0"));
        [("Content-Type", content), ("Accept", accept), ("User-Agent", agent)]
            .into_iter()
            .filter_map(|(name, value)| Some((name, value.filter(|value| !value.is_empty())?)))
            .collect()
    }
}

impl Memory {
    pub fn new(namespace: &str) -> Self {
        Memory(BTreeMap::from([("ns".to_owned(), namespace.to_owned())]))
    }

    /// Puts what was answered in the place of its name.
    fn fill(&self, text: &str) -> String {
        let mut filled = text.to_owned();
        while let Some(start) = filled.find("${") {
            let end = start + filled[start..].find('}').expect("a name ends");
            let name = &filled[start + 2..end];
            let value = self.0.get(name).unwrap_or_else(|| panic!("no answer had `{name}`")).clone();
            filled.replace_range(start..=end, &value);
        }
        filled
    }

    /// Takes what later requests may use from an answer.
    pub fn note(&mut self, answer: &Answer) {
        let Some(body) = answer.body() else { return };
        let metadata = &body["metadata"];
        let mut put = |name: String, value: &Value| {
            if let Some(value) = value.as_str().filter(|value| !value.is_empty()) {
                self.0.insert(name, value.to_owned());
            }
        };
        if let Some(name) = metadata["name"].as_str() {
            put(format!("{name}.rv"), &metadata["resourceVersion"]);
            put(format!("{name}.uid"), &metadata["uid"]);
        } else {
            put("list.rv".to_owned(), &metadata["resourceVersion"]);
            put("continue".to_owned(), &metadata["continue"]);
        }
    }

    /// Returns everything that was answered.
    pub fn values(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }
}

impl Permitted {
    /// Returns whether a difference is this one.
    pub fn matches(&self, request: &str, difference: &Difference) -> bool {
        let is_one_of =
            |patterns: &str, text: &str| patterns.split(',').any(|pattern| matches(pattern.trim(), text));
        is_one_of(&self.at, request) && is_one_of(&self.what, &difference.path)
    }

    pub fn describe(&self) -> String {
        format!("{} {} ({})", self.at, self.what, self.why)
    }
}

/// Returns whether a text is as a pattern says, in which stars stand for anything.
fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((start, rest)) => text.strip_prefix(start).is_some_and(|text| {
            (0..=text.len()).filter(|at| text.is_char_boundary(*at)).any(|at| matches(rest, &text[at..]))
        }),
    }
}
