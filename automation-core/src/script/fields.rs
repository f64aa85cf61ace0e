//! Reads closed TOML tables: known keys with known types, every fault with its place in the file.
//!
//! Knows no key: its callers name them.

use std::ops::Range;

use serde_json::{Number, Value};
use toml::Spanned;
use toml::de::{DeInteger, DeTable, DeValue};

use super::block::Block;
use super::message::{instead, quote};
use super::{Diagnostic, Severity};
use crate::limits::JSON_INTEGER_MAX;

/// What was found in one block.
#[derive(Debug)]
pub(super) struct Findings<'b> {
    file: &'b str,
    block: &'b Block,
    found: Vec<Diagnostic>,
}

impl<'b> Findings<'b> {
    pub(super) fn new(file: &'b str, block: &'b Block) -> Self {
        Self {
            file,
            block,
            found: Vec::new(),
        }
    }

    pub(super) fn error(&mut self, span: &Range<usize>, message: impl Into<String>) {
        let (line, column) = self.block.position(span);
        self.found
            .push(Diagnostic::error(self.file, message).at(line, column));
    }

    pub(super) fn warning(&mut self, span: &Range<usize>, message: impl Into<String>) {
        let (line, column) = self.block.position(span);
        self.found
            .push(Diagnostic::warning(self.file, message).at(line, column));
    }

    pub(super) fn has_errors(&self) -> bool {
        self.found.iter().any(|d| d.severity == Severity::Error)
    }

    pub(super) fn into_sorted(mut self) -> Vec<Diagnostic> {
        self.found.sort_by_key(|d| (d.line, d.column));
        self.found
    }
}

/// One table being read. Each key that is asked for is known; [`finish`](Self::finish) reports the others.
#[derive(Debug)]
pub(super) struct Fields<'t, 'f, 'b> {
    subject: String,
    table: &'t DeTable<'t>,
    known: Vec<&'static str>,
    findings: &'f mut Findings<'b>,
}

impl<'t, 'f, 'b> Fields<'t, 'f, 'b> {
    /// `subject` is what messages start with, for instance `[tool.automation]`.
    pub(super) fn new(
        subject: impl Into<String>,
        table: &'t DeTable<'t>,
        findings: &'f mut Findings<'b>,
    ) -> Self {
        Self {
            subject: subject.into(),
            table,
            known: Vec::new(),
            findings,
        }
    }

    /// Returns a key's value as `convert` reads it; `None` when it is absent, or wrong and reported.
    pub(super) fn read<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        convert: impl FnOnce(&'t DeValue<'t>) -> Option<T>,
    ) -> Option<T> {
        let value = self.raw(key)?;
        let converted = convert(value.get_ref());
        if converted.is_none() {
            let message = format!("{key} is {}, expected {expected}", shown(value.get_ref()));
            self.error(key, &message);
        }
        converted
    }

    /// Returns a boolean.
    pub(super) fn flag(&mut self, key: &'static str) -> Option<bool> {
        self.read(key, "true or false", DeValue::as_bool)
    }

    /// Returns a key's value as it is.
    pub(super) fn raw(&mut self, key: &'static str) -> Option<&'t Spanned<DeValue<'t>>> {
        if !self.known.contains(&key) {
            self.known.push(key);
        }
        self.table.get(key)
    }

    /// Reports an error at a key's value.
    pub(super) fn error(&mut self, key: &str, message: &str) {
        let span = self.span(key);
        let message = format!("{}: {message}", self.subject);
        self.findings.error(&span, message);
    }

    /// Reports a warning at a key's value.
    pub(super) fn warning(&mut self, key: &str, message: &str) {
        let span = self.span(key);
        let message = format!("{}: {message}", self.subject);
        self.findings.warning(&span, message);
    }

    /// Reports an error at a place outside the table, for what the table lacks.
    pub(super) fn error_at(&mut self, span: &Range<usize>, message: &str) {
        let message = format!("{}: {message}", self.subject);
        self.findings.error(span, message);
    }

    /// Returns the fields of a table within this one.
    pub(super) fn nested(&mut self, name: &str, table: &'t DeTable<'t>) -> Fields<'t, '_, 'b> {
        Fields::new(format!("{}, {name}", self.subject), table, self.findings)
    }

    /// Reports every key that nobody asked for.
    pub(super) fn finish(self) {
        for key in self.table.keys() {
            let name: &str = key.get_ref();
            if !self.known.contains(&name) {
                let hint = instead(name, self.known.iter().copied());
                let message = format!("{}: unknown key {}, {hint}", self.subject, quote(name));
                self.findings.error(&key.span(), message);
            }
        }
    }

    fn span(&self, key: &str) -> Range<usize> {
        self.table.get(key).map_or(0..0, Spanned::span)
    }
}

/// Returns a TOML integer.
pub(super) fn integer(value: &DeValue<'_>) -> Option<i64> {
    value.as_integer().and_then(|integer: &DeInteger<'_>| {
        i64::from_str_radix(integer.as_str(), integer.radix()).ok()
    })
}

/// Returns a finite TOML number, integer or not.
pub(super) fn number(value: &DeValue<'_>) -> Option<Number> {
    match value {
        DeValue::Integer(_) => integer(value)
            .filter(|integer| (-JSON_INTEGER_MAX..=JSON_INTEGER_MAX).contains(integer))
            .map(Number::from),
        DeValue::Float(float) => float.as_str().parse().ok().and_then(Number::from_f64),
        _ => None,
    }
}

/// What [`json`] accepts, for messages.
pub(super) const JSON: &str =
    "a JSON value (no date, no inf or nan, no U+0000, integers within 2^53 - 1)";

/// Returns a TOML value as JSON, where the strict profile (O7) has it.
pub(super) fn json(value: &DeValue<'_>) -> Option<Value> {
    match value {
        DeValue::String(text) => (!text.contains('\0')).then(|| Value::from(text.as_ref())),
        DeValue::Integer(_) | DeValue::Float(_) => number(value).map(Value::Number),
        DeValue::Boolean(value) => Some(Value::Bool(*value)),
        DeValue::Datetime(_) => None,
        DeValue::Array(items) => items
            .iter()
            .map(|item| json(item.get_ref()))
            .collect::<Option<Vec<_>>>()
            .map(Value::Array),
        DeValue::Table(table) => table
            .iter()
            .map(|(key, item)| Some((key.get_ref().to_string(), json(item.get_ref())?)))
            .collect::<Option<_>>()
            .map(Value::Object),
    }
}

/// Shows a value in a message, containers by their kind only.
pub(super) fn shown(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => quote(text),
        DeValue::Integer(integer) => integer.to_string(),
        DeValue::Float(float) => float.to_string(),
        DeValue::Boolean(value) => value.to_string(),
        DeValue::Datetime(time) => time.to_string(),
        DeValue::Array(items) if items.is_empty() => "an empty array".to_owned(),
        DeValue::Array(_) => "an array".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}
