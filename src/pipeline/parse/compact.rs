//! JSON without the white space between its tokens.

use memchr::{memchr, memchr2};

/// Appends a JSON text that is known to be valid, without white space outside of strings.
pub(super) fn compact_into(json: &[u8], out: &mut Vec<u8>) {
    out.reserve(json.len());
    let mut rest = json;
    while !rest.is_empty() {
        let quote = memchr(b'"', rest).unwrap_or(rest.len());
        out.extend(
            rest[..quote]
                .iter()
                .filter(|byte| !byte.is_ascii_whitespace()),
        );
        rest = &rest[quote..];
        let string = string_length(rest);
        out.extend_from_slice(&rest[..string]);
        rest = &rest[string..];
    }
}

/// Returns the length of the string that a text begins with, quotes included.
fn string_length(text: &[u8]) -> usize {
    let mut position = 1;
    while position < text.len() {
        match memchr2(b'"', b'\\', &text[position..]) {
            None => break,
            Some(found) if text[position + found] == b'"' => return position + found + 1,
            Some(found) => position += found + 2,
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn compact(json: &str) -> String {
        let mut out = Vec::new();
        compact_into(json.as_bytes(), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn strings_keep_their_spaces() {
        let json = "{ \"a b\" : [ 1 , \" \\\" \\\\\" , \"\\\\\" ] ,\n\t\"c\": null }";
        assert_eq!(
            compact(json),
            "{\"a b\":[1,\" \\\" \\\\\",\"\\\\\"],\"c\":null}"
        );
        assert_eq!(compact(""), "");
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
