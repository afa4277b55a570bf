//! What a request is about, read from its method, path and query (C15–C19).

use axum::http::Method;
use axum::http::request::Parts;

use super::auth::Attributes;
use super::params::Query;
use super::selector::{field_requirements, label_requirements, name_in};

impl Attributes {
    /// Reads the attributes of a request.
    pub(super) fn of(parts: &Parts) -> Self {
        let path = parts.uri.path();
        let non_resource = || Attributes {
            verb: parts.method.as_str().to_ascii_lowercase(),
            path: path.to_owned(),
            ..Attributes::default()
        };
        let segments: Vec<_> = path.split('/').skip(1).map(decode).collect();
        let segments: Vec<_> = segments.iter().map(String::as_str).collect();
        let (group, version, rest) = match &segments[..] {
            ["apis", group, version, rest @ ..] if !rest.is_empty() => (*group, *version, rest),
            _ => return non_resource(),
        };
        let (namespace, rest) = match rest {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (*namespace, rest),
            rest => ("", rest),
        };
        let part = |index: usize| rest.get(index).copied().unwrap_or_default().to_owned();
        let mut attributes = Attributes {
            verb: String::new(),
            group: group.to_owned(),
            version: version.to_owned(),
            resource: part(0),
            subresource: rest.get(2..).unwrap_or_default().join("/"),
            namespace: namespace.to_owned(),
            name: part(1),
            path: path.to_owned(),
            ..Attributes::default()
        };
        let query = Query::parse(parts.uri.query().unwrap_or_default());
        attributes.verb = verb(&parts.method, &attributes.name, &query);
        if matches!(&*attributes.verb, "list" | "watch" | "deletecollection") {
            let fields = query.text("fieldSelector");
            attributes.name = name_in(fields).unwrap_or_default();
            attributes.field_selector = field_requirements(fields);
            attributes.label_selector = label_requirements(query.text("labelSelector"));
        }
        attributes
    }

    /// Returns whether the request is about a resource, and not just a path.
    pub fn is_resource(&self) -> bool {
        !self.resource.is_empty()
    }

    /// Returns whether the request may stay open for long.
    pub(super) fn is_long_running(&self) -> bool {
        self.is_resource() && self.verb == "watch"
    }
}

fn verb(method: &Method, name: &str, query: &Query) -> String {
    let is_collection = name.is_empty();
    match *method {
        Method::GET | Method::HEAD if !is_collection => "get",
        Method::GET | Method::HEAD if query.boolean("watch").unwrap_or_default() => "watch",
        Method::GET | Method::HEAD => "list",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE if is_collection => "deletecollection",
        Method::DELETE => "delete",
        _ => return method.as_str().to_ascii_lowercase(),
    }
    .to_owned()
}

fn decode(segment: &str) -> String {
    percent_encoding::percent_decode_str(segment).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    fn attributes(method: &str, uri: &str) -> String {
        let request = Request::builder().method(method).uri(uri).body(()).unwrap();
        let of = Attributes::of(&request.into_parts().0);
        let Attributes { verb, group, version, resource, subresource, namespace, name, path, .. } = of;
        if resource.is_empty() {
            return format!("{verb} {path}");
        }
        format!("{verb} {group}/{version} {namespace}|{resource}|{name}|{subresource}")
    }

    #[test]
    fn c018_verbs_follow_method_and_path() {
        let root = "/apis/g.io/v1";
        for (method, path, expected) in [
            ("GET", "/things", "list g.io/v1 |things||"),
            ("GET", "/things?watch=1", "watch g.io/v1 |things||"),
            ("GET", "/things?watch=false", "list g.io/v1 |things||"),
            ("GET", "/namespaces/n/things", "list g.io/v1 n|things||"),
            ("POST", "/namespaces/n/things", "create g.io/v1 n|things||"),
            ("DELETE", "/namespaces/n/things", "deletecollection g.io/v1 n|things||"),
            ("GET", "/namespaces/n/things/x", "get g.io/v1 n|things|x|"),
            ("GET", "/namespaces/n/things/x?watch", "get g.io/v1 n|things|x|"),
            ("PUT", "/namespaces/n/things/x", "update g.io/v1 n|things|x|"),
            ("PATCH", "/namespaces/n/things/x/status", "patch g.io/v1 n|things|x|status"),
            ("DELETE", "/namespaces/n/things/x", "delete g.io/v1 n|things|x|"),
            ("GET", "/namespaces/n/things/a%2Fb", "get g.io/v1 n|things|a/b|"),
        ] {
            assert_eq!(attributes(method, &format!("{root}{path}")), expected, "{method} {path}");
        }
        assert_eq!(attributes("GET", "/apis/g.io/v1"), "get /apis/g.io/v1");
        assert_eq!(attributes("GET", "/metrics"), "get /metrics");
    }

    #[test]
    fn c019_a_selected_name_is_the_name() {
        let list = "/apis/g.io/v1/namespaces/n/things?fieldSelector=metadata.name";
        assert_eq!(attributes("GET", &format!("{list}%3Dx")), "list g.io/v1 n|things|x|");
        assert_eq!(attributes("GET", &format!("{list}%3Dx%2Cspec.a%3Db")), "list g.io/v1 n|things|x|");
        assert_eq!(attributes("GET", &format!("{list}!%3Dx")), "list g.io/v1 n|things||");
    }
}
