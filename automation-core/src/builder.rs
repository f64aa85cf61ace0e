//! The builder of the handle.

/// Builds an [`Automation`](crate::Automation).
#[derive(Debug)]
pub struct AutomationBuilder;
