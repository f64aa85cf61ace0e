//! `POST /automation/scripts/:name/release`: a script may run in this process again. A body is not asked for.

use automation_core::{Automation, Problem};
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};

use crate::dto::{Envelope, QuarantineDto};
use crate::error::{ApiError, ApiResult};

pub(super) async fn release(
    State(automation): State<Automation>,
    script: Result<Path<String>, PathRejection>,
) -> ApiResult<Envelope<Vec<QuarantineDto>>> {
    let Path(script) = script.map_err(|rejection| {
        ApiError::invalid_request(vec![Problem::new("/name", rejection.body_text())])
    })?;
    let released = automation.release(&script, None).await?;
    let message = format!("Released {} versions from quarantine", released.len());
    let released = released.iter().map(QuarantineDto::from).collect();
    Ok(Envelope::new(released, message))
}
