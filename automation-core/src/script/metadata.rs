//! The PEP 723 metadata block.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How a script is entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Entry {
    /// Executed as `__main__`; prints its result.
    #[default]
    Plain,
    /// Defines `run(ctx, **parameters)`; returns its result.
    Run,
}

/// Where a script runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Isolation {
    /// In this process.
    #[default]
    InProcess,
    /// In a process of its own.
    Process,
}

/// How much harm a script can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Risk {
    /// Little.
    #[default]
    Low,
    /// Enough to ask somebody first.
    High,
}

/// What a script's metadata says, defaults filled in.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Metadata {
    /// The classification category that selects the script, as written; `None`: manual only.
    pub category: Option<String>,
    /// Place among the scripts of the same category, lowest first, then by name. Default 100.
    pub order: i32,
    /// What it does.
    pub description: String,
    /// Time from its first byte to its deadline.
    pub timeout: Duration,
    /// Memory it may use, in MiB.
    pub memory_mb: u64,
    /// Where it runs.
    pub isolation: Isolation,
    /// How much harm it can do.
    pub risk: Risk,
    /// Whether it may run again after an unknown outcome.
    pub idempotent: bool,
    /// How it is entered.
    pub entry: Entry,
    /// Whether the ticket is handed over as JSON in `sys.argv[2]`.
    pub context_argv: bool,
    /// The Python versions it needs, for instance `>=3.9`.
    pub requires_python: Option<String>,
    /// The packages it needs (PEP 508).
    pub dependencies: Vec<String>,
}
