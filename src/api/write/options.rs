//! The options of a write, as the query says them: CreateOptions, UpdateOptions, PatchOptions (C167, C171, C172, C194, C199).

use axum::http::{HeaderMap, header};

use crate::api::params::Query;
use crate::api::status::ApiError;
use crate::resource::{FieldError, FieldErrorReason};

/// Characters of the name of a manager (C172).
const MAX_MANAGER: usize = 128;

/// What the options of all writes have in common.
#[derive(Clone, Debug)]
pub(in crate::api) struct WriteOptions {
    /// What is done.
    pub(super) of: OptionsOf,
    /// Who makes the change.
    pub(super) manager: String,
    /// What becomes of fields that are unknown or given twice.
    pub(super) field_validation: FieldValidation,
    /// Everything is done but kept (C200).
    pub(super) is_dry_run: bool,
    /// Whether an apply takes what others own.
    pub(super) is_forced: bool,
}

/// What becomes of fields that are unknown or given twice (C194).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FieldValidation {
    /// They are an error.
    Strict,
    /// They are dropped, and the client is told.
    Warn,
    /// They are dropped.
    Ignore,
}

/// What the options are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::api) enum OptionsOf {
    /// A POST.
    Create,
    /// A PUT.
    Update,
    /// A PATCH that is not an apply.
    Patch,
    /// A PATCH that is one.
    Apply,
}

impl OptionsOf {
    fn kind(self) -> &'static str {
        match self {
            OptionsOf::Create => "CreateOptions",
            OptionsOf::Update => "UpdateOptions",
            OptionsOf::Patch | OptionsOf::Apply => "PatchOptions",
        }
    }
}

impl WriteOptions {
    /// Reads and checks the options. Who does not name the manager is named after the program (C187).
    ///
    /// # Errors
    ///
    /// 422 with everything that is wrong.
    pub(in crate::api) fn parse(of: OptionsOf, query: &Query, headers: &HeaderMap) -> Result<Self, ApiError> {
        let mut errors = Vec::new();
        let (is_dry_run, wrong) = dry_run(query.all("dryRun"));
        errors.extend(wrong);
        let field_validation = match query.text("fieldValidation") {
            "" | "Warn" => FieldValidation::Warn,
            "Strict" => FieldValidation::Strict,
            "Ignore" => FieldValidation::Ignore,
            other => {
                let known = ["", "Ignore", "Strict", "Warn"];
                errors.push(FieldError::not_supported("fieldValidation", other, &known));
                FieldValidation::Strict
            }
        };
        let force = query.boolean("force");
        if of == OptionsOf::Patch && force.is_some() {
            errors.push(FieldError::forbidden("force", "may not be specified for non-apply patch"));
        }
        let named = query.text("fieldManager");
        errors.extend(check_manager(named));
        let manager = match named {
            "" if of == OptionsOf::Apply => {
                errors.push(FieldError::required("fieldManager", "is required for apply patch"));
                String::new()
            }
            "" => program(headers),
            named => named.to_owned(),
        };
        if !errors.is_empty() {
            return Err(ApiError::invalid_options(of.kind(), "meta.k8s.io", &errors));
        }
        let is_forced = force.unwrap_or_default();
        Ok(WriteOptions { of, manager, field_validation, is_dry_run, is_forced })
    }
}

/// Reads whether nothing is to be kept, and what is wrong with how that is said (C199).
pub(super) fn dry_run<'a>(values: impl Iterator<Item = &'a str>) -> (bool, Option<FieldError>) {
    let values: Vec<_> = values.collect();
    let wrong = values.iter().any(|value| *value != "All");
    let wrong = wrong.then(|| FieldError::not_supported("dryRun", values.clone(), &["All"]));
    (!values.is_empty(), wrong)
}

/// Returns what is wrong with the name of a manager (C172).
pub(super) fn check_manager(name: &str) -> Option<FieldError> {
    let field = "fieldManager";
    if name.chars().count() > MAX_MANAGER {
        let message = format!("may not be more than {MAX_MANAGER} bytes");
        return Some(FieldError::too_long(field, &message));
    }
    let odd = name.chars().find(|character| !is_printable(*character))?;
    Some(FieldError {
        reason: FieldErrorReason::Invalid,
        field: field.to_owned(),
        message: format!("Invalid value: {name:?}: should only contain printable characters, not {odd:?}"),
    })
}

/// Returns the name of the program that sent a request: its User-Agent up to the version (C187).
fn program(headers: &HeaderMap) -> String {
    let agent = headers.get(header::USER_AGENT).map(|agent| String::from_utf8_lossy(agent.as_bytes()));
    let agent = agent.unwrap_or_default();
    let name = agent.split('/').next().unwrap_or_default();
    let mut program = String::new();
    for character in name.chars().filter(|character| is_printable(*character)) {
        if program.len() + character.len_utf8() > MAX_MANAGER {
            break;
        }
        program.push(character);
    }
    program
}

fn is_printable(character: char) -> bool {
    match character {
        ' ' | '\'' | '"' | '\\' => true,
        // Rust escapes what cannot be seen.
        other => !other.is_whitespace() && other.escape_debug().len() == 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(of: OptionsOf, query: &str) -> Result<WriteOptions, Vec<String>> {
        let mut headers = HeaderMap::new();
        headers.insert(header::USER_AGENT, "kubectl/v1.32 (linux)".parse().unwrap());
        WriteOptions::parse(of, &Query::parse(query), &headers).map_err(|error| {
            assert_eq!(error.code(), 422);
            let status: serde_json::Value = serde_json::from_slice(&error.to_json()).unwrap();
            assert_eq!(status["details"]["kind"], of.kind());
            let causes = status["details"]["causes"].as_array().unwrap();
            let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
            causes.iter().map(|cause| text(&cause["reason"]) + " " + &text(&cause["field"])).collect()
        })
    }

    #[test]
    fn c172_names_of_managers_are_short_and_printable() {
        for (length, fits) in [(127, true), (128, true), (129, false)] {
            assert_eq!(check_manager(&"é".repeat(length)).is_none(), fits, "{length}");
        }
        for name in ["", "kubectl", "my manager", "\"quoted\" \\ 'it'", "größe", "日本"] {
            assert_eq!(check_manager(name), None, "{name:?}");
        }
        for name in ["a\n", "\u{7f}", "\u{200b}", "a\tb", "\u{a0}"] {
            assert!(check_manager(name).is_some(), "{name:?}");
        }
        assert_eq!(
            parse(OptionsOf::Create, "fieldManager=a%0A").unwrap_err(),
            ["FieldValueInvalid fieldManager"]
        );
        let long = format!("fieldManager={}", "x".repeat(129));
        assert_eq!(parse(OptionsOf::Update, &long).unwrap_err(), ["FieldValueTooLong fieldManager"]);
    }

    #[test]
    fn c171_c187_an_apply_names_its_manager_and_others_are_named_after_the_program() {
        assert_eq!(parse(OptionsOf::Apply, "").unwrap_err(), ["FieldValueRequired fieldManager"]);
        assert_eq!(parse(OptionsOf::Apply, "fieldManager=me").unwrap().manager, "me");
        assert_eq!(parse(OptionsOf::Patch, "").unwrap().manager, "kubectl");
        for (agent, expected) in [
            (&b"curl"[..], "curl"),
            (b"/x", ""),
            (b"a\xc3\xbc/1", "aü"),
            (&[b'x'; 300][..], &"x".repeat(128)),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::USER_AGENT, axum::http::HeaderValue::from_bytes(agent).unwrap());
            assert_eq!(program(&headers), expected);
        }
        assert_eq!(program(&HeaderMap::new()), "");
    }

    #[test]
    fn c167_c194_c199_every_option_that_is_wrong_is_named() {
        let wrong = parse(OptionsOf::Patch, "force=false&dryRun=None&fieldValidation=Loose").unwrap_err();
        let expected = [
            "FieldValueNotSupported dryRun",
            "FieldValueNotSupported fieldValidation",
            "FieldValueForbidden force",
        ];
        assert_eq!(wrong, expected);
        let options = parse(OptionsOf::Apply, "fieldManager=a&force=true&dryRun=All").unwrap();
        assert!(options.is_forced && options.is_dry_run);
        assert_eq!(options.field_validation, FieldValidation::Warn);
        assert_eq!(parse(OptionsOf::Create, "dryRun=").unwrap_err(), ["FieldValueNotSupported dryRun"]);
    }
}
