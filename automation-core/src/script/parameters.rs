//! What a script accepts: a compiled JSON Schema, its defaults and its secrets.
//!
//! Knows nothing of the block that declares them (`declaration`), nor of wording (`problems`).

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use jsonschema::{Draft, PatternOptions, ValidationError, Validator};
use serde_json::{Map, Value, json};

use super::problems::problems;
use crate::error::Problem;

/// What is stored and shown in place of a secret.
const MASK: &str = "***";

/// A script's parameter schema: one closed object. Clones share it.
#[derive(Clone)]
pub struct ParameterSchema(Arc<Compiled>);

struct Compiled {
    schema: Value,
    validator: Validator,
    parameters: BTreeMap<String, Parameter>,
}

/// One declared parameter.
#[derive(Debug, Clone)]
pub(super) struct Parameter {
    /// Its JSON type, or several in words.
    pub(super) kind: Cow<'static, str>,
    /// Its JSON Schema, as it is shown.
    pub(super) schema: Map<String, Value>,
    /// What it is when it is not given.
    pub(super) default: Option<Value>,
    /// Whether it has to be given.
    pub(super) required: bool,
    /// Whether its value is never shown.
    pub(super) secret: bool,
}

impl ParameterSchema {
    /// Creates the schema of an object with these parameters and no others.
    ///
    /// # Panics
    /// When a parameter's schema does not compile: `declaration` compiles each before it gets here.
    pub(super) fn new(parameters: BTreeMap<String, Parameter>) -> Self {
        let required: Vec<_> = parameters
            .iter()
            .filter(|(_, parameter)| parameter.required)
            .map(|(name, _)| name)
            .collect();
        let properties: Map<_, _> = parameters
            .iter()
            .map(|(name, parameter)| (name.clone(), Value::Object(parameter.schema.clone())))
            .collect();
        let schema = json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "type": "object",
            "properties": properties,
            "required": required,
            "additionalProperties": false,
        });
        let validator =
            compile(&schema).expect("each parameter's schema compiled, and so does their object");
        Self(Arc::new(Compiled {
            schema,
            validator,
            parameters,
        }))
    }

    /// Returns the JSON Schema of the parameter object (draft 2020-12), without references; secrets are
    /// `writeOnly`.
    #[must_use]
    pub fn schema(&self) -> &Value {
        &self.0.schema
    }

    /// Fills in defaults and validates. Nothing is coerced: `"5"` is not a number, `true` not an integer, and
    /// `null` is given and not absent; `1.0` is an integer, as JSON Schema has it.
    ///
    /// # Errors
    /// What is wrong, with JSON pointers into the parameter object, at least one and at most
    /// [`PROBLEMS_MAX`](crate::limits::PROBLEMS_MAX) and their count; a secret's value is never shown.
    pub fn validate(
        &self,
        mut parameters: Map<String, Value>,
    ) -> Result<Map<String, Value>, Vec<Problem>> {
        for (name, default) in self.0.defaults() {
            if !parameters.contains_key(name) {
                parameters.insert(name.clone(), default.clone());
            }
        }
        let document = Value::Object(parameters);
        if !self.0.validator.is_valid(&document) {
            let errors = self.0.validator.iter_errors(&document);
            return Err(problems(errors, &self.0.parameters));
        }
        match document {
            Value::Object(parameters) => Ok(parameters),
            _ => unreachable!("the document was built as an object"),
        }
    }

    /// Returns the parameters with every secret replaced by `***`, for storage.
    #[must_use]
    pub fn mask(&self, parameters: &Map<String, Value>) -> Map<String, Value> {
        parameters
            .iter()
            .map(|(name, value)| {
                let shown = if self.0.is_secret(name) {
                    Value::from(MASK)
                } else {
                    value.clone()
                };
                (name.clone(), shown)
            })
            .collect()
    }

    /// Returns the texts of the secret parameters, for redaction.
    pub fn secrets<'a>(
        &'a self,
        parameters: &'a Map<String, Value>,
    ) -> impl Iterator<Item = &'a str> {
        parameters
            .iter()
            .filter(|(name, _)| self.0.is_secret(name))
            .filter_map(|(_, value)| value.as_str())
    }

    /// Returns the names of the secret parameters that are given.
    #[must_use]
    pub fn secret_names<'a>(&self, parameters: &'a Map<String, Value>) -> Vec<&'a str> {
        let given = parameters.iter().filter(|(_, value)| !value.is_null());
        given
            .map(|(name, _)| name.as_str())
            .filter(|name| self.0.is_secret(name))
            .collect()
    }

    /// Returns whether the schema has a parameter with this name.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.0.parameters.contains_key(name)
    }

    /// Returns the parameters' names.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.parameters.keys().map(String::as_str)
    }

    /// Returns whether every run has a value for this parameter: it is required, or has a default.
    pub(super) fn is_always_given(&self, name: &str) -> bool {
        let parameter = self.0.parameters.get(name);
        parameter.is_some_and(|parameter| parameter.required || parameter.default.is_some())
    }

    /// Returns each parameter's type, for instance `{"clear_temp": "boolean"}`.
    #[must_use]
    pub fn types(&self) -> Map<String, Value> {
        self.0
            .parameters
            .iter()
            .map(|(name, parameter)| (name.clone(), Value::from(&*parameter.kind)))
            .collect()
    }

    /// Returns each parameter's default, where it has one.
    #[must_use]
    pub fn defaults(&self) -> Map<String, Value> {
        self.0
            .defaults()
            .map(|(name, default)| (name.clone(), default.clone()))
            .collect()
    }
}

impl Default for ParameterSchema {
    /// The schema of a script without parameters: only the empty object fits.
    fn default() -> Self {
        Self::new(BTreeMap::new())
    }
}

impl fmt::Debug for ParameterSchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(&self.0.parameters).finish()
    }
}

impl Compiled {
    fn defaults(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.parameters
            .iter()
            .filter_map(|(name, parameter)| Some((name, parameter.default.as_ref()?)))
    }

    fn is_secret(&self, name: &str) -> bool {
        self.parameters
            .get(name)
            .is_some_and(|parameter| parameter.secret)
    }
}

/// Compiles a schema. Patterns run in linear time, so that no text can stall the engine: look-around and
/// back-references do not compile. Nothing is fetched.
pub(super) fn compile(schema: &Value) -> Result<Validator, ValidationError<'static>> {
    jsonschema::options()
        .with_draft(Draft::Draft202012)
        .with_pattern_options(PatternOptions::regex())
        .offline()
        .build(schema)
}
