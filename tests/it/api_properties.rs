//! Whatever is asked: an answer, and the right one. Requests made up at random against simple models.

use std::collections::BTreeMap;

use axum::http::Method;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::support::objects::{self, PACKAGES, Write, commit, labelled, package, put};
use crate::support::router::TestApi;
use crate::support::{rounds, runtime};

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

type Labels = BTreeMap<&'static str, &'static str>;

/// Every combination of a few labels with a few values, and of a few fields.
fn population() -> Vec<(String, Labels, &'static str)> {
    let mut objects = Vec::new();
    for a in [None, Some(""), Some("x"), Some("5")] {
        for b in [None, Some("x"), Some("10"), Some("-3")] {
            for catalog in ["c", "d,e"] {
                let labels = [("a", a), ("b", b)].into_iter().filter_map(|(key, value)| Some((key, value?)));
                objects.push((format!("p{:02}", objects.len()), labels.collect(), catalog));
            }
        }
    }
    objects
}

async fn populated() -> TestApi {
    let api = TestApi::new();
    let writes = population().into_iter().map(|(name, labels, catalog)| {
        let labels: Vec<_> = labels.into_iter().collect();
        let mut object = labelled(&name, &labels);
        object["spec"]["catalogSource"] = json!(catalog);
        Write::Put(object)
    });
    commit(&api.store, writes.collect()).await;
    api
}

/// A term of a label selector: how it is written, and what it selects.
#[derive(Clone, Debug)]
enum Term {
    Equal(&'static str, &'static str),
    NotEqual(&'static str, &'static str),
    In(&'static str, Vec<&'static str>),
    NotIn(&'static str, Vec<&'static str>),
    Exists(&'static str),
    Absent(&'static str),
    Greater(&'static str, i64),
    Less(&'static str, i64),
}

impl Term {
    fn text(&self, space: &str, double: bool) -> String {
        let equals = if double { "==" } else { "=" };
        let list = |values: &[&str]| values.join(&format!("{space},{space}"));
        match self {
            Term::Equal(key, value) => format!("{key}{space}{equals}{space}{value}"),
            Term::NotEqual(key, value) => format!("{key}{space}!={space}{value}"),
            Term::In(key, values) => format!("{key} in{space}({space}{}{space})", list(values)),
            Term::NotIn(key, values) => format!("{key} notin{space}({space}{}{space})", list(values)),
            Term::Exists(key) => format!("{space}{key}{space}"),
            Term::Absent(key) => format!("!{space}{key}"),
            Term::Greater(key, than) => format!("{key}{space}>{space}{than}"),
            Term::Less(key, than) => format!("{key}{space}<{space}{than}"),
        }
    }

    fn selects(&self, labels: &Labels) -> bool {
        let number = |key: &str| labels.get(key).and_then(|value| value.parse::<i64>().ok());
        match self {
            Term::Equal(key, value) => labels.get(key) == Some(value),
            Term::NotEqual(key, value) => labels.get(key) != Some(value),
            Term::In(key, values) => labels.get(key).is_some_and(|value| values.contains(value)),
            Term::NotIn(key, values) => labels.get(key).is_none_or(|value| !values.contains(value)),
            Term::Exists(key) => labels.contains_key(key),
            Term::Absent(key) => !labels.contains_key(key),
            Term::Greater(key, than) => number(key).is_some_and(|number| number > *than),
            Term::Less(key, than) => number(key).is_some_and(|number| number < *than),
        }
    }
}

fn term() -> impl Strategy<Value = Term> {
    let key = || prop::sample::select(vec!["a", "b", "absent"]);
    let value = || prop::sample::select(vec!["", "x", "5", "10", "other"]);
    let values = || prop::collection::vec(value(), 1..4);
    prop_oneof![
        (key(), value()).prop_map(|(key, value)| Term::Equal(key, value)),
        (key(), value()).prop_map(|(key, value)| Term::NotEqual(key, value)),
        (key(), values()).prop_map(|(key, values)| Term::In(key, values)),
        (key(), values()).prop_map(|(key, values)| Term::NotIn(key, values)),
        key().prop_map(Term::Exists),
        key().prop_map(Term::Absent),
        (key(), -5..15_i64).prop_map(|(key, than)| Term::Greater(key, than)),
        (key(), -5..15_i64).prop_map(|(key, than)| Term::Less(key, than)),
    ]
}

/// A term of a field selector: field, whether it has to be equal, value.
fn field_term() -> impl Strategy<Value = (&'static str, bool, &'static str)> {
    (
        prop::sample::select(vec!["metadata.name", "metadata.namespace", "spec.catalogSource"]),
        any::<bool>(),
        prop::sample::select(vec!["p03", "test", "c", "d,e", "other", "", r"a\b", "=,"]),
    )
}

async fn listed(api: &TestApi, query: &str) -> Vec<String> {
    let list = api.get(&format!("{PACKAGES}?{query}")).await.expect(200);
    objects::names(&list).into_iter().map(str::to_owned).collect()
}

#[test]
fn c028_c032_selectors_select_what_their_terms_say() {
    let runtime = runtime();
    let api = runtime.block_on(populated());
    let population = population();
    let space = prop::sample::select(vec!["", " ", "  "]);
    let strategy = (
        prop::collection::vec(term(), 0..4),
        prop::collection::vec(field_term(), 0..3),
        space,
        any::<bool>(),
    );
    proptest!(ProptestConfig::with_cases(rounds(512, 20_000)), |((terms, fields, space, double) in strategy)| {
        let labels: Vec<_> = terms.iter().map(|term| term.text(space, double)).collect();
        let escape = |value: &str| value.replace('\\', r"\\").replace(',', r"\,").replace('=', r"\=");
        let written: Vec<_> = fields
            .iter()
            .map(|(path, equal, value)| format!("{path}{}{}", if *equal { "=" } else { "!=" }, escape(value)))
            .collect();
        let query = format!(
            "labelSelector={}&fieldSelector={}",
            encoded(&labels.join(",")),
            encoded(&written.join(","))
        );
        let expected: Vec<_> = population
            .iter()
            .filter(|(name, labels, catalog)| {
                let value = |path: &str| match path {
                    "metadata.name" => name.as_str(),
                    "metadata.namespace" => "test",
                    _ => catalog,
                };
                terms.iter().all(|term| term.selects(labels))
                    && fields.iter().all(|(path, equal, wanted)| (value(path) == *wanted) == *equal)
            })
            .map(|(name, ..)| name.clone())
            .collect();
        prop_assert_eq!(runtime.block_on(listed(&api, &query)), expected, "{}", query);
    });
}

#[test]
fn c075_pages_of_any_size_make_one_state_whatever_is_written() {
    let runtime = runtime();
    let strategy = (1..40_usize, prop::collection::vec((1..15_usize, 0..60_usize, any::<bool>()), 1..50));
    proptest!(ProptestConfig::with_cases(rounds(48, 2_000)), |((count, steps) in strategy)| {
        runtime.block_on(async {
            let api = TestApi::new();
            let writes = (0..count).map(|number| Write::Put(package(&format!("p{number:02}"))));
            commit(&api.store, writes.collect()).await;
            let expected: Vec<_> = (0..count).map(|number| format!("p{number:02}")).collect();
            let (mut seen, mut query, mut at) = (Vec::new(), String::new(), None);
            for (limit, number, put_it) in steps.iter().cycle() {
                let page = api.get(&format!("{PACKAGES}?limit={limit}{query}")).await.expect(200);
                prop_assert_eq!(*at.get_or_insert_with(|| objects::version(&page)), objects::version(&page));
                let found = objects::names(&page);
                prop_assert!(found.len() <= *limit);
                seen.extend(found.iter().map(|name| (*name).to_owned()));
                let remaining = &page["metadata"]["remainingItemCount"];
                match page["metadata"]["continue"].as_str() {
                    Some(token) => query = format!("&continue={token}"),
                    None => {
                        prop_assert!(remaining.is_null());
                        break;
                    }
                }
                prop_assert_eq!(remaining, &json!(count - seen.len()));
                // Somebody writes in between.
                let name = format!("p{number:02}");
                let there = api.get(&format!("{PACKAGES}/{name}")).await.status == 200;
                if *put_it {
                    put(&api.store, package(&name)).await;
                } else if there {
                    objects::delete(&api.store, &name).await;
                }
            }
            prop_assert_eq!(seen, expected);
            Ok(())
        })?;
    });
}

#[test]
fn c036_the_best_format_that_there_is() {
    let runtime = runtime();
    let api = runtime.block_on(populated());
    let known = [
        "application/json",
        "application/yaml",
        "*/*",
        "application/*",
        "text/html",
        "application/vnd.kubernetes.protobuf",
    ];
    let clause = (prop::sample::select(known.to_vec()), prop::option::of(0..=10_u8));
    proptest!(ProptestConfig::with_cases(rounds(256, 20_000)), |(clauses in prop::collection::vec(clause, 1..5))| {
        let written: Vec<_> = clauses
            .iter()
            .map(|(media_type, quality)| match quality {
                Some(quality) => format!("{media_type};q={:.1}", f32::from(*quality) / 10.0),
                None => (*media_type).to_owned(),
            })
            .collect();
        let mut best: Option<(u8, &str)> = None;
        for (media_type, quality) in &clauses {
            let quality = quality.unwrap_or(10);
            let format = match *media_type {
                "application/json" | "*/*" | "application/*" => "application/json",
                "application/yaml" => "application/yaml",
                _ => continue,
            };
            if quality > best.map_or(0, |best| best.0) {
                best = Some((quality, format));
            }
        }
        let answer = runtime.block_on(async { api.get(PACKAGES).accept(&written.join(", ")).await });
        match best {
            Some((_, format)) => {
                prop_assert_eq!((answer.status.as_u16(), answer.headers("content-type")[0]), (200, format));
            }
            None => prop_assert_eq!(answer.status.as_u16(), 406),
        }
    });
}

/// Text that looks like what is expected, and often is not.
fn wild() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        prop::sample::select(vec![
            "metadata.name",
            "spec.catalogSource",
            "=",
            "==",
            "!=",
            "!",
            ",",
            "(",
            ")",
            " in ",
            " notin ",
            "<",
            ">",
            "\\",
            "a",
            "x/y",
            "/",
            "..",
            "%00",
            "0",
            "-1",
            "99999999999999999999",
            "true",
            "Exact",
            "NotOlderThan",
            "\u{0}",
            "\u{fffd}",
            "ü",
            " ",
            "application/json",
            ";as=Table",
            ";g=meta.k8s.io",
            ";v=v1",
            ";q=0.5",
            ";q=x",
            "*/*",
            "\"",
            "&",
            "?",
            "#",
            "+",
        ])
        .prop_map(str::to_owned),
        any::<String>(),
    ];
    prop::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
}

const PARAMETERS: [&str; 14] = [
    "watch",
    "limit",
    "continue",
    "resourceVersion",
    "resourceVersionMatch",
    "sendInitialEvents",
    "allowWatchBookmarks",
    "labelSelector",
    "fieldSelector",
    "timeout",
    "timeoutSeconds",
    "pretty",
    "includeObject",
    "export",
];

#[test]
fn c001_c022_whatever_is_asked_is_answered() {
    let runtime = runtime();
    let api = runtime.block_on(populated());
    let parameter = (prop::sample::select(PARAMETERS.to_vec()), wild(), any::<bool>());
    let methods = vec![
        Method::GET,
        Method::HEAD,
        Method::POST,
        Method::PUT,
        Method::PATCH,
        Method::DELETE,
        Method::OPTIONS,
    ];
    let segments = prop::collection::vec(
        prop_oneof![
            wild(),
            prop::sample::select(vec![
                "apis",
                "core.rukpak.io",
                "v1beta1",
                "namespaces",
                "test",
                "packages",
                "catalogsources",
                "p01",
                "status",
                "icon",
                "openapi",
                "v2",
                "v3",
                "readyz",
            ])
            .prop_map(str::to_owned)
        ],
        0..8,
    );
    let path = prop_oneof![
        Just(PACKAGES.to_owned()),
        Just(format!("{PACKAGES}/p01")),
        segments.prop_map(|segments| segments
            .iter()
            .map(|segment| format!("/{}", encoded(segment)))
            .collect::<String>()),
    ];
    let strategy = (
        path,
        prop::collection::vec(parameter, 0..5),
        prop::sample::select(methods),
        wild(),
        prop::collection::vec(any::<u8>(), 0..64),
    );
    proptest!(ProptestConfig::with_cases(rounds(1024, 20_000)), |((path, parameters, method, header, body) in strategy)| {
        let query: Vec<_> = parameters
            .iter()
            .map(|(name, value, raw)| {
                // As a client encodes it, or as only a hostile one sends it.
                let is_sendable = value.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
                if *raw && is_sendable { format!("{name}={value}") } else { format!("{name}={}", encoded(value)) }
            })
            .collect();
        let path = if path.is_empty() { "/".to_owned() } else { path };
        let uri = format!("{path}?{}", query.join("&"));
        if uri.parse::<axum::http::Uri>().is_err() {
            return Ok(());
        }
        let printable: String = header.chars().filter(|c| c.is_ascii_graphic() || *c == ' ').collect();
        let answer = runtime.block_on(async {
            let call = api.call(method, &uri).accept(&printable).header("accept-encoding", &printable);
            call.header("if-none-match", &printable).body(&printable, body).await
        });
        let status = answer.status.as_u16();
        prop_assert!(status < 500 || status == 504, "{} {}: {}", status, uri, answer.text());
        if answer.headers("content-type").first() == Some(&"application/json") && status >= 400 {
            let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
            if !body.is_null() {
                prop_assert_eq!(&body["code"], &json!(status));
                prop_assert_eq!(&body["kind"], &json!("Status"));
            }
        }
    });
}

#[test]
fn c078_whatever_is_taken_for_a_token_is_answered() {
    let runtime = runtime();
    let api = runtime.block_on(populated());
    let version = runtime.block_on(objects::current(&api.store));
    let start = prop_oneof![
        wild(),
        "packages/test/[a-z0-9.-]{0,8}\u{0}?",
        "(packages|catalogsources|\\.\\.)/(test|other|\\.\\.)/(p0[0-9]|\\.\\.|s)\u{0}?",
    ];
    let token = (
        prop::sample::select(vec!["meta.k8s.io/v1", "meta.k8s.io/v1beta1", ""]),
        prop_oneof![Just(-1_i64), Just(version as i64), -3..3_i64, any::<i64>()],
        start,
    );
    proptest!(ProptestConfig::with_cases(rounds(512, 20_000)), |((v, rv, start) in token, cut in 0..100_usize, limit in 0..5_usize)| {
        let token = URL_SAFE_NO_PAD.encode(json!({"v": v, "rv": rv, "start": start}).to_string());
        let token = &token[..token.len().min(token.len() * cut / 90)];
        let answer = runtime.block_on(async { api.get(&format!("{PACKAGES}?limit={limit}&continue={token}")).await });
        match answer.status.as_u16() {
            200 => {
                let list = answer.json();
                let items = list["items"].as_array().unwrap();
                prop_assert!(items.iter().all(|item| item["metadata"]["namespace"] == "test"));
                let after = start.trim_end_matches('\0').rsplit('/').next().unwrap_or_default();
                prop_assert!(token.is_empty() || objects::names(&list).iter().all(|name| *name > after));
            }
            400 | 410 | 504 => {}
            status => prop_assert!(false, "{}: {}", status, answer.text()),
        }
    });
}
