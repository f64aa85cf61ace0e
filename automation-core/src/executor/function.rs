//! Functions as scripts.

/// Runs a Rust function in place of a script, for tests and documentation.
#[derive(Debug)]
pub struct FnExecutor;
