//! Reads the tables `[tool.automation.parameters.NAME]` into a parameter schema.
//!
//! A keyword that can have no effect is an error, as is a default that the parameter would not accept.

use std::collections::BTreeMap;
use std::ops::Range;

use serde_json::{Map, Value, json};
use toml::de::{DeTable, DeValue};

use super::fields::{self, Fields, Findings};
use super::message::quote;
use super::metadata::{Entry, Metadata};
use super::parameters::{Parameter, ParameterSchema, compile};
use super::problems::detail;
use crate::limits;

/// The name of a JSON type.
type Type = &'static str;

const TYPES: [Type; 6] = ["string", "number", "integer", "boolean", "array", "object"];
const NUMERIC: &[Type] = &["number", "integer"];

/// A keyword of JSON Schema that a parameter and the items of an array may have.
struct Keyword {
    name: &'static str,
    types: &'static [Type],
    expected: &'static str,
    read: for<'v> fn(&'v DeValue<'v>) -> Option<Value>,
}

const KEYWORDS: [Keyword; 8] = [
    Keyword {
        name: "description",
        types: &TYPES,
        expected: "a string",
        read: string,
    },
    Keyword {
        name: "enum",
        types: &TYPES,
        expected: "a list of at least one JSON value",
        read: choices,
    },
    Keyword {
        name: "minimum",
        types: NUMERIC,
        expected: "a number",
        read: number,
    },
    Keyword {
        name: "maximum",
        types: NUMERIC,
        expected: "a number",
        read: number,
    },
    Keyword {
        name: "minLength",
        types: &["string"],
        expected: "a whole number from 0",
        read: length,
    },
    Keyword {
        name: "maxLength",
        types: &["string"],
        expected: "a whole number from 0",
        read: length,
    },
    Keyword {
        name: "pattern",
        types: &["string"],
        expected: "a string",
        read: string,
    },
    Keyword {
        name: "maxItems",
        types: &["array"],
        expected: "a whole number from 0",
        read: length,
    },
];

/// Reads the table of parameters of a script with this metadata.
pub(super) fn read(
    table: &DeTable<'_>,
    metadata: &Metadata,
    findings: &mut Findings<'_>,
) -> ParameterSchema {
    let mut parameters = BTreeMap::new();
    for (key, value) in table {
        let name: &str = key.get_ref();
        if let Some(fault) = name_fault(name, metadata.entry) {
            findings.error(&key.span(), fault);
            continue;
        }
        let Some(table) = value.get_ref().as_table() else {
            let message =
                format!("parameter {name}: expected a table, for instance {{ type = \"string\" }}");
            findings.error(&value.span(), message);
            continue;
        };
        let mut fields = Fields::new(format!("parameter {name}"), table, findings);
        let parameter = parameter(&mut fields, &key.span());
        if metadata.category.is_some() && parameter.as_ref().is_some_and(|read| read.required) {
            fields.warning(
                "required",
                "runs for tickets of the category are refused, since they give no parameters",
            );
        }
        fields.finish();
        parameters.extend(parameter.map(|read| (name.to_owned(), read)));
    }
    ParameterSchema::new(parameters)
}

/// Returns why a name can't be that of a parameter: it becomes a keyword argument or a key, and must mean nothing
/// to Python.
pub(super) fn name_fault(name: &str, entry: Entry) -> Option<String> {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    if !(1..=64).contains(&name.len())
        || name.starts_with(|first: char| first.is_ascii_digit())
        || !name.bytes().all(word)
    {
        return Some(format!(
            "{} is not a parameter's name: expected a letter or _, then at most 63 letters, digits or _",
            quote(name)
        ));
    }
    if name.starts_with("__") && name.ends_with("__") {
        return Some(format!(
            "parameter {name}: names with __ at both ends belong to Python"
        ));
    }
    (name == "ctx" && entry == Entry::Run)
        .then(|| "parameter ctx: `run` gets its context under this name".to_owned())
}

fn parameter(fields: &mut Fields<'_, '_, '_>, header: &Range<usize>) -> Option<Parameter> {
    let read = schema(fields, header);
    let secret = fields.flag("secret").unwrap_or(false);
    let required = fields.flag("required").unwrap_or(false);
    if secret {
        check_secret(fields, read.as_ref().map(|(kind, _)| *kind));
    }
    if required && fields.raw("default").is_some() {
        fields.error(
            "required",
            "required = true and a default exclude each other",
        );
    }
    // A message must not show what was meant to be a secret's default.
    let default = fields
        .raw("default")
        .filter(|_| !secret)
        .and_then(|_| fields.read("default", fields::JSON, fields::json));
    read.map(|(kind, mut schema)| {
        if let Some(default) = &default {
            check_values(fields, "default", &schema, std::slice::from_ref(default));
            schema.insert("default".to_owned(), default.clone());
        }
        if secret {
            schema.insert("writeOnly".to_owned(), Value::Bool(true));
        }
        Parameter {
            kind: kind.into(),
            schema,
            default,
            required,
            secret,
        }
    })
}

/// Reads the keywords of one value: a parameter, or the items of an array. The answer always compiles.
fn schema(
    fields: &mut Fields<'_, '_, '_>,
    header: &Range<usize>,
) -> Option<(Type, Map<String, Value>)> {
    let kind = kind(fields, header);
    let mut schema = Map::new();
    for keyword in &KEYWORDS {
        if let Some(value) = fields.read(keyword.name, keyword.expected, keyword.read)
            && has_effect(fields, keyword.name, keyword.types, kind)
        {
            schema.insert(keyword.name.to_owned(), value);
        }
    }
    if let Some(items) = items(fields, kind) {
        schema.insert("items".to_owned(), items);
    }
    check_pattern(fields, &mut schema);
    check_order(fields, &schema, "minimum", "maximum");
    check_order(fields, &schema, "minLength", "maxLength");
    let kind = kind?;
    schema.insert("type".to_owned(), Value::from(kind));
    check_choices(fields, &schema);
    Some((kind, schema))
}

fn kind(fields: &mut Fields<'_, '_, '_>, header: &Range<usize>) -> Option<Type> {
    let expected = format!("one of {}", TYPES.join(", "));
    if fields.raw("type").is_none() {
        fields.error_at(header, &format!("type is missing, expected {expected}"));
    }
    fields.read("type", &expected, |value| {
        let name = value.as_str()?;
        TYPES.into_iter().find(|known| *known == name)
    })
}

/// Returns whether a keyword means something for a type; a type that is not known was reported.
fn has_effect(
    fields: &mut Fields<'_, '_, '_>,
    name: &str,
    types: &[Type],
    kind: Option<Type>,
) -> bool {
    match kind {
        Some(kind) if !types.contains(&kind) => {
            let types = types.join(" and ");
            fields.error(
                name,
                &format!("{name} has no effect on type {kind}, it is for {types}"),
            );
            false
        }
        _ => true,
    }
}

fn items(fields: &mut Fields<'_, '_, '_>, kind: Option<Type>) -> Option<Value> {
    let header = fields.raw("items")?.span();
    let table = fields.read(
        "items",
        "a table, for instance { type = \"string\" }",
        DeValue::as_table,
    )?;
    if !has_effect(fields, "items", &["array"], kind) {
        return None;
    }
    let mut nested = fields.nested("items", table);
    let schema = schema(&mut nested, &header);
    nested.finish();
    schema.map(|(_, schema)| Value::Object(schema))
}

fn check_secret(fields: &mut Fields<'_, '_, '_>, kind: Option<Type>) {
    if kind.is_some_and(|kind| kind != "string") {
        fields.error("secret", "only a string can be secret");
    }
    for (key, thing) in [("default", "a default"), ("enum", "an enum")] {
        if fields.raw(key).is_some() {
            fields.error(
                key,
                &format!("a secret can't have {thing}: schemas are shown to everyone"),
            );
        }
    }
}

/// Checks a pattern, and takes one that does not compile out of the schema.
fn check_pattern(fields: &mut Fields<'_, '_, '_>, schema: &mut Map<String, Value>) {
    let Some(Value::String(pattern)) = schema.get("pattern") else {
        return;
    };
    if compile(&json!({ "pattern": pattern })).is_err() {
        let message = format!(
            "pattern is {}, expected a regular expression, without look-around and back-references",
            quote(pattern)
        );
        fields.error("pattern", &message);
        schema.remove("pattern");
    } else if !(pattern.starts_with('^') && pattern.ends_with('$')) {
        fields.warning(
            "pattern",
            "pattern may match a part of the text: start it with ^ and end it with $ to mean all of it",
        );
    }
}

fn check_order(
    fields: &mut Fields<'_, '_, '_>,
    schema: &Map<String, Value>,
    low: &str,
    high: &str,
) {
    if let (Some(least), Some(most)) = (schema.get(low), schema.get(high))
        && least.as_f64() > most.as_f64()
    {
        fields.error(
            high,
            &format!("{high} is {most}, expected at least {low}, which is {least}"),
        );
    }
}

fn check_choices(fields: &mut Fields<'_, '_, '_>, schema: &Map<String, Value>) {
    let mut rest = schema.clone();
    if let Some(Value::Array(choices)) = rest.remove("enum") {
        check_values(fields, "enum", &rest, &choices);
    }
}

/// Reports values under `key` that the schema would not accept.
fn check_values(
    fields: &mut Fields<'_, '_, '_>,
    key: &str,
    schema: &Map<String, Value>,
    values: &[Value],
) {
    let validator = compile(&Value::Object(schema.clone())).expect("`schema` gives what compiles");
    for error in values.iter().flat_map(|value| validator.iter_errors(value)) {
        fields.error(
            key,
            &format!(
                "{key}{} does not fit: {}",
                error.instance_path(),
                detail(&error, false)
            ),
        );
    }
}

fn string(value: &DeValue<'_>) -> Option<Value> {
    fields::json(value).filter(Value::is_string)
}

fn number(value: &DeValue<'_>) -> Option<Value> {
    fields::number(value).map(Value::Number)
}

fn length(value: &DeValue<'_>) -> Option<Value> {
    fields::integer(value)
        .filter(|length| (0..=limits::JSON_INTEGER_MAX).contains(length))
        .map(Value::from)
}

fn choices(value: &DeValue<'_>) -> Option<Value> {
    fields::json(value).filter(|value| value.as_array().is_some_and(|choices| !choices.is_empty()))
}
