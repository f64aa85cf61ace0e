//! `GET /automation/python/check`: the interpreter that runs the scripts.

use automation_core::Automation;
use axum::extract::State;

use crate::dto::{Envelope, PythonDto};

pub(super) async fn python_check(State(automation): State<Automation>) -> Envelope<PythonDto> {
    let health = automation.health().await;
    let executor = health.executor;
    let message = if executor.available {
        "Python is available"
    } else {
        "Python is not available"
    };
    Envelope::new(PythonDto::new(executor, health.isolated_executor), message)
}
