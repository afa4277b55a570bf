//! Which representation a client wants (C35–C43).

use axum::http::{HeaderMap, header};

use super::status::ApiError;

/// A representation: what is said, and in which format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Representation {
    /// What is said.
    pub(super) form: Form,
    /// How it is written.
    pub(super) format: Format,
}

/// What is said of an object, or of each object of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Form {
    /// Everything.
    Object,
    /// Its row of a table.
    Table(MetaVersion),
    /// Its metadata only.
    Metadata(MetaVersion),
}

/// The version of the forms that are not the type's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum MetaVersion {
    /// `meta.k8s.io/v1`.
    V1,
    /// `meta.k8s.io/v1beta1`.
    V1Beta1,
}

/// How an answer is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// As `application/json`.
    Json,
    /// As `application/yaml`.
    Yaml,
}

/// What kind of answer is negotiated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// One object.
    Single,
    /// A list.
    List,
    /// A stream of events.
    Watch,
}

impl MetaVersion {
    /// Returns `group/version`.
    pub(super) fn api_version(self) -> &'static str {
        match self {
            MetaVersion::V1 => "meta.k8s.io/v1",
            MetaVersion::V1Beta1 => "meta.k8s.io/v1beta1",
        }
    }
}

impl Format {
    /// Returns the media type.
    pub(super) fn media_type(self) -> &'static str {
        match self {
            Format::Json => "application/json",
            Format::Yaml => "application/yaml",
        }
    }
}

/// Chooses the first representation a client accepts that there is.
///
/// # Errors
///
/// 406 when there is none.
pub(super) fn negotiate(headers: &HeaderMap, kind: Kind) -> Result<Representation, ApiError> {
    let Some(clauses) = clauses(headers) else { return Ok(Representation::JSON) };
    clauses.iter().find_map(|clause| clause.representation(kind)).ok_or_else(|| {
        let json = ["application/json", "application/yaml"];
        ApiError::not_acceptable(if kind == Kind::Watch { &json[..1] } else { &json })
    })
}

/// Returns the format in which a client is told that its request failed: whatever it accepts of those there are, or JSON.
pub(super) fn format_of_errors(headers: &HeaderMap) -> Format {
    let known = clauses(headers).into_iter().flatten().find_map(|clause| match clause.media_type {
        _ if clause.is_json() => Some(Format::Json),
        "application/yaml" => Some(Format::Yaml),
        _ => None,
    });
    known.unwrap_or(Format::Json)
}

/// Checks that a client accepts JSON, for documents that come in no other form.
///
/// # Errors
///
/// 406 when it does not.
pub(super) fn json_only(headers: &HeaderMap) -> Result<(), ApiError> {
    let accepts_json = clauses(headers).is_none_or(|clauses| clauses.iter().any(Clause::is_json));
    if accepts_json {
        return Ok(());
    }
    Err(ApiError::not_acceptable(&["application/json"]))
}

/// Returns whether a client wants discovery in its aggregated form rather than in the plain one (C245, C246).
///
/// # Errors
///
/// 406 when it accepts neither.
pub(super) fn aggregated_discovery(headers: &HeaderMap) -> Result<bool, ApiError> {
    let Some(clauses) = clauses(headers) else { return Ok(false) };
    let wanted = [Some("APIGroupDiscoveryList"), Some("apidiscovery.k8s.io"), Some("v2")];
    let mut known = clauses.iter().filter(|clause| clause.is_json()).filter_map(|clause| match clause.form {
        [None, ..] => Some(false),
        form => (form == wanted).then_some(true),
    });
    // Who asks for a form that is not known is given the plain one.
    let is_json = clauses.iter().any(Clause::is_json);
    known.next().or(is_json.then_some(false)).ok_or_else(|| ApiError::not_acceptable(&["application/json"]))
}

/// Returns what a client accepts, best first; none when it says nothing about that.
fn clauses(headers: &HeaderMap) -> Option<Vec<Clause<'_>>> {
    let values = headers.get_all(header::ACCEPT).iter().map(|value| value.to_str().unwrap_or_default());
    let mut clauses: Vec<_> = values.flat_map(|value| value.split(',')).filter_map(Clause::parse).collect();
    if clauses.is_empty() {
        return None;
    }
    clauses.retain(|clause| clause.quality > 0.0);
    // Stable: among equals, the first one.
    clauses.sort_by(|a, b| b.quality.total_cmp(&a.quality));
    Some(clauses)
}

/// One media type of an Accept header.
struct Clause<'a> {
    media_type: &'a str,
    quality: f32,
    /// The parameters `as`, `g` and `v`.
    form: [Option<&'a str>; 3],
}

impl<'a> Clause<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.split(';').map(str::trim);
        let media_type = parts.next().filter(|media_type| !media_type.is_empty())?;
        let mut clause = Clause { media_type, quality: 1.0, form: [None; 3] };
        for (name, value) in parts.filter_map(|part| part.split_once('=')) {
            let value = value.trim().trim_matches('"');
            match name.trim() {
                // A weight that is none weighs nothing.
                "q" => clause.quality = value.parse().ok().filter(|q| (0.0..=1.0).contains(q)).unwrap_or(1.0),
                "as" => clause.form[0] = Some(value),
                "g" => clause.form[1] = Some(value),
                "v" => clause.form[2] = Some(value),
                _ => {}
            }
        }
        Some(clause)
    }

    fn is_json(&self) -> bool {
        matches!(self.media_type, "application/json" | "application/*" | "*/*")
    }

    fn representation(&self, kind: Kind) -> Option<Representation> {
        let format = match self.media_type {
            _ if self.is_json() => Format::Json,
            "application/yaml" if kind != Kind::Watch => Format::Yaml,
            _ => return None,
        };
        let [as_, group, version] = self.form;
        let Some(as_) = as_ else { return Some(Representation { form: Form::Object, format }) };
        let version = match (group, version) {
            (Some("meta.k8s.io"), Some("v1")) => MetaVersion::V1,
            (Some("meta.k8s.io"), Some("v1beta1")) => MetaVersion::V1Beta1,
            _ => return None,
        };
        let form = match (as_, kind) {
            ("Table", _) => Form::Table(version),
            ("PartialObjectMetadataList", Kind::List)
            | ("PartialObjectMetadata", Kind::Single | Kind::Watch) => Form::Metadata(version),
            _ => return None,
        };
        Some(Representation { form, format })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accept(text: &str, kind: Kind) -> Option<(Form, Format)> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, text.parse().unwrap());
        negotiate(&headers, kind).ok().map(|chosen| (chosen.form, chosen.format))
    }

    const KUBECTL: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,\
                           application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";

    #[test]
    fn c035_json_is_the_default_and_yaml_is_not_streamed() {
        let json = Some((Form::Object, Format::Json));
        for text in ["*/*", "application/*", "application/json", "application/json;stream=watch"] {
            assert_eq!(accept(text, Kind::Watch), json, "{text}");
        }
        assert_eq!(negotiate(&HeaderMap::new(), Kind::List).unwrap(), Representation::JSON);
        assert_eq!(accept("application/yaml", Kind::List), Some((Form::Object, Format::Yaml)));
        assert_eq!(accept("application/yaml", Kind::Watch), None);
    }

    #[test]
    fn c036_quality_orders_and_what_is_unknown_is_refused() {
        let yaml = Some((Form::Object, Format::Yaml));
        assert_eq!(accept("application/json;q=0.5,application/yaml", Kind::List), yaml);
        assert_eq!(accept("application/json;q=0,application/yaml;q=0.1", Kind::List), yaml);
        assert_eq!(accept("text/html", Kind::List), None);
        assert_eq!(accept("application/json;q=0", Kind::List), None);
        assert_eq!(accept("application/yaml;q=much,application/json", Kind::List), yaml);
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, "text/html".parse().unwrap());
        let error = negotiate(&headers, Kind::List).unwrap_err();
        assert_eq!(error.code(), 406);
        let text = String::from_utf8(error.to_json()).unwrap();
        assert!(text.contains("accepted: application/json, application/yaml"), "{text}");
    }

    #[test]
    fn c037_protobuf_and_cbor_fall_through() {
        for text in ["application/vnd.kubernetes.protobuf,application/json", "application/cbor,*/*"] {
            assert_eq!(accept(text, Kind::List), Some((Form::Object, Format::Json)), "{text}");
        }
        assert_eq!(accept("application/vnd.kubernetes.protobuf", Kind::List), None);
        let metadata = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,\
                        application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json";
        assert_eq!(accept(metadata, Kind::List), Some((Form::Metadata(MetaVersion::V1), Format::Json)));
    }

    #[test]
    fn c245_c246_discovery_is_aggregated_for_those_who_know_the_form() {
        let v2 = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
        let beta = "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList";
        let client_go = format!("{v2},{beta},application/json");
        for (text, expected) in [
            ("", Some(false)),
            ("application/json", Some(false)),
            ("*/*", Some(false)),
            (v2, Some(true)),
            (&client_go, Some(true)),
            (beta, Some(false)),
            ("application/xml", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, text.parse().unwrap());
            assert_eq!(aggregated_discovery(&headers).ok(), expected, "{text}");
        }
    }

    #[test]
    fn c039_tables_in_both_versions() {
        let table = Some((Form::Table(MetaVersion::V1), Format::Json));
        for kind in [Kind::Single, Kind::List, Kind::Watch] {
            assert_eq!(accept(KUBECTL, kind), table);
        }
        let beta = Some((Form::Table(MetaVersion::V1Beta1), Format::Json));
        assert_eq!(accept("application/json;as=Table;v=v1beta1;g=meta.k8s.io", Kind::List), beta);
    }

    #[test]
    fn c040_metadata_forms_are_not_swapped() {
        let list = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
        let single = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
        assert_eq!(accept(list, Kind::Single), None);
        assert_eq!(accept(single, Kind::List), None);
        assert_eq!(accept(&single.replace("v=v1", "v=v2"), Kind::Watch), None);
        assert_eq!(accept(single, Kind::Watch), Some((Form::Metadata(MetaVersion::V1), Format::Json)));
        assert_eq!(accept("application/json;as=Table;g=other;v=v1", Kind::List), None);
    }
}
