//! What a client is told beside the result of a write: `Warning` headers (C196).

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use axum::http::{HeaderMap, HeaderValue, header};

/// Characters of all warnings of an answer; where there are more, each is cut short.
const MAX_TOTAL: usize = 4096;

/// Characters of a warning that is cut short.
const MAX_SHORTENED: usize = 256;

/// The warnings of one request. A write that is tried again says the same again, which is heard once.
#[derive(Debug, Default)]
pub(in crate::api) struct Warnings(Mutex<Vec<String>>);

impl Warnings {
    /// Adds a warning.
    pub(super) fn add(&self, text: impl Into<String>) {
        let text = text.into();
        let mut warnings = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !text.is_empty() && !warnings.contains(&text) {
            warnings.push(text);
        }
    }

    /// Adds the warnings to the headers of an answer.
    pub(in crate::api) fn write(self, headers: &mut HeaderMap) {
        for warning in shortened(self.0.into_inner().unwrap_or_else(PoisonError::into_inner)) {
            let quoted: String = warning.chars().flat_map(escape).collect();
            if let Ok(value) = HeaderValue::try_from(format!("299 - \"{quoted}\"")) {
                headers.append(header::WARNING, value);
            }
        }
    }
}

/// Returns the warnings as far as there is room for them.
fn shortened(warnings: Vec<String>) -> Vec<String> {
    let length = |text: &String| text.chars().count();
    if warnings.iter().map(length).sum::<usize>() <= MAX_TOTAL {
        return warnings;
    }
    let mut room = MAX_TOTAL;
    let mut shortened = Vec::new();
    let mut seen = HashSet::new();
    for warning in warnings {
        let warning: String = warning.chars().take(MAX_SHORTENED).collect();
        if room == 0 {
            break;
        }
        if seen.insert(warning.clone()) {
            room = room.saturating_sub(length(&warning));
            shortened.push(warning);
        }
    }
    shortened
}

fn escape(character: char) -> impl Iterator<Item = char> {
    let escaped = matches!(character, '"' | '\\').then_some('\\');
    let shown = if character.is_control() { ' ' } else { character };
    escaped.into_iter().chain([shown])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(texts: impl IntoIterator<Item = String>) -> Vec<String> {
        let warnings = Warnings::default();
        texts.into_iter().for_each(|text| warnings.add(text));
        let mut headers = HeaderMap::new();
        warnings.write(&mut headers);
        let values = headers.get_all(header::WARNING).iter();
        values.map(|value| String::from_utf8(value.as_bytes().to_vec()).unwrap()).collect()
    }

    #[test]
    fn c196_warnings_are_quoted_and_heard_once() {
        let texts = ["unknown field \"spec.x\"", "a\\b\nü", "unknown field \"spec.x\"", ""];
        let expected = ["299 - \"unknown field \\\"spec.x\\\"\"", "299 - \"a\\\\b ü\""];
        assert_eq!(written(texts.map(str::to_owned)), expected);
    }

    #[test]
    fn c196_what_is_too_much_is_cut_short() {
        let numbered = |length: usize| move |number: usize| format!("{number:04}{}", "ä".repeat(length - 4));
        let sizes = |texts: Vec<String>| -> Vec<_> {
            texts.iter().map(|text| text.chars().count() - "299 - \"\"".len()).collect()
        };
        // Exactly the limit is whole, one character more is cut.
        assert_eq!(sizes(written((0..4).map(numbered(1024)))), [1024; 4]);
        let texts = (0..4).map(numbered(1024)).chain(["x".to_owned()]);
        assert_eq!(sizes(written(texts)), [256, 256, 256, 256, 1]);
        assert_eq!(sizes(written((0..100).map(numbered(300)))), [256; 16]);
    }
}
