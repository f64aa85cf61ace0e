//! Words what is wrong with a parameter object: what is expected, what was given, and never a secret.

use std::collections::BTreeMap;

use jsonschema::ValidationError;
use jsonschema::error::{TypeKind, ValidationErrorKind};
use serde_json::Value;

use super::message::{instead, list, quote, show};
use super::parameters::Parameter;
use crate::error::Problem;
use crate::limits::PROBLEMS_MAX;

/// Returns the problems behind the errors, sorted by place.
pub(super) fn problems<'e>(
    errors: impl Iterator<Item = ValidationError<'e>>,
    parameters: &BTreeMap<String, Parameter>,
) -> Vec<Problem> {
    let mut problems: Vec<_> = errors
        .flat_map(|error| match error.kind() {
            ValidationErrorKind::AdditionalProperties { unexpected } => unexpected
                .iter()
                .map(|name| unknown(name, parameters))
                .collect(),
            ValidationErrorKind::Required { property } => vec![missing(property, parameters)],
            _ => vec![misfit(&error, parameters)],
        })
        .collect();
    problems.sort_by(|a, b| a.pointer.cmp(&b.pointer));
    if problems.len() > PROBLEMS_MAX {
        let more = problems.len() - PROBLEMS_MAX;
        problems.truncate(PROBLEMS_MAX);
        problems.push(Problem::new("", format!("{more} more problems")));
    }
    problems
}

/// Words one error, without its place. The value that was given is left out when it is a secret.
pub(super) fn detail(error: &ValidationError<'_>, secret: bool) -> String {
    let given = error.instance();
    let (expected, got) = match error.kind() {
        ValidationErrorKind::Type {
            kind: TypeKind::Single(kind),
        } => (kind.to_string(), show(given)),
        ValidationErrorKind::Type {
            kind: TypeKind::Multiple(kinds),
        } => {
            let kinds: Vec<_> = kinds.iter().map(|kind| kind.to_string()).collect();
            (kinds.join(" or "), show(given))
        }
        ValidationErrorKind::Minimum { limit } => (format!("at least {limit}"), show(given)),
        ValidationErrorKind::Maximum { limit } => (format!("at most {limit}"), show(given)),
        ValidationErrorKind::Enum { options } => {
            (format!("one of {}", choices(options)), show(given))
        }
        ValidationErrorKind::Pattern { pattern } => {
            (format!("a string that matches {pattern}"), show(given))
        }
        ValidationErrorKind::MinLength { limit } => {
            (format!("at least {limit} characters"), length(given))
        }
        ValidationErrorKind::MaxLength { limit } => {
            (format!("at most {limit} characters"), length(given))
        }
        ValidationErrorKind::MaxItems { limit } => {
            (format!("at most {limit} items"), length(given))
        }
        _ => return error.masked().to_string(),
    };
    if secret {
        format!("expected {expected}")
    } else {
        format!("expected {expected}, got {got}")
    }
}

fn misfit(error: &ValidationError<'_>, parameters: &BTreeMap<String, Parameter>) -> Problem {
    let pointer = error.instance_path().as_str();
    // A parameter's name holds neither `/` nor `~`, so its pointer is not escaped.
    let name = pointer.split('/').nth(1).unwrap_or_default();
    let secret = parameters
        .get(name)
        .is_some_and(|parameter| parameter.secret);
    Problem::new(pointer, detail(error, secret))
}

fn unknown(name: &str, parameters: &BTreeMap<String, Parameter>) -> Problem {
    let hint = if parameters.is_empty() {
        "the script takes none".to_owned()
    } else {
        instead(name, parameters.keys().map(String::as_str))
    };
    Problem::new(pointer(name), format!("unknown parameter, {hint}"))
}

fn missing(property: &Value, parameters: &BTreeMap<String, Parameter>) -> Problem {
    let name = property.as_str().unwrap_or_default();
    let kind = parameters
        .get(name)
        .map_or("value", |parameter| &*parameter.kind);
    Problem::new(pointer(name), format!("missing, expected {kind}"))
}

fn pointer(name: &str) -> String {
    format!("/{}", name.replace('~', "~0").replace('/', "~1"))
}

fn choices(options: &Value) -> String {
    let options = options.as_array().map(Vec::as_slice).unwrap_or_default();
    list(options.iter().map(|option| match option {
        Value::String(text) => quote(text),
        other => other.to_string(),
    }))
}

fn length(value: &Value) -> String {
    match value {
        Value::String(text) => text.chars().count().to_string(),
        Value::Array(items) => items.len().to_string(),
        _ => show(value),
    }
}
