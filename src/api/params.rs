//! Query parameters → what a list or a watch is asked for (C21–C26, C65–C72, C102–C107).

use std::time::Duration;

use super::encode::Include;
use super::selector::Selector;
use super::status::ApiError;
use crate::resource::{FieldError, ResourceType};
use crate::store::ResourceVersion;

/// The query of a request, decoded.
#[derive(Clone, Debug, Default)]
pub(super) struct Query(Vec<(String, String)>);

/// Which state a list or watch may start from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Match {
    /// This version or any later one.
    NotOlderThan,
    /// This version.
    Exact,
}

/// The parameters of a list or a watch.
#[derive(Clone, Debug)]
pub(super) struct ListOptions {
    /// Which objects.
    pub(super) selector: Selector,
    /// The version that was named; none for the parameter left out, which is not the same as 0.
    pub(super) resource_version: Option<ResourceVersion>,
    /// How the version is meant.
    pub(super) version_match: Option<Match>,
    /// The most items of a page; none for all.
    pub(super) limit: Option<usize>,
    /// The token of the page before.
    pub(super) continue_token: Option<String>,
    /// Whether a watch begins with the current state.
    pub(super) send_initial_events: Option<bool>,
    /// Whether a watch tells how far it is.
    pub(super) allow_bookmarks: bool,
    /// How long a watch lasts.
    pub(super) timeout: Option<Duration>,
}

impl Query {
    /// Decodes the query of a URL.
    pub(super) fn parse(query: &str) -> Self {
        let decode = |text: &str| {
            let spaced = text.replace('+', " ");
            percent_encoding::percent_decode_str(&spaced).decode_utf8_lossy().into_owned()
        };
        let pairs = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(name), decode(value))
        });
        Query(pairs.collect())
    }

    /// Returns the first value of a parameter.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Returns every value of a parameter.
    pub(super) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Returns the first value of a parameter, empty if there is none.
    pub(super) fn text(&self, name: &str) -> &str {
        self.get(name).unwrap_or_default()
    }

    /// Reads a boolean as Kubernetes does: absent, `0` and `false` are false, everything else is true (C21).
    pub(super) fn boolean(&self, name: &str) -> Option<bool> {
        self.get(name).map(|value| !(value == "0" || value.eq_ignore_ascii_case("false")))
    }

    /// Reads a whole number (C22).
    ///
    /// # Errors
    ///
    /// 400 when it is none.
    pub(super) fn integer(&self, name: &str) -> Result<Option<i64>, ApiError> {
        match self.text(name) {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| {
                ApiError::bad_request(format!(
                    "unable to parse query parameter {name}: {text:?} is not a number"
                ))
            }),
        }
    }

    /// Reads the version that a read has to be at least as new as (C53, C55).
    ///
    /// # Errors
    ///
    /// 400 when it is no number.
    pub(super) fn resource_version(&self) -> Result<Option<ResourceVersion>, ApiError> {
        match self.text("resourceVersion") {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| {
                ApiError::bad_request(format!("invalid resource version {text:?}: must be a number"))
            }),
        }
    }

    /// Reads what rows of tables carry (C43).
    ///
    /// # Errors
    ///
    /// 400 for a value that is not known.
    pub(super) fn include(&self) -> Result<Include, ApiError> {
        match self.text("includeObject") {
            "" | "Metadata" => Ok(Include::Metadata),
            "None" => Ok(Include::None),
            "Object" => Ok(Include::Object),
            other => Err(ApiError::bad_request(format!("unrecognized includeObject value: {other:?}"))),
        }
    }
}

impl ListOptions {
    /// Reads and checks the parameters of a list.
    ///
    /// # Errors
    ///
    /// 400 or 422, as the contract has it.
    pub(super) fn for_list(resource: &ResourceType, query: &Query) -> Result<Self, ApiError> {
        let mut options = Self::parse(resource, query)?;
        let mut errors = options.common_errors(query);
        if options.send_initial_events.is_some() {
            errors
                .push(FieldError::forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list"));
        }
        if !errors.is_empty() {
            return Err(ApiError::invalid_options("ListOptions", "meta.k8s.io", &errors));
        }
        if options.continue_token.is_some() && !matches!(query.text("resourceVersion"), "" | "0") {
            let message = "specifying resource version is not allowed when using continue";
            return Err(ApiError::bad_request(message));
        }
        options.resource_version = query.resource_version()?;
        Ok(options)
    }

    /// Reads and checks the parameters of a watch.
    ///
    /// # Errors
    ///
    /// 400 or 422, as the contract has it.
    pub(super) fn for_watch(resource: &ResourceType, query: &Query) -> Result<Self, ApiError> {
        let mut options = Self::parse(resource, query)?;
        let mut errors = Vec::new();
        let asked = query.text("resourceVersionMatch");
        match options.send_initial_events {
            Some(_) if asked != "NotOlderThan" => {
                let message = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
                errors.push(FieldError::forbidden("resourceVersionMatch", message));
            }
            None if !asked.is_empty() => {
                let message =
                    "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
                errors.push(FieldError::forbidden("resourceVersionMatch", message));
            }
            _ => {}
        }
        match asked {
            "" | "NotOlderThan" => {}
            other => errors.push(FieldError::not_supported("resourceVersionMatch", other, &["NotOlderThan"])),
        }
        // Without a version the initial events are asked for, and with them a match (C90).
        let is_matched = options.version_match.is_some() || matches!(query.text("resourceVersion"), "" | "0");
        if is_matched && options.continue_token.is_some() {
            let message = "resourceVersionMatch is forbidden when continue is provided";
            errors.push(FieldError::forbidden("resourceVersionMatch", message));
        }
        if !errors.is_empty() {
            return Err(ApiError::invalid_options("ListOptions", "meta.k8s.io", &errors));
        }
        options.resource_version = query.resource_version()?;
        Ok(options)
    }

    /// Reads everything but the version, which is looked at when it is clear that there may be one.
    fn parse(resource: &ResourceType, query: &Query) -> Result<Self, ApiError> {
        let version_match = match query.text("resourceVersionMatch") {
            "NotOlderThan" => Some(Match::NotOlderThan),
            "Exact" => Some(Match::Exact),
            _ => None,
        };
        let positive = |number: i64| u64::try_from(number).ok().filter(|number| *number > 0);
        let limit = query.integer("limit")?.and_then(positive);
        Ok(ListOptions {
            selector: Selector::parse(resource, query.text("labelSelector"), query.text("fieldSelector"))?,
            resource_version: None,
            version_match,
            limit: limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX)),
            continue_token: Some(query.text("continue").to_owned()).filter(|token| !token.is_empty()),
            send_initial_events: query.boolean("sendInitialEvents"),
            allow_bookmarks: query.boolean("allowWatchBookmarks").unwrap_or_default(),
            timeout: query.integer("timeoutSeconds")?.and_then(positive).map(Duration::from_secs),
        })
    }

    fn common_errors(&self, query: &Query) -> Vec<FieldError> {
        let field = "resourceVersionMatch";
        let mut errors = Vec::new();
        let asked = query.text(field);
        if asked.is_empty() {
            return errors;
        }
        if self.continue_token.is_some() {
            let message = "resourceVersionMatch is forbidden when continue is provided";
            errors.push(FieldError::forbidden(field, message));
        }
        if query.text("resourceVersion").is_empty() {
            let message = "resourceVersionMatch is forbidden unless resourceVersion is provided";
            errors.push(FieldError::forbidden(field, message));
        }
        if self.version_match.is_none() {
            errors.push(FieldError::not_supported(field, asked, &["Exact", "NotOlderThan", ""]));
        }
        if self.version_match == Some(Match::Exact) && query.text("resourceVersion") == "0" {
            let message = "resourceVersionMatch \"Exact\" is forbidden for resourceVersion \"0\"";
            errors.push(FieldError::forbidden(field, message));
        }
        errors
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packages() -> &'static ResourceType {
        crate::model::RESOURCES.iter().find(|resource| resource.plural == "packages").unwrap()
    }

    fn list(query: &str) -> Result<ListOptions, ApiError> {
        ListOptions::for_list(packages(), &Query::parse(query))
    }

    fn watch(query: &str) -> Result<ListOptions, ApiError> {
        ListOptions::for_watch(packages(), &Query::parse(query))
    }

    fn causes(result: Result<ListOptions, ApiError>) -> Vec<(String, String)> {
        let error = result.unwrap_err();
        assert_eq!(error.code(), 422);
        let status: serde_json::Value = serde_json::from_slice(&error.to_json()).unwrap();
        assert_eq!(status["details"]["group"], "meta.k8s.io");
        assert_eq!(status["details"]["kind"], "ListOptions");
        let message = status["message"].as_str().unwrap();
        assert!(message.starts_with("ListOptions.meta.k8s.io \"\" is invalid"), "{message}");
        let causes = status["details"]["causes"].as_array().unwrap();
        let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
        causes.iter().map(|cause| (text(&cause["reason"]), text(&cause["field"]))).collect()
    }

    #[test]
    fn c021_booleans_are_true_unless_they_say_no() {
        for (query, expected) in [
            ("", None),
            ("watch", Some(true)),
            ("watch=", Some(true)),
            ("watch=true", Some(true)),
            ("watch=x", Some(true)),
            ("watch=0", Some(false)),
            ("watch=FALSE", Some(false)),
        ] {
            assert_eq!(Query::parse(query).boolean("watch"), expected, "{query}");
        }
    }

    #[test]
    fn c022_numbers_have_to_be_numbers() {
        for query in ["limit=x", "timeoutSeconds=1.5", "limit=99999999999999999999"] {
            assert_eq!(list(query).unwrap_err().code(), 400, "{query}");
        }
        assert_eq!(list("limit=10").unwrap().limit, Some(10));
        assert_eq!(list("limit=-1").unwrap().limit, None);
        assert_eq!(
            list("labelSelector=a%3Db%2Cc").unwrap().selector,
            list("labelSelector=a=b,c").unwrap().selector
        );
    }

    #[test]
    fn c043_include_object_is_one_of_three() {
        assert_eq!(Query::parse("includeObject=Object").include(), Ok(Include::Object));
        assert_eq!(Query::parse("includeObject=x").include().unwrap_err().code(), 400);
    }

    #[test]
    fn c066_to_c072_list_options_are_checked() {
        let forbidden = |field: &str| ("FieldValueForbidden".to_owned(), field.to_owned());
        let unsupported = ("FieldValueNotSupported".to_owned(), "resourceVersionMatch".to_owned());
        let field = "resourceVersionMatch";
        assert_eq!(causes(list("resourceVersionMatch=Exact")), [forbidden(field)]);
        assert_eq!(
            causes(list("resourceVersionMatch=Exact&resourceVersion=1&continue=x")),
            [forbidden(field)]
        );
        assert_eq!(causes(list("resourceVersionMatch=x&resourceVersion=1")), [unsupported]);
        assert_eq!(causes(list("resourceVersionMatch=Exact&resourceVersion=0")), [forbidden(field)]);
        assert_eq!(causes(list("sendInitialEvents=true")), [forbidden("sendInitialEvents")]);
        assert_eq!(list("resourceVersion=x").unwrap_err().code(), 400);
        assert_eq!(list("continue=x&resourceVersion=5").unwrap_err().code(), 400);
        assert!(list("continue=x&resourceVersion=0").is_ok());
    }

    #[test]
    fn c102_to_c107_watch_options_are_checked() {
        let forbidden = ("FieldValueForbidden".to_owned(), "resourceVersionMatch".to_owned());
        let unsupported = ("FieldValueNotSupported".to_owned(), "resourceVersionMatch".to_owned());
        assert_eq!(causes(watch("sendInitialEvents=true")), std::slice::from_ref(&forbidden));
        assert_eq!(causes(watch("resourceVersionMatch=NotOlderThan")), std::slice::from_ref(&forbidden));
        let exact = "sendInitialEvents=true&resourceVersionMatch=Exact&resourceVersion=1";
        assert!(causes(watch(exact)).contains(&unsupported));
        let continued = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&continue=x";
        assert_eq!(causes(watch(continued)), [forbidden]);
        let plain = watch("sendInitialEvents=true&resourceVersionMatch=NotOlderThan").unwrap();
        assert_eq!((plain.send_initial_events, plain.allow_bookmarks), (Some(true), false));
    }
}
