//! Label and field selectors (C28–C34).

#[cfg(test)]
mod tests;

use super::auth::{Operator, Requirement};
use super::facts::{Facts, Labels, fields_of, labels_of};
use super::status::ApiError;
use crate::resource::ResourceType;
use crate::store::{Key, Object};

/// Bytes of a selector, decoded. What it costs to compare objects with one follows from its size.
pub(super) const MAX_SELECTOR_BYTES: usize = 32 << 10;

/// Requirements of a selector. Each is looked at for every object, and named to whoever decides on the request.
pub(super) const MAX_REQUIREMENTS: usize = 512;

/// What objects a request is about, beside resource, namespace and name.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Selector {
    labels: Vec<LabelRequirement>,
    fields: Vec<FieldRequirement>,
}

/// One term of a label selector.
#[derive(Clone, Debug, PartialEq)]
struct LabelRequirement {
    key: String,
    test: LabelTest,
}

#[derive(Clone, Debug, PartialEq)]
enum LabelTest {
    /// In order: there may be thousands, and they are looked up for every object.
    In(Vec<String>),
    /// In order, as those.
    NotIn(Vec<String>),
    Exists,
    Absent,
    GreaterThan(i64),
    LessThan(i64),
}

/// One term of a field selector.
#[derive(Clone, Debug, PartialEq)]
struct FieldRequirement {
    field: Field,
    value: String,
    equal: bool,
}

/// A field that may be selected by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Name,
    Namespace,
    /// One that the type declares, by its place among them.
    Declared(usize),
}

/// The fields that every resource has.
const NAME: &str = "metadata.name";
const NAMESPACE: &str = "metadata.namespace";

impl Selector {
    /// Reads both selectors of a request.
    ///
    /// # Errors
    ///
    /// 400 when one of them makes no sense, names a field the resource does not declare, or is over
    /// [`MAX_SELECTOR_BYTES`] or [`MAX_REQUIREMENTS`].
    pub(super) fn parse(resource: &ResourceType, labels: &str, fields: &str) -> Result<Self, ApiError> {
        Ok(Selector { labels: parse_labels(labels)?, fields: parse_fields(resource, fields)? })
    }

    /// Returns whether everything is selected.
    pub(super) fn is_everything(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// Returns the only name that can match, if there is only one.
    pub(super) fn single_name(&self) -> Option<&str> {
        self.single(Field::Name)
    }

    /// Returns the only namespace that can match, if there is only one.
    pub(super) fn single_namespace(&self) -> Option<&str> {
        self.single(Field::Namespace)
    }

    fn single(&self, field: Field) -> Option<&str> {
        let mut terms = self.fields.iter().filter(|term| term.field == field && term.equal);
        terms.next().map(|term| term.value.as_str())
    }

    /// Returns whether an object is selected, by what was read of it before.
    pub(super) fn matches(&self, key: &Key, facts: &Facts) -> bool {
        self.matches_labels(&facts.labels) && self.matches_fields(key, &facts.fields)
    }

    /// Returns whether an object is selected. Only what the selector asks for is read.
    ///
    /// # Errors
    ///
    /// When the object is damaged.
    pub(super) fn selects(
        &self,
        resource: &ResourceType,
        key: &Key,
        object: &Object,
    ) -> Result<bool, ApiError> {
        if !self.labels.is_empty() && !self.matches_labels(&labels_of(object)?) {
            return Ok(false);
        }
        let needs_fields = self.fields.iter().any(|term| matches!(term.field, Field::Declared(_)));
        let fields = if needs_fields { fields_of(resource, object)? } else { Vec::new() };
        Ok(self.matches_fields(key, &fields))
    }

    fn matches_labels(&self, labels: &Labels) -> bool {
        self.labels.iter().all(|label| label.matches(labels))
    }

    fn matches_fields(&self, key: &Key, declared: &[String]) -> bool {
        self.fields.iter().all(|term| {
            let value = match term.field {
                Field::Name => key.name(),
                Field::Namespace => key.namespace(),
                Field::Declared(index) => declared.get(index).map_or("", String::as_str),
            };
            (value == term.value) == term.equal
        })
    }
}

/// Returns the name that a field selector asks for, whatever the resource, before anything else is looked at (C19).
pub(super) fn name_in(field_selector: &str) -> Option<String> {
    split_terms(field_selector).into_iter().find_map(|term| {
        let value = term.strip_prefix(NAME)?.strip_prefix('=')?;
        let name = unescape(value.strip_prefix('=').unwrap_or(value))?;
        let is_segment = !matches!(&*name, "" | "." | "..") && !name.contains(['/', '%']);
        is_segment.then_some(name)
    })
}

/// Returns the terms of a label selector for whoever decides on the request (C20). Comparisons of numbers are left out:
/// reviews have no word for them, and without them more is asked for, not less.
pub(super) fn label_requirements(text: &str) -> Vec<Requirement> {
    let terms = parse_labels(text).unwrap_or_default().into_iter();
    terms
        .filter_map(|LabelRequirement { key, test }| {
            let (operator, values) = match test {
                LabelTest::In(values) => (Operator::In, values),
                LabelTest::NotIn(values) => (Operator::NotIn, values),
                LabelTest::Exists => (Operator::Exists, Vec::new()),
                LabelTest::Absent => (Operator::DoesNotExist, Vec::new()),
                LabelTest::GreaterThan(_) | LabelTest::LessThan(_) => return None,
            };
            Some(Requirement { key, operator, values })
        })
        .collect()
}

/// Returns the terms of a field selector for whoever decides on the request (C20).
pub(super) fn field_requirements(text: &str) -> Vec<Requirement> {
    let terms = field_terms(text).unwrap_or_default().into_iter();
    terms
        .map(|(path, equal, value)| Requirement {
            key: path.to_owned(),
            operator: if equal { Operator::In } else { Operator::NotIn },
            values: vec![value],
        })
        .collect()
}

impl LabelRequirement {
    fn matches(&self, labels: &Labels) -> bool {
        let value = labels.get(&self.key);
        let number = || value.and_then(|value| value.parse::<i64>().ok());
        match &self.test {
            LabelTest::In(values) => value.is_some_and(|value| values.binary_search(value).is_ok()),
            LabelTest::NotIn(values) => value.is_none_or(|value| values.binary_search(value).is_err()),
            LabelTest::Exists => value.is_some(),
            LabelTest::Absent => value.is_none(),
            LabelTest::GreaterThan(than) => number().is_some_and(|number| number > *than),
            LabelTest::LessThan(than) => number().is_some_and(|number| number < *than),
        }
    }
}

fn parse_fields(resource: &ResourceType, text: &str) -> Result<Vec<FieldRequirement>, ApiError> {
    let terms = field_terms(text)?;
    let mut requirements = Vec::new();
    for (path, equal, value) in terms {
        let declared = || resource.selectable.iter().map(|field| field.path);
        let field = match path {
            NAME => Field::Name,
            NAMESPACE => Field::Namespace,
            path => match declared().position(|known| known == path) {
                Some(index) => Field::Declared(index),
                None => {
                    let known = [NAME, NAMESPACE].into_iter().chain(declared());
                    let known: Vec<_> = known.map(|path| format!("{path:?}")).collect();
                    let message =
                        format!("{path:?} is not a known field selector: only {}", known.join(", "));
                    return Err(ApiError::bad_request(message));
                }
            },
        };
        requirements.push(FieldRequirement { field, value, equal });
    }
    Ok(requirements)
}

/// Returns the terms of a field selector: path, whether it has to be equal, and value.
fn field_terms(text: &str) -> Result<Vec<(&str, bool, String)>, ApiError> {
    within_bytes("field", text)?;
    let terms: Vec<_> = split_terms(text).into_iter().filter(|term| !term.is_empty()).collect();
    within_requirements("field", terms.len())?;
    let parse = |term| {
        let (path, rest) = find_operator(term).map(|at| str::split_at(term, at))?;
        let (equal, value) = match rest.strip_prefix("!=") {
            Some(value) => (false, value),
            None => (true, rest.strip_prefix("==").or_else(|| rest.strip_prefix('=')).unwrap_or(rest)),
        };
        Some((path, equal, unescape(value)?))
    };
    let parse = |term| {
        parse(term).ok_or_else(|| {
            ApiError::bad_request(format!(
                "unable to parse field selector: invalid selector: '{text}'; can't understand '{term}'"
            ))
        })
    };
    terms.into_iter().map(parse).collect()
}

fn within_bytes(kind: &str, text: &str) -> Result<(), ApiError> {
    match text.len() {
        0..=MAX_SELECTOR_BYTES => Ok(()),
        bytes => Err(ApiError::bad_request(format!(
            "the {kind} selector is too long: {bytes} bytes, the limit is {MAX_SELECTOR_BYTES}"
        ))),
    }
}

fn within_requirements(kind: &str, count: usize) -> Result<(), ApiError> {
    match count {
        0..=MAX_REQUIREMENTS => Ok(()),
        _ => Err(ApiError::bad_request(format!(
            "the {kind} selector has too many requirements: the limit is {MAX_REQUIREMENTS}"
        ))),
    }
}

/// Splits at commas that are not escaped.
fn split_terms(text: &str) -> Vec<&str> {
    let (mut terms, mut start, mut escaped) = (Vec::new(), 0, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b',' => {
                terms.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    terms.push(&text[start..]);
    terms
}

fn find_operator(term: &str) -> Option<usize> {
    let mut escaped = false;
    for (at, byte) in term.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'=' => return Some(at),
            b'!' if term[at + 1..].starts_with('=') => return Some(at),
            _ => {}
        }
    }
    None
}

/// Undoes the escapes `\\`, `\,` and `\=`; there are no others, and these characters do not stand by themselves.
fn unescape(text: &str) -> Option<String> {
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => plain.push(characters.next().filter(|next| matches!(next, '\\' | ',' | '='))?),
            '=' | ',' => return None,
            other => plain.push(other),
        }
    }
    Some(plain)
}

fn parse_labels(text: &str) -> Result<Vec<LabelRequirement>, ApiError> {
    within_bytes("label", text)?;
    let mut parser = LabelParser { rest: text.trim_start() };
    let mut requirements = Vec::new();
    while !parser.rest.is_empty() {
        within_requirements("label", requirements.len() + 1)?;
        let requirement = parser
            .requirement()
            .map_err(|why| ApiError::bad_request(format!("unable to parse requirement: {why}")))?;
        requirements.push(requirement);
    }
    Ok(requirements)
}

struct LabelParser<'a> {
    rest: &'a str,
}

impl<'a> LabelParser<'a> {
    fn requirement(&mut self) -> Result<LabelRequirement, String> {
        if self.take("!") {
            let key = self.key()?;
            self.end()?;
            return Ok(LabelRequirement { key, test: LabelTest::Absent });
        }
        let key = self.key()?;
        let test = if self.rest.is_empty() || self.rest.starts_with(',') {
            LabelTest::Exists
        } else if self.take("!=") {
            LabelTest::NotIn(vec![self.value()?])
        } else if self.take("==") || self.take("=") {
            LabelTest::In(vec![self.value()?])
        } else if self.take(">") {
            LabelTest::GreaterThan(self.number()?)
        } else if self.take("<") {
            LabelTest::LessThan(self.number()?)
        } else {
            match self.word() {
                "in" => LabelTest::In(self.set()?),
                "notin" => LabelTest::NotIn(self.set()?),
                other => {
                    return Err(format!("found '{other}', expected: in, notin, =, ==, !=, gt, lt"));
                }
            }
        };
        self.end()?;
        Ok(LabelRequirement { key, test })
    }

    fn take(&mut self, token: &str) -> bool {
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest.trim_start();
                true
            }
            None => false,
        }
    }

    fn word(&mut self) -> &'a str {
        let is_end = |c: char| c.is_whitespace() || "=!<>,()".contains(c);
        let end = self.rest.find(is_end).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest.trim_start();
        word
    }

    fn key(&mut self) -> Result<String, String> {
        let key = self.word();
        let (prefix, name) = key.rsplit_once('/').unwrap_or(("", key));
        let is_prefix = prefix.split('.').all(|label| {
            !label.is_empty()
                && label
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        });
        if !crate::resource::fits_label(name) || name.is_empty() || (key.contains('/') && !is_prefix) {
            return Err(format!("invalid label key {key:?}"));
        }
        Ok(key.to_owned())
    }

    fn value(&mut self) -> Result<String, String> {
        let value = self.word();
        if !value.is_empty() && !crate::resource::fits_label(value) {
            return Err(format!("invalid label value: {value:?}"));
        }
        Ok(value.to_owned())
    }

    fn number(&mut self) -> Result<i64, String> {
        let value = self.word();
        value
            .parse()
            .map_err(|_| format!("for 'Gt', 'Lt' operators, the value must be an integer: {value:?}"))
    }

    /// Takes values in parentheses, and returns them in order, each once.
    fn set(&mut self) -> Result<Vec<String>, String> {
        if !self.take("(") {
            return Err(format!("found '{}', expected: '('", self.word()));
        }
        let mut values = Vec::new();
        loop {
            values.push(self.value()?);
            if self.take(")") {
                values.sort_unstable();
                values.dedup();
                return Ok(values);
            }
            if !self.take(",") {
                return Err(format!("found '{}', expected: ',', or ')'", self.word()));
            }
        }
    }

    /// Takes the comma behind a requirement, which has to be followed by another.
    fn end(&mut self) -> Result<(), String> {
        if self.rest.is_empty() {
            return Ok(());
        }
        if self.take(",") && !self.rest.is_empty() {
            return Ok(());
        }
        Err(format!("found '{}', expected: ',' or end of the selector", self.rest))
    }
}
