//! Idempotency: under one key at most one execution is recorded, and whoever asks again is answered with it.
//!
//! A key lives as long as its row. The row keeps a digest of the request, in which secrets are masked, so that another
//! request under the same key is refused.

use std::fmt::Write as _;
use std::sync::Arc;

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::Engine;
use super::patience::Impatient;
use crate::error::{Error, Result};
use crate::execution::{Execution, ExecutionId, TenantId};
use crate::request::Page;
use crate::storage::ExecutionQuery;

/// Under which an execution is recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key {
    text: String,
    /// What was asked, for keys that callers choose.
    digest: Option<String>,
}

impl Key {
    /// Returns a caller's key for a request.
    pub(super) fn of_request(text: String, request: &Value) -> Self {
        Self {
            text,
            digest: Some(digest(request)),
        }
    }

    /// Returns the key of the attempt that follows an execution. It has spaces, which callers' keys have not.
    pub(super) fn after(id: ExecutionId) -> Self {
        Self {
            text: format!("attempt after {id}"),
            digest: None,
        }
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn digest(&self) -> Option<&String> {
        self.digest.as_ref()
    }
}

/// Returns the SHA-256 of a document in hex; equal documents have equal texts, since the keys of objects are sorted.
fn digest(document: &Value) -> String {
    let mut hex = String::with_capacity(64);
    for byte in Sha256::digest(document.to_string()) {
        let _ = write!(hex, "{byte:02x}");
    }
    hex
}

impl Engine {
    /// Returns the execution that is recorded under a key.
    ///
    /// # Errors
    /// [`Error::Conflict`] where it was asked for with another request.
    pub(super) async fn of_key(&self, tenant: &TenantId, key: &Key) -> Result<Option<Execution>> {
        let query = ExecutionQuery {
            idempotency_key: Some(key.text.clone()),
            ..ExecutionQuery::of(tenant.clone())
        };
        let found = self.parts.storage.list(&query, &Page::first(1)).await?;
        let Some(row) = found.items.into_iter().next() else {
            return Ok(None);
        };
        let asked = row
            .context
            .as_ref()
            .and_then(|context| context.digest.as_ref());
        if key.digest.is_some() && asked != key.digest.as_ref() {
            let (text, id) = (&key.text, row.id);
            let detail =
                format!("idempotency key {text:?} was used by another request, for execution {id}");
            return Err(Error::Conflict { detail });
        }
        Ok(Some(row))
    }

    /// Answers with the execution that is recorded under the key of a request, if there is one, at its end.
    pub(super) async fn answer_again(
        self: &Arc<Self>,
        tenant: &TenantId,
        key: Option<&Key>,
        caller: Option<&Impatient>,
    ) -> Result<Option<Execution>> {
        let Some(key) = key else { return Ok(None) };
        let Some(row) = self.of_key(tenant, key).await? else {
            return Ok(None);
        };
        if let Some(caller) = caller {
            caller.tell(&row);
        }
        Box::pin(self.until_end(row)).await.map(Some)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::digest;

    #[test]
    fn the_order_of_keys_does_not_matter_and_all_else_does() {
        let one = json!({"a": 1, "b": [1, 2]});
        assert_eq!(digest(&one), digest(&json!({"b": [1, 2], "a": 1})));
        for other in [json!({"a": 1, "b": [2, 1]}), json!({"a": "1", "b": [1, 2]})] {
            assert_ne!(digest(&one), digest(&other), "{other}");
        }
    }
}
