//! Scripts, executors and storages that the tests share.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use automation_core::executor::{CapturedText, Ending, FnExecutor, Outcome};
use automation_core::storage::ExecutionQuery;
use automation_core::{
    Automation, AutomationBuilder, Classification, ExecuteRequest, Execution, MemoryStorage, Page,
    Reason, Script, ScriptRegistry, Status, Storage, TenantId, Ticket,
};
use tokio::sync::Notify;

pub(crate) const DISK: &str = r#"# /// script
# requires-python = ">=3.9"
# [tool.automation]
# category = "Device Slow"
# description = "Disk cleanup"
# timeout_seconds = 60
# [tool.automation.parameters.min_free_space_gb]
# type = "number"
# default = 5
# [tool.automation.parameters.dry_run]
# type = "boolean"
# default = false
# ///
"#;

pub(crate) const LOGIN: &str = r#"# /// script
# [tool.automation]
# category = "Login"
# [tool.automation.parameters.password]
# type = "string"
# secret = true
# required = true
# ///
"#;

pub(crate) fn scripts() -> ScriptRegistry {
    let parse = |name: &str, source: &str| {
        Script::parse(name, source.as_bytes()).expect("the script is valid")
    };
    ScriptRegistry::from_scripts([
        parse("disk.py", DISK),
        parse("login.py", LOGIN),
        parse("plain.py", ""),
    ])
}

pub(crate) fn builder(executor: FnExecutor, storage: &Arc<dyn Storage>) -> AutomationBuilder {
    Automation::builder()
        .scripts(scripts())
        .executor(executor)
        .shared_storage(Arc::clone(storage))
}

pub(crate) fn memory() -> Arc<dyn Storage> {
    Arc::new(MemoryStorage::default())
}

pub(crate) fn printing(text: impl Into<String>) -> Outcome {
    let mut outcome = Outcome::new(Ending::Completed);
    outcome.output.stdout = CapturedText::new(text);
    outcome
}

pub(crate) fn ticket_request() -> ExecuteRequest {
    ExecuteRequest::new(
        Ticket::new("T-1").with("user_id", "jdoe"),
        Classification::new("device_slow"),
    )
}

/// An executor that counts its runs and prints a result.
pub(crate) fn counting(count: &Arc<AtomicUsize>) -> FnExecutor {
    let count = Arc::clone(count);
    FnExecutor::new(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        async { printing("{\"ok\": true}") }
    })
}

/// An executor whose runs go on until they are told to end, or are ended.
pub(crate) fn holding(release: &Arc<Notify>) -> FnExecutor {
    let release = Arc::clone(release);
    FnExecutor::new(move |_| {
        let release = Arc::clone(&release);
        async move {
            release.notified().await;
            printing("{}")
        }
    })
}

pub(crate) async fn all(storage: &Arc<dyn Storage>) -> Vec<Execution> {
    let query = ExecutionQuery::of(TenantId::default());
    storage.list(&query, &Page::first(500)).await.unwrap().items
}

pub(crate) async fn until<T>(mut look: impl AsyncFnMut() -> Option<T>) -> T {
    for _ in 0..2000 {
        if let Some(found) = look().await {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("it does not happen")
}

pub(crate) async fn look(storage: &Arc<dyn Storage>, row: &Execution) -> (Status, Option<Reason>) {
    let row = storage.get(&TenantId::default(), row.id).await.unwrap();
    (row.status, row.reason)
}
