//! YAML documents as JSON text, so that everything behind reads one format.
//!
//! Plain scalars resolve as in the YAML that Kubernetes tools read (`yes` is a boolean, `1.10` a number): that is
//! what the publishers of catalogs tested with.

use std::io::{self, Write};

use serde::de::IgnoredAny;

use super::meta::without_line;
use super::split::Malformed;

/// How many times as long the JSON text may be, beyond its first MiB: aliases repeat what they stand for.
const MAX_GROWTH: usize = 8;
const GROWTH_FREE: usize = 1 << 20;

/// Returns a document as JSON text.
///
/// # Errors
///
/// [`Malformed`], with the offset counted from the start of the document.
pub(super) fn to_json(document: &[u8]) -> Result<Vec<u8>, Malformed> {
    let text = std::str::from_utf8(document)
        .map_err(|error| Malformed { offset: error.valid_up_to() as u64, reason: "not UTF-8".to_owned() })?;
    let limit = document.len().saturating_mul(MAX_GROWTH).max(GROWTH_FREE);
    let mut json = Bounded { text: Vec::with_capacity(document.len()), limit, is_full: false };
    let transcoded = serde_saphyr::with_deserializer_from_str(text, |deserializer| {
        let mut serializer = serde_json::Serializer::new(&mut json);
        serde_transcode::transcode(deserializer, &mut serializer)
            .map_err(<serde_saphyr::Error as serde::de::Error>::custom)
    });
    match transcoded {
        Ok(()) => Ok(json.text),
        Err(_) if json.is_full => {
            let reason = format!("its aliases stand for more than {limit} bytes");
            Err(Malformed { offset: 0, reason })
        }
        Err(error) => Err(locate(text, &error)),
    }
}

/// Text that is only so long.
struct Bounded {
    text: Vec<u8>,
    limit: usize,
    is_full: bool,
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > self.limit - self.text.len() {
            self.is_full = true;
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Says where a document is wrong. Transcoding loses the place, so a broken document is read once more.
fn locate(text: &str, error: &serde_saphyr::Error) -> Malformed {
    let again = serde_saphyr::from_str::<IgnoredAny>(text).err();
    let error = again.as_ref().unwrap_or(error);
    let offset = error.location().and_then(|location| {
        let line = usize::try_from(location.line()).ok()?.checked_sub(1)?;
        let column = usize::try_from(location.column()).ok()?.checked_sub(1)?;
        let start = match line {
            0 => 0,
            line => memchr::memchr_iter(b'\n', text.as_bytes()).nth(line - 1)? + 1,
        };
        let within = text[start..].char_indices().nth(column).map_or(0, |(at, _)| at);
        Some((start + within) as u64)
    });
    Malformed { offset: offset.unwrap_or(0), reason: without_line(&error.without_snippet().to_string()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> String {
        String::from_utf8(to_json(text.as_bytes()).unwrap()).unwrap()
    }

    #[test]
    fn documents_read_as_kubernetes_tools_read_them() {
        assert_eq!(json("---\na: 1\nb: [x, 'y', \"z\"]\n"), r#"{"a":1,"b":["x","y","z"]}"#);
        assert_eq!(
            json("a: 1.10\nb: yes\nc: \"yes\"\nd: ~\ne:\n"),
            r#"{"a":1.1,"b":true,"c":"yes","d":null,"e":null}"#
        );
        assert_eq!(json("a: |\n  x\n  y\nb: >-\n  x\n  y\n"), r#"{"a":"x\ny\n","b":"x y"}"#);
        assert_eq!(json("a: &x {b: 1}\nc: *x\n"), r#"{"a":{"b":1},"c":{"b":1}}"#);
        assert_eq!(json("v: 1.2.3\nt: 2026-01-02\n1: one\n"), r#"{"v":"1.2.3","t":"2026-01-02","1":"one"}"#);
    }

    #[test]
    fn a_broken_document_says_where() {
        let error = to_json(b"---\na: 1\n\tb: 2\n").unwrap_err();
        let reason = "while scanning a plain scalar, found a tab".to_owned();
        assert_eq!(error, Malformed { offset: 7, reason });
        assert!(to_json(b"a: \xff").is_err());
        assert!(to_json(b"a: [1, 2\n").is_err());
        assert!(to_json(b"a: 1\na: 2\n").is_err());
    }

    #[test]
    fn a_bomb_is_an_error() {
        let mut bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
        for level in 1..12 {
            let inner = vec![format!("*a{}", level - 1); 10].join(",");
            bomb.push_str(&format!("a{level}: &a{level} [{inner}]\n"));
        }
        assert!(to_json(bomb.as_bytes()).is_err());
        // Few aliases, but of a long text.
        let repeated = |count: usize| {
            let text = "x".repeat(100_000);
            format!("a: &x {text}\nb: [{}]\n", vec!["*x"; count].join(","))
        };
        assert!(to_json(repeated(9).as_bytes()).is_ok());
        let error = to_json(repeated(40_000).as_bytes()).unwrap_err();
        assert!(error.reason.starts_with("its aliases stand for more than "), "{error:?}");
    }

    #[test]
    fn a_million_levels_are_an_error() {
        for (open, close) in [("[", "]"), ("{a: ", "}")] {
            let deep = format!("a: {}{}", open.repeat(1_000_000), close.repeat(1_000_000));
            assert!(to_json(deep.as_bytes()).is_err());
        }
        let indented: String = (0..2000).map(|level| format!("{}a:\n", " ".repeat(level))).collect();
        assert!(to_json(indented.as_bytes()).is_err());
    }
}
