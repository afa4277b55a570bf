//! JSON without the white space between its tokens, and without what valid JSON may hold but few readers can read.
//!
//! What is kept of a catalog as it stands is served to every client. One that is nested too deeply, holds a number that
//! no number type can, or half a surrogate pair would break them all: lists are read whole or not at all.

use memchr::memchr2;

/// Arrays and objects within each other. Readers stop at 128 (serde_json) to 10,000 (Go), and the text stands within
/// other objects.
const MAX_DEPTH: usize = 100;

/// Digits that fit into every number type, so that the number need not be looked at.
const PLAIN_DIGITS: usize = 300;

/// Appends a JSON text that is known to be valid, without white space outside of strings.
///
/// # Errors
///
/// A sentence that says what clients could not read. Nothing is appended then.
pub(super) fn compact_into(json: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
    let start = out.len();
    out.resize(start + json.len(), 0);
    let written = compact_to(json, &mut out[start..]);
    out.truncate(start + written.as_ref().copied().unwrap_or_default());
    written.map(drop)
}

/// Writes into memory that has room for all of the text, and returns how much of that was needed.
fn compact_to(json: &[u8], target: &mut [u8]) -> Result<usize, String> {
    let (mut from, mut to, mut depth) = (0, 0, 0_usize);
    while let Some(&byte) = json.get(from) {
        let rest = &json[from..];
        let length = match byte {
            b' ' | b'\t' | b'\n' | b'\r' => {
                from += blank_length(rest);
                continue;
            }
            b'"' => string_length(rest)?,
            b'-' | b'0'..=b'9' => number_length(rest)?,
            _ => 1,
        };
        match byte {
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_DEPTH {
            return Err(format!("more than {MAX_DEPTH} arrays and objects within each other"));
        }
        target[to..to + length].copy_from_slice(&rest[..length]);
        (from, to) = (from + length, to + length);
    }
    Ok(to)
}

/// Returns how many bytes of white space a text begins with: a line end, and an indentation, which is long.
fn blank_length(text: &[u8]) -> usize {
    const SPACES: [u8; 8] = [b' '; 8];
    let spaces =
        |from: usize| text[from..].as_chunks().0.iter().take_while(|chunk| **chunk == SPACES).count();
    let mut length = 0;
    while let Some(b' ' | b'\t' | b'\n' | b'\r') = text.get(length) {
        length += 1;
        length += spaces(length) * SPACES.len();
    }
    length
}

/// Returns the length of the number that a text begins with, after a look whether any number type can hold it.
fn number_length(text: &[u8]) -> Result<usize, String> {
    let is_part = |byte: &u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
    let length = text.iter().position(|byte| !is_part(byte)).unwrap_or(text.len());
    let number = &text[..length];
    if length <= PLAIN_DIGITS && !number.iter().any(|byte| matches!(byte, b'e' | b'E')) {
        return Ok(length);
    }
    let value = std::str::from_utf8(number).ok().and_then(|text| text.parse::<f64>().ok());
    if value.is_some_and(f64::is_finite) {
        return Ok(length);
    }
    Err("a number that is too large for any type".to_owned())
}

/// Returns the length of the string that a text begins with, quotes included; 0 for nothing.
fn string_length(text: &[u8]) -> Result<usize, String> {
    let mut position = 1;
    while position < text.len() {
        let Some(found) = memchr2(b'"', b'\\', &text[position..]) else { break };
        let at = position + found;
        position = match &text[at..] {
            [b'"', ..] => return Ok(at + 1),
            [_, b'u', ..] => at + escape_length(&text[at..]).ok_or("half of a surrogate pair")?,
            _ => at + 2,
        };
    }
    Ok(text.len())
}

/// Returns the length of the escape that a text begins with, `\u` and four digits or a pair of those; none for half a pair.
fn escape_length(text: &[u8]) -> Option<usize> {
    let unit = |at: usize| {
        let digits = std::str::from_utf8(text.get(at..at + 6)?.strip_prefix(b"\\u")?).ok()?;
        u16::from_str_radix(digits, 16).ok()
    };
    match unit(0)? {
        0xd800..=0xdbff => matches!(unit(6)?, 0xdc00..=0xdfff).then_some(12),
        0xdc00..=0xdfff => None,
        _ => Some(6),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn compact(json: &str) -> String {
        let mut out = Vec::new();
        compact_into(json.as_bytes(), &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn strings_keep_their_spaces() {
        let json = "{ \"a b\" : [ 1 , \" \\\" \\\\\" , \"\\\\\" ] ,\n\t\"c\": null }";
        assert_eq!(compact(json), "{\"a b\":[1,\" \\\" \\\\\",\"\\\\\"],\"c\":null}");
        assert_eq!(compact(""), "");
    }

    #[test]
    fn what_clients_cannot_read_is_refused() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        let digits = |count: usize| "9".repeat(count);
        for (json, fits) in [
            (nested(MAX_DEPTH - 1), true),
            (nested(MAX_DEPTH), true),
            (nested(MAX_DEPTH + 1), false),
            (format!("[{0},{0},{{\"a\":1}}]", nested(MAX_DEPTH - 1)), true),
            (digits(308), true),
            (digits(310), false),
            (format!("-{}", digits(310)), false),
            ("18446744073709551616".to_owned(), true),
            ("[1e308, 1.5E-999, true, false]".to_owned(), true),
            ("[1, 1e309]".to_owned(), false),
            ("{\"a\":-1E+309}".to_owned(), false),
            (r#""\ud83d\ude00 \u0000 \\ud800""#.to_owned(), true),
            (r#""\ud83d""#.to_owned(), false),
            (r#""\ud83d\u0041""#.to_owned(), false),
            (r#""\uDE00""#.to_owned(), false),
            (r#""\ud83dx""#.to_owned(), false),
        ] {
            assert_eq!(compact_into(json.as_bytes(), &mut Vec::new()).is_ok(), fits, "{json}");
            // Which is what a reader has to say about it.
            let is_read = serde_json::from_str::<Value>(&json).is_ok();
            assert!(!fits || is_read, "{json}");
        }
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            ".*".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::hash_map(".*", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_json_compacts_to_what_serde_writes(value in value()) {
            let pretty = serde_json::to_string_pretty(&value).unwrap();
            prop_assert_eq!(compact(&pretty), serde_json::to_string(&value).unwrap());
        }
    }
}
