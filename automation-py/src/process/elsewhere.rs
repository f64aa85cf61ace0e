//! [`ProcessExecutor`] where it does not exist: what it rests on is Linux's own. It can be named and never built.

#[path = "builder.rs"]
mod builder;

use std::convert::Infallible;
use std::time::Duration;

use async_trait::async_trait;
use automation_core::Script;
use automation_core::executor::{
    CancelToken, Executor, ExecutorCapabilities, ExecutorError, ExecutorHealth, Inspection,
    Invocation, Outcome,
};

pub use self::builder::ProcessExecutorBuilder;
use self::builder::Settings;

/// Runs each script in a process of its own; on Linux only.
#[derive(Debug)]
pub struct ProcessExecutor(Infallible);

impl ProcessExecutor {
    /// Returns a builder with the defaults.
    pub const fn builder() -> ProcessExecutorBuilder {
        ProcessExecutorBuilder::new()
    }

    fn start(_settings: Settings) -> Result<Self, ExecutorError> {
        Err(ExecutorError::Start {
            detail: "scripts can be isolated in processes of their own on Linux only".to_owned(),
        })
    }
}

#[async_trait]
impl Executor for ProcessExecutor {
    fn name(&self) -> &'static str {
        match self.0 {}
    }

    fn capabilities(&self) -> ExecutorCapabilities {
        match self.0 {}
    }

    async fn execute(
        &self,
        _invocation: Invocation,
        _cancel: CancelToken,
    ) -> Result<Outcome, ExecutorError> {
        match self.0 {}
    }

    fn inspect(&self, _script: &Script) -> Result<Inspection, ExecutorError> {
        match self.0 {}
    }

    async fn health(&self) -> ExecutorHealth {
        match self.0 {}
    }

    async fn shutdown(&self, _grace: Duration) -> Result<(), ExecutorError> {
        match self.0 {}
    }
}
