//! What is persisted, as the files in `tests/golden` have it: each format version has a folder, which is never changed. What a
//! folder holds stays readable; what is written is the newest.

use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::keys::Keys;
use super::tip;
use crate::store::{Envelope, Key, Object, Tail};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1").join(name)
}

fn read(name: &str) -> Bytes {
    let path = golden(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("`{}`: {error}", path.display())).into()
}

/// The envelopes: file, index and object.
fn envelopes() -> Vec<(&'static str, u16, Option<Object>)> {
    let head =
        r#"{"apiVersion":"core.rukpak.io/v1beta1","kind":"Thing","metadata":{"name":"x"},"spec":{"a":1"#;
    let tail = br#","b":2}}"#;
    vec![
        ("whole", 1, Some(Object::whole(r#"{"kind":"Thing"}"#))),
        ("plain-tail", 2, Some(Object::cut(head, Tail::Plain(Bytes::from_static(tail))))),
        (
            "packed-tail",
            300,
            Some(Object::cut(head, Tail::Zstd { packed: read("packed-tail.zst"), length: 408 })),
        ),
        (
            "referring-tail",
            2,
            Some(Object::cut(
                head,
                Tail::Referring {
                    dictionary: serde_json::from_str("\"000102030405060708090a0b0c0d0e0f\"").unwrap(),
                    packed: read("referring-tail.zst"),
                    length: 408,
                },
            )),
        ),
        ("deferred-tail", 998, Some(Object::cut(head, Tail::Deferred))),
        ("packed-head", 4, Some(Object::whole(format!("{{\"text\":\"{}\"}}", "golden ".repeat(100))))),
        ("deletion", 517, None),
    ]
}

#[test]
fn envelopes_are_read_and_written_as_ever() {
    for (name, index, object) in envelopes() {
        let bytes = read(&format!("envelope-{name}.bin"));
        assert_eq!(Envelope::decode(&bytes).unwrap(), Envelope { index, object: object.clone() }, "{name}");
        let written = match &object {
            Some(object) => Envelope::encode_put(index, object),
            None => Envelope::encode_deletion(index),
        };
        // What is packed anew may come out differently with another version of zstd, and still is the same.
        match name {
            "packed-head" => assert_eq!(Envelope::decode(&written).unwrap().object, object),
            _ => assert_eq!(written, bytes, "{name}"),
        }
    }
    let text = Tail::Zstd { packed: read("packed-tail.zst"), length: 408 }.unpack().unwrap();
    assert_eq!(text, format!(",\"b\":\"{}\"}}}}", "golden ".repeat(57)));
    for (_, _, object) in envelopes() {
        let Some(Tail::Referring { .. }) = object.as_ref().map(Object::tail) else { continue };
        let dictionary = format!(",\"b\":\"{}\"", "golden ".repeat(50));
        assert_eq!(object.unwrap().tail().unpack_with(dictionary.as_bytes()).unwrap(), text);
    }
}

#[test]
fn tips_are_read_and_written_as_ever() {
    let events = vec![
        (1, Key::new("packages", "test", "kube-green")),
        (128, Key::new("packages", "test", "kube-green.catalog")),
        (998, Key::new("packages", "other", "x")),
    ];
    let bytes = read("tip-packages.bin");
    assert_eq!(tip::decode("packages", &bytes).unwrap(), events);
    assert_eq!(tip::encode(events.iter().map(|(index, key)| (*index, key))), bytes);
}

#[test]
fn keys_are_where_they_ever_were() {
    let keys = Keys::new("/registry/core.rukpak.io");
    let object = |resource, namespace, name| keys.object(&Key::new(resource, namespace, name));
    let written = [
        object("packages", "test", "kube-green"),
        object("bundlemetadata", "test", "kube-green.v0.3.0"),
        object("catalogsources", "test", "catalog"),
        object("catalogcaches", "test", "catalog"),
        object("icons", "test", "kube-green"),
        object("checkpoints", "test", "catalog"),
        object("provenance", "test", "catalog/kube-green"),
        object("dictionaries", "test", "000102030405060708090a0b0c0d0e0f"),
        keys.tip("packages"),
        keys.lock("catalogsources/test/catalog"),
        keys.lock("compaction"),
    ];
    let written: String =
        written.into_iter().map(|key| String::from_utf8(key).expect("keys are text") + "\n").collect();
    assert_eq!(written.as_bytes(), read("keys.txt"));
}

#[test]
fn what_a_newer_version_wrote_is_refused_and_says_so() {
    for (name, ..) in envelopes() {
        let mut bytes = read(&format!("envelope-{name}.bin")).to_vec();
        bytes[0] = 2;
        let error = Envelope::decode(&bytes.into()).unwrap_err().to_string();
        assert_eq!(error, "format version 2 is not known; it was written by a newer packageserver", "{name}");
    }
}
