//! What an executor found out about a script without executing it, and what becomes of a script by that: a function
//! `run` whose annotations say what it takes needs no table of parameters.
//!
//! Knows nothing of Python: executors read the syntax tree.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::declaration::name_fault;
use super::message::quote;
use super::parameters::{Parameter, ParameterSchema, compile};
use super::problems::detail;
use super::{Diagnostic, Script, Severity};

/// What an executor found out about a script without executing it.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct Inspection {
    /// What is wrong or doubtful.
    pub diagnostics: Vec<Diagnostic>,
    /// What the script's `run` takes; `None` for plain scripts, and where it can't be told.
    pub signature: Option<Signature>,
}

impl From<Vec<Diagnostic>> for Inspection {
    fn from(diagnostics: Vec<Diagnostic>) -> Self {
        Self {
            diagnostics,
            signature: None,
        }
    }
}

/// What a script's `run` takes beside its context, as it is written.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Signature {
    /// The line of `def run`, from 1.
    pub line: u32,
    /// Its column in characters, from 1.
    pub column: u32,
    /// The arguments that are given by name, in their order.
    pub arguments: Vec<Argument>,
    /// Whether it may take further names: it has `**parameters`, or a decorator.
    pub open: bool,
}

/// One argument of a script's `run`.
#[derive(Debug, Clone, PartialEq)]
pub struct Argument {
    /// Its name.
    pub name: String,
    /// The line where it stands, from 1.
    pub line: u32,
    /// Its column in characters, from 1.
    pub column: u32,
    /// Whether it has no default.
    pub required: bool,
    /// The JSON Schema of its annotation, with its `default`; otherwise why there is none, and what is expected.
    /// Only looked at when the metadata block declares no parameters.
    pub schema: Result<Map<String, Value>, String>,
}

impl Script {
    /// Takes over what an inspection found: diagnostics, and the parameters that `run` is annotated with where the
    /// metadata block has no table of them. Where it has one, both must agree.
    ///
    /// # Errors
    /// Everything that was found, when there is an error among it.
    pub(super) fn admit(mut self, inspection: Inspection) -> Result<Self, Vec<Diagnostic>> {
        self.warnings.extend(inspection.diagnostics);
        if let Some(signature) = &inspection.signature {
            if self.declares_parameters {
                compare(
                    &self.parameters,
                    signature,
                    &mut Found(&self.name, &mut self.warnings),
                );
            } else {
                self.take_over(signature);
            }
        }
        if self
            .warnings
            .iter()
            .any(|found| found.severity == Severity::Error)
        {
            return Err(self.warnings);
        }
        Ok(self)
    }

    fn take_over(&mut self, signature: &Signature) {
        let mut found = Found(&self.name, &mut self.warnings);
        let mut parameters = BTreeMap::new();
        for argument in &signature.arguments {
            if self.metadata.category.is_some() && argument.required {
                found.warning(
                    argument,
                    "has no default, so runs for tickets of the category are refused: they give no parameters",
                );
            }
            match inferred(argument, self.metadata.entry) {
                Ok(parameter) => drop(parameters.insert(argument.name.clone(), parameter)),
                Err(problem) => found.error(argument, &problem),
            }
        }
        self.parameters = ParameterSchema::new(parameters);
    }
}

/// Where diagnostics about a script's arguments go.
struct Found<'s>(&'s super::ScriptName, &'s mut Vec<Diagnostic>);

impl Found<'_> {
    fn error(&mut self, argument: &Argument, problem: &str) {
        let message = format!("argument {}: {problem}", argument.name);
        let found = Diagnostic::error(self.0.as_str(), message);
        self.1.push(found.at(argument.line, argument.column));
    }

    fn warning(&mut self, argument: &Argument, problem: &str) {
        let message = format!("argument {}: {problem}", argument.name);
        let found = Diagnostic::warning(self.0.as_str(), message);
        self.1.push(found.at(argument.line, argument.column));
    }
}

/// Returns the parameter that an argument stands for, or what is wrong with it.
fn inferred(argument: &Argument, entry: super::Entry) -> Result<Parameter, String> {
    if let Some(fault) = name_fault(&argument.name, entry) {
        return Err(fault);
    }
    let mut schema = argument.schema.clone()?;
    let default = schema.remove("default");
    let validator = compile(&Value::Object(schema.clone()))
        .map_err(|error| format!("its schema does not compile: {error}"))?;
    if let Some(default) = &default {
        if let Some(error) = validator.iter_errors(default).next() {
            let place = error.instance_path();
            return Err(format!(
                "default{place} does not fit: {}",
                detail(&error, false)
            ));
        }
        schema.insert("default".to_owned(), default.clone());
    }
    Ok(Parameter {
        kind: kind(&schema).into(),
        schema,
        default,
        required: argument.required,
        secret: false,
    })
}

/// Returns what a schema accepts in a word or a few, for instance `string or null`.
fn kind(schema: &Map<String, Value>) -> String {
    match schema.get("type") {
        Some(Value::String(kind)) => kind.clone(),
        Some(Value::Array(kinds)) => {
            let kinds: Vec<_> = kinds.iter().filter_map(Value::as_str).collect();
            kinds.join(" or ")
        }
        _ => "any".to_owned(),
    }
}

/// Reports where `run` can't be called with what the block declares.
fn compare(declared: &ParameterSchema, signature: &Signature, found: &mut Found<'_>) {
    let taken = |name: &str| {
        signature
            .arguments
            .iter()
            .any(|argument| argument.name == name)
    };
    for name in declared.names() {
        if !signature.open && !taken(name) {
            let message = format!(
                "run does not take {}, which the metadata block declares as a parameter",
                quote(name)
            );
            let diagnostic = Diagnostic::error(found.0.as_str(), message);
            found
                .1
                .push(diagnostic.at(signature.line, signature.column));
        }
    }
    for argument in signature
        .arguments
        .iter()
        .filter(|argument| argument.required)
    {
        if !declared.has(&argument.name) {
            found.error(
                argument,
                "has no default, and the metadata block does not declare it as a parameter",
            );
        } else if !declared.is_always_given(&argument.name) {
            found.warning(
                argument,
                "has no default, and the metadata block neither requires the parameter nor has a default for it",
            );
        }
    }
}
