//! Finds where metas begin and end, without parsing them.
//!
//! A catalog file holds JSON objects one after the other, or YAML documents. JSON objects end with the brace that
//! closes the first one; only strings have to be looked into, and [`memchr`] skips through both. YAML documents end
//! at a line that begins with `---` or `...`: nothing inside a document can begin a line so (YAML 1.2.2, 9.1.2).

use std::io::{self, Read};

use bytes::{Buf, Bytes, BytesMut};
use memchr::{memchr_iter, memchr2, memchr3};

/// Bytes read from a file at once.
const READ_BYTES: usize = 64 << 10;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// How the metas of a file are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// JSON objects.
    Json,
    /// YAML documents.
    Yaml,
}

/// One meta as it stands in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Slice {
    /// Where it begins, in bytes from the start of the file.
    pub offset: u64,
    /// How it is written.
    pub format: Format,
    /// Its text.
    pub text: Bytes,
}

/// A place where a file stops making sense.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Malformed {
    /// In bytes from the start of the file.
    pub offset: u64,
    /// What is wrong there.
    pub reason: String,
}

/// Cuts a file into metas, holding no more than the largest of them and one read.
///
/// # Errors
///
/// The reader's own; what is wrong with the content is the inner result, after the metas before it were emitted.
pub(super) fn split(
    contents: &mut dyn Read,
    max_meta_bytes: usize,
    emit: &mut dyn FnMut(Slice),
) -> io::Result<Result<(), Malformed>> {
    let mut splitter = Splitter { buffer: BytesMut::new(), base: 0, scan: Scan::Undecided, max_meta_bytes };
    loop {
        let is_end = splitter.read(contents)? == 0;
        if let Err(malformed) = splitter.cut(is_end, emit) {
            return Ok(Err(malformed));
        }
        if is_end {
            return Ok(Ok(()));
        }
    }
}

struct Splitter {
    /// What was read and not cut off yet.
    buffer: BytesMut,
    /// The offset of the buffer's first byte in the file.
    base: u64,
    scan: Scan,
    max_meta_bytes: usize,
}

/// How far the buffer was looked through.
#[derive(Clone, Copy)]
enum Scan {
    /// Nothing but white space was seen, so the format is not known.
    Undecided,
    Json(JsonScan),
    Yaml {
        /// No line that begins before here ends the document.
        position: usize,
    },
}

#[derive(Clone, Copy, Default)]
struct JsonScan {
    position: usize,
    depth: usize,
    in_string: bool,
}

impl Splitter {
    fn read(&mut self, contents: &mut dyn Read) -> io::Result<usize> {
        let length = self.buffer.len();
        self.buffer.resize(length + READ_BYTES, 0);
        let read = loop {
            match contents.read(&mut self.buffer[length..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        self.buffer.truncate(length + *read.as_ref().unwrap_or(&0));
        read
    }

    /// Emits the metas that are complete.
    fn cut(&mut self, is_end: bool, emit: &mut dyn FnMut(Slice)) -> Result<(), Malformed> {
        loop {
            let cut_one = match self.scan {
                Scan::Undecided => self.decide(is_end),
                Scan::Json(scan) => self.cut_json(scan, is_end, emit)?,
                Scan::Yaml { position } => self.cut_yaml(position, is_end, emit)?,
            };
            if !cut_one {
                return Ok(());
            }
        }
    }

    fn decide(&mut self, is_end: bool) -> bool {
        if self.base == 0 && self.buffer.starts_with(BYTE_ORDER_MARK) {
            self.skip(BYTE_ORDER_MARK.len());
        }
        if self.base == 0 && !is_end && BYTE_ORDER_MARK.starts_with(&self.buffer) {
            return false; // It may yet become one.
        }
        let Some(first) = self.buffer.iter().find(|byte| !byte.is_ascii_whitespace()) else {
            return false;
        };
        self.scan = match first {
            b'{' => Scan::Json(JsonScan::default()),
            _ => Scan::Yaml { position: 0 },
        };
        true
    }

    fn cut_json(
        &mut self,
        mut scan: JsonScan,
        is_end: bool,
        emit: &mut dyn FnMut(Slice),
    ) -> Result<bool, Malformed> {
        if scan.depth == 0 {
            let blank = self.buffer.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
            self.skip(blank);
            match self.buffer.first() {
                None => return Ok(false),
                Some(b'{') => scan = JsonScan { position: 1, depth: 1, in_string: false },
                Some(_) => {
                    return Err(self.malformed(0, "expected an object, which begins with `{`"));
                }
            }
        }
        let complete = scan.advance(&self.buffer);
        self.scan = Scan::Json(scan);
        if complete {
            self.emit(scan.position, Format::Json, emit)?;
            self.scan = Scan::Json(JsonScan::default());
            return Ok(true);
        }
        if is_end {
            return Err(self.malformed(self.buffer.len(), "the file ends within an object"));
        }
        self.check_length(self.buffer.len())?;
        Ok(false)
    }

    fn cut_yaml(
        &mut self,
        position: usize,
        is_end: bool,
        emit: &mut dyn FnMut(Slice),
    ) -> Result<bool, Malformed> {
        let marker = memchr_iter(b'\n', &self.buffer[position..])
            .map(|newline| position + newline + 1)
            .find(|&line| is_marker(&self.buffer[line..], is_end));
        match marker {
            Some(line) => {
                self.emit(line, Format::Yaml, emit)?;
                if self.buffer.starts_with(b"...") {
                    self.skip(3);
                }
                self.scan = Scan::Yaml { position: 0 };
                Ok(true)
            }
            None if is_end => {
                self.emit(self.buffer.len(), Format::Yaml, emit)?;
                self.scan = Scan::Undecided;
                Ok(false)
            }
            None => {
                self.check_length(self.buffer.len())?;
                // A marker may lie across the end of what was read.
                self.scan = Scan::Yaml { position: self.buffer.len().saturating_sub(5) };
                Ok(false)
            }
        }
    }

    /// Cuts off the first bytes of the buffer as a meta; a YAML document of nothing is none.
    fn emit(&mut self, length: usize, format: Format, emit: &mut dyn FnMut(Slice)) -> Result<(), Malformed> {
        self.check_length(length)?;
        let offset = self.base;
        let text = self.buffer.split_to(length).freeze();
        self.base += length as u64;
        if format == Format::Json || !is_empty_document(&text) {
            emit(Slice { offset, format, text });
        }
        Ok(())
    }

    fn check_length(&self, length: usize) -> Result<(), Malformed> {
        if length > self.max_meta_bytes {
            let reason = format!("a meta of more than {} bytes", self.max_meta_bytes);
            return Err(Malformed { offset: self.base, reason });
        }
        Ok(())
    }

    fn skip(&mut self, count: usize) {
        self.buffer.advance(count);
        self.base += count as u64;
    }

    fn malformed(&self, at: usize, reason: &str) -> Malformed {
        Malformed { offset: self.base + at as u64, reason: reason.to_owned() }
    }
}

impl JsonScan {
    /// Looks on through the text, and returns whether the object is complete; it then ends at `position`.
    fn advance(&mut self, text: &[u8]) -> bool {
        while self.position < text.len() {
            let rest = &text[self.position..];
            if self.in_string {
                let Some(found) = memchr2(b'"', b'\\', rest) else {
                    self.position = text.len();
                    return false;
                };
                if rest[found] == b'\\' {
                    if found + 1 == rest.len() {
                        // What is escaped was not read yet: look at the backslash again then.
                        self.position += found;
                        return false;
                    }
                    self.position += found + 2;
                } else {
                    self.in_string = false;
                    self.position += found + 1;
                }
                continue;
            }
            let Some(found) = memchr3(b'"', b'{', b'}', rest) else {
                self.position = text.len();
                return false;
            };
            self.position += found + 1;
            match rest[found] {
                b'"' => self.in_string = true,
                b'{' => self.depth += 1,
                _ => {
                    self.depth -= 1;
                    if self.depth == 0 {
                        return true;
                    }
                }
            }
        }
        false
    }
}

/// Returns whether a line begins with `---` or `...` as a word of its own.
fn is_marker(line: &[u8], is_end: bool) -> bool {
    if !line.starts_with(b"---") && !line.starts_with(b"...") {
        return false;
    }
    match line.get(3) {
        Some(next) => next.is_ascii_whitespace(),
        None => is_end,
    }
}

/// Returns whether a YAML document holds nothing but its marker, comments and directives.
fn is_empty_document(text: &[u8]) -> bool {
    let text = text.strip_prefix(b"---").unwrap_or(text);
    text.split(|byte| *byte == b'\n').all(|line| {
        let line = line.trim_ascii_start();
        matches!(line.first(), None | Some(b'#' | b'%'))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A reader that hands out a few bytes at a time.
    struct Dribble<'a>(&'a [u8], usize);

    impl Read for Dribble<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = self.0.len().min(self.1).min(buffer.len());
            buffer[..count].copy_from_slice(&self.0[..count]);
            self.0 = &self.0[count..];
            Ok(count)
        }
    }

    fn cut(text: &str, step: usize, max: usize) -> (Vec<(u64, String)>, Result<(), Malformed>) {
        let mut found = Vec::new();
        let mut emit = |slice: Slice| {
            found.push((slice.offset, String::from_utf8(slice.text.to_vec()).unwrap()));
        };
        let result = split(&mut Dribble(text.as_bytes(), step), max, &mut emit).unwrap();
        (found, result)
    }

    fn check(text: &str, expected: &[(u64, &str)]) {
        for step in [1, 2, 3, 5, 1000] {
            let (found, result) = cut(text, step, 1000);
            let found: Vec<_> = found.iter().map(|(offset, text)| (*offset, text.as_str())).collect();
            assert_eq!(found, expected, "{text:?} in steps of {step}");
            assert_eq!(result, Ok(()), "{text:?}");
        }
    }

    #[test]
    fn json_objects_are_cut_where_they_end() {
        check("", &[]);
        check(" \n\t", &[]);
        check(r#"{}{"a":1} {"b":{"c":[{}]}}"#, &[(0, "{}"), (2, r#"{"a":1}"#), (10, r#"{"b":{"c":[{}]}}"#)]);
        check(
            "\n{\n  \"a\": \"}{\\\"}\\\\\"\n}\n{\"b\":\"\\u007d\"}\n",
            &[(1, "{\n  \"a\": \"}{\\\"}\\\\\"\n}"), (22, "{\"b\":\"\\u007d\"}")],
        );
        check("\u{feff}{}", &[(3, "{}")]);
    }

    /// Finds where an object ends that begins a text, a byte at a time.
    fn end_of_object(text: &[u8]) -> Option<usize> {
        let (mut depth, mut in_string, mut is_escaped) = (0, false, false);
        for (position, byte) in text.iter().enumerate() {
            match (byte, in_string) {
                (_, true) if is_escaped => is_escaped = false,
                (b'\\', true) => is_escaped = true,
                (b'"', _) => in_string = !in_string,
                (b'{', false) => depth += 1,
                (b'}', false) => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                return Some(position + 1);
            }
        }
        None
    }

    proptest! {
        #[test]
        fn an_object_ends_where_a_look_at_every_byte_finds_it(
            text in "[{}\"\\\\\na]{0,40}", steps in prop::collection::vec(1..9_usize, 1..5),
        ) {
            let text = format!("{{{text}").into_bytes();
            let mut scan = JsonScan { position: 1, depth: 1, in_string: false };
            let (mut read, mut steps) = (0, steps.into_iter().cycle());
            let mut found = None;
            while read < text.len() && found.is_none() {
                read = (read + steps.next().unwrap()).min(text.len());
                found = scan.advance(&text[..read]).then_some(scan.position);
            }
            prop_assert_eq!(found, end_of_object(&text));
        }
    }

    #[test]
    fn a_string_with_a_raw_line_end_takes_nothing_else_along() {
        // It is no JSON, which the parser says; what stands behind it is cut as if it were.
        for broken in ["{\"a\":\"x\ny\"}", "{\"a\":\"x\n}\"}", "{\"a\":\"\\\n{\"}"] {
            check(&format!("{broken}\n{{\"b\":1}}"), &[(0, broken), (broken.len() as u64 + 1, "{\"b\":1}")]);
        }
    }

    #[test]
    fn yaml_documents_are_cut_at_their_markers() {
        check("a: 1\nb: 2\n", &[(0, "a: 1\nb: 2\n")]);
        check("---\na: 1\n---\nb: 2", &[(0, "---\na: 1\n"), (9, "---\nb: 2")]);
        check("# comment\n---\n---\na: ---\nb: |\n  ---\n", &[(14, "---\na: ---\nb: |\n  ---\n")]);
        check(
            "a: 1\n...\n--- \nb: 2\r\n---\r\nc: 3\n",
            &[(0, "a: 1\n"), (9, "--- \nb: 2\r\n"), (20, "---\r\nc: 3\n")],
        );
        check("---a: 1\n----\n", &[(0, "---a: 1\n----\n")]);
        check("a: 1\n---", &[(0, "a: 1\n")]);
    }

    #[test]
    fn a_file_that_stops_making_sense_says_where() {
        for step in [1, 7, 1000] {
            let (found, result) = cut(r#"{"a":1} {"b": {"#, step, 1000);
            assert_eq!(found.len(), 1);
            let reason = "the file ends within an object".to_owned();
            assert_eq!(result, Err(Malformed { offset: 15, reason }));
            let (found, result) = cut("{}\n, {}", step, 1000);
            assert_eq!(found.len(), 1);
            assert_eq!(result.unwrap_err().offset, 3);
        }
    }

    #[test]
    fn a_meta_of_exactly_the_limit_passes() {
        let json = format!(r#"{{"a":"{}"}}"#, "x".repeat(92));
        let yaml = format!("a: {}\n", "x".repeat(96));
        for text in [json, yaml] {
            assert_eq!(text.len(), 100);
            for step in [1, 1000] {
                assert_eq!(cut(&text, step, 101).1, Ok(()));
                assert_eq!(cut(&text, step, 100).1, Ok(()));
                let error = cut(&text, step, 99).1.unwrap_err();
                assert_eq!(error, Malformed { offset: 0, reason: "a meta of more than 99 bytes".to_owned() });
            }
        }
    }
}
