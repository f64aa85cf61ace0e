//! `POST /automation/scripts/:name/release`: a script may run in this process again. A body is not asked for.

use automation_core::Automation;
use axum::extract::State;

use super::parameters::{self, PathResult};
use crate::dto::{Envelope, QuarantineDto};
use crate::error::ApiResult;

pub(super) async fn release(
    State(automation): State<Automation>,
    script: PathResult,
) -> ApiResult<Envelope<Vec<QuarantineDto>>> {
    let script = parameters::segment("name", script)?;
    let released = automation.release(&script, None).await?;
    let message = format!("Released {} versions from quarantine", released.len());
    let released = released.iter().map(QuarantineDto::from).collect();
    Ok(Envelope::new(released, message))
}
