//! What a script accepts.

use serde_json::{Map, Value};

use crate::error::Problem;

/// A script's parameter schema.
#[derive(Debug, Clone)]
pub struct ParameterSchema {
    schema: Value,
}

impl ParameterSchema {
    /// Returns the JSON Schema of the parameter object.
    #[must_use]
    pub const fn schema(&self) -> &Value {
        &self.schema
    }

    /// Fills in defaults and validates.
    ///
    /// # Errors
    /// What is wrong, with JSON pointers, at least one; a secret's value is never shown.
    pub fn validate(
        &self,
        parameters: Map<String, Value>,
    ) -> Result<Map<String, Value>, Vec<Problem>> {
        let _ = parameters;
        unimplemented!("filled by the script room's commit")
    }

    /// Returns the parameters with every secret replaced, for storage.
    #[must_use]
    pub fn mask(&self, parameters: &Map<String, Value>) -> Map<String, Value> {
        let _ = parameters;
        unimplemented!("filled by the script room's commit")
    }

    /// Returns the texts of the secret parameters, for redaction.
    pub fn secrets<'a>(
        &'a self,
        parameters: &'a Map<String, Value>,
    ) -> impl Iterator<Item = &'a str> {
        let _ = parameters;
        std::iter::empty()
    }

    /// Returns whether the schema has a parameter with this name.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        let _ = name;
        unimplemented!("filled by the script room's commit")
    }

    /// Returns each parameter's type, as the owner's document lists them.
    #[must_use]
    pub fn types(&self) -> Map<String, Value> {
        unimplemented!("filled by the script room's commit")
    }

    /// Returns each parameter's default, where it has one.
    #[must_use]
    pub fn defaults(&self) -> Map<String, Value> {
        unimplemented!("filled by the script room's commit")
    }
}
