//! What a script promises of its result: `[tool.automation.output_schema]`, a JSON Schema, compiled once (rule O8).
//!
//! A keyword that can have no effect is an error, and there are no references: nothing is fetched, nothing recurs.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use jsonschema::Validator;
use jsonschema::paths::LocationSegment;
use serde_json::Value;
use toml::de::{DeTable, DeValue};

use super::fields::{self, Findings};
use super::message::{instead, quote};
use super::parameters::compile;
use super::problems::detail;
use crate::json;

/// The schema of a script's result. Clones share it.
#[derive(Clone)]
pub struct OutputSchema(Arc<Compiled>);

struct Compiled {
    schema: Value,
    validator: Validator,
}

/// Where and why a result does not fit. Holds names of the result, never its values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misfit {
    /// The way to what does not fit, from the outside in; not escaped.
    pub path: Vec<String>,
    /// What is expected there.
    pub detail: String,
}

impl OutputSchema {
    /// Returns the JSON Schema (draft 2020-12), without references.
    #[must_use]
    pub fn schema(&self) -> &Value {
        &self.0.schema
    }

    /// Returns the first thing that does not fit, if anything does not.
    ///
    /// # Examples
    /// ```
    /// use automation_core::Script;
    /// use serde_json::json;
    ///
    /// let source = b"# /// script\n# [tool.automation.output_schema.properties.freed]\n# type = \"number\"\n# ///\n";
    /// let script = Script::parse("clean.py", source).unwrap();
    /// let schema = script.output_schema().unwrap();
    /// assert_eq!(schema.misfit(&json!({"freed": 2.5})), None);
    /// let misfit = schema.misfit(&json!({"freed": "much"})).unwrap();
    /// assert_eq!((misfit.path, misfit.detail), (vec!["freed".to_owned()], "expected number".to_owned()));
    /// ```
    #[must_use]
    pub fn misfit(&self, result: &Value) -> Option<Misfit> {
        let error = self.0.validator.validate(result).err()?;
        let path = error.instance_path().segments();
        Some(Misfit {
            path: path.map(|segment| segment.to_string()).collect(),
            detail: detail(&error, true),
        })
    }
}

impl fmt::Debug for OutputSchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OutputSchema").field(&self.0.schema).finish()
    }
}

/// What stands behind a keyword.
#[derive(Debug, Clone, Copy)]
enum Holds {
    /// A schema.
    Schema,
    /// A list of schemas.
    List,
    /// Schemas by names that the script chooses.
    Names,
    /// No schema.
    Data,
}

const KEYWORDS: [(&str, Holds); 42] = [
    ("properties", Holds::Names),
    ("required", Holds::Data),
    ("type", Holds::Data),
    ("enum", Holds::Data),
    ("const", Holds::Data),
    ("items", Holds::Schema),
    ("additionalProperties", Holds::Schema),
    ("minimum", Holds::Data),
    ("maximum", Holds::Data),
    ("exclusiveMinimum", Holds::Data),
    ("exclusiveMaximum", Holds::Data),
    ("multipleOf", Holds::Data),
    ("minLength", Holds::Data),
    ("maxLength", Holds::Data),
    ("pattern", Holds::Data),
    ("minItems", Holds::Data),
    ("maxItems", Holds::Data),
    ("uniqueItems", Holds::Data),
    ("minProperties", Holds::Data),
    ("maxProperties", Holds::Data),
    ("description", Holds::Data),
    ("title", Holds::Data),
    ("examples", Holds::Data),
    ("deprecated", Holds::Data),
    ("$comment", Holds::Data),
    ("allOf", Holds::List),
    ("anyOf", Holds::List),
    ("oneOf", Holds::List),
    ("not", Holds::Schema),
    ("if", Holds::Schema),
    ("then", Holds::Schema),
    ("else", Holds::Schema),
    ("prefixItems", Holds::List),
    ("contains", Holds::Schema),
    ("minContains", Holds::Data),
    ("maxContains", Holds::Data),
    ("patternProperties", Holds::Names),
    ("propertyNames", Holds::Schema),
    ("dependentRequired", Holds::Data),
    ("dependentSchemas", Holds::Names),
    ("unevaluatedItems", Holds::Schema),
    ("unevaluatedProperties", Holds::Schema),
];

/// Reads the table of an output schema; `None` when something is wrong with it, and reported.
pub(super) fn read(table: &DeTable<'_>, findings: &mut Findings<'_>) -> Option<OutputSchema> {
    let mut keywords = Keywords {
        findings,
        fine: true,
    };
    keywords.check_table(table);
    if !keywords.fine {
        return None;
    }
    let Some(schema) = as_json(table) else {
        let message = format!("output_schema: expected {} for every value", fields::JSON);
        findings.error(&place(table, &[]), message);
        return None;
    };
    if let Err(problem) = json::check(&schema) {
        findings.error(&place(table, &[]), format!("output_schema: {problem}"));
        return None;
    }
    match compile(&schema) {
        Ok(validator) => Some(OutputSchema(Arc::new(Compiled { schema, validator }))),
        Err(error) => {
            let path: Vec<_> = error.instance_path().segments().collect();
            let message = format!(
                "output_schema{}: no JSON Schema (draft 2020-12): {}",
                error.instance_path(),
                error.masked()
            );
            findings.error(&place(table, &path), message);
            None
        }
    }
}

fn as_json(table: &DeTable<'_>) -> Option<Value> {
    let fields = table
        .iter()
        .map(|(key, item)| Some((key.get_ref().to_string(), fields::json(item.get_ref())?)));
    fields.collect::<Option<_>>().map(Value::Object)
}

/// Checks that every keyword is one that has an effect.
struct Keywords<'f, 'b> {
    findings: &'f mut Findings<'b>,
    fine: bool,
}

impl Keywords<'_, '_> {
    fn check(&mut self, schema: &DeValue<'_>) {
        if let Some(table) = schema.as_table() {
            self.check_table(table);
        }
    }

    fn check_table(&mut self, table: &DeTable<'_>) {
        for (key, value) in table {
            let name: &str = key.get_ref();
            let value = value.get_ref();
            let known = KEYWORDS.iter().find(|(keyword, _)| *keyword == name);
            match known.map(|(_, holds)| holds) {
                None => self.refuse(name, &key.span()),
                Some(Holds::Schema) => self.check(value),
                Some(Holds::List) => {
                    let schemas = value.as_array().into_iter().flatten();
                    schemas.for_each(|schema| self.check(schema.get_ref()));
                }
                Some(Holds::Names) => {
                    let schemas = value.as_table().into_iter().flatten();
                    schemas.for_each(|(_, schema)| self.check(schema.get_ref()));
                }
                Some(Holds::Data) => {}
            }
        }
    }

    fn refuse(&mut self, name: &str, span: &Range<usize>) {
        let why = if name.starts_with('$') {
            "an output schema has no references and no dialect but draft 2020-12".to_owned()
        } else {
            instead(name, KEYWORDS.iter().map(|(keyword, _)| *keyword))
        };
        let message = format!("output_schema: unknown key {}, {why}", quote(name));
        self.findings.error(span, message);
        self.fine = false;
    }
}

/// Returns where in the block the value at the end of a path stands, or as much of the path as there is.
fn place(table: &DeTable<'_>, path: &[LocationSegment<'_>]) -> Range<usize> {
    let mut span = table
        .keys()
        .map(|key| key.span())
        .min_by_key(|span| span.start);
    let (mut table, mut list) = (Some(table), None);
    for segment in path {
        let value = match segment {
            LocationSegment::Property(name) => table.and_then(|table| table.get(name.as_ref())),
            LocationSegment::Index(index) => {
                list.and_then(|list: &toml::de::DeArray<'_>| list.get(*index))
            }
        };
        let Some(value) = value else { break };
        span = Some(value.span());
        (table, list) = (value.get_ref().as_table(), value.get_ref().as_array());
    }
    span.unwrap_or_default()
}
