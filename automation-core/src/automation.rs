//! The handle.

/// The handle that applications hold.
#[derive(Debug, Clone)]
pub struct Automation;
