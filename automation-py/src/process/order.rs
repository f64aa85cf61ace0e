//! What a child is told to do.

use automation_core::executor::Invocation;
use automation_core::limits;
use automation_core::script::Entry;
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

use crate::run::{argv, folder};

/// Returns what the child is told.
pub(super) fn order(invocation: &Invocation, code: Option<&str>, dry_run: bool) -> Value {
    let script = &invocation.script;
    let entry = match script.metadata().entry {
        Entry::Plain => "plain",
        Entry::Run => "run",
    };
    let now = clock_gettime(ClockId::Monotonic);
    let now = now.tv_sec as f64 + now.tv_nsec as f64 / 1e9;
    let limits = &invocation.limits;
    json!({
        "do": "run",
        "argv": argv(invocation),
        "source": &**script.source(),
        "code": code,
        "folder": folder(script.path()).map(|folder| folder.to_string_lossy().into_owned()),
        "entry": entry,
        "execution_id": invocation.execution_id.to_string(),
        "parameters": invocation.parameters,
        "ticket": invocation.ticket,
        "classification": invocation.classification,
        "dry_run": dry_run,
        "deny": script.metadata().deny,
        "deadline": now + limits.timeout.as_secs_f64(),
        "limits": {
            "cpu_seconds": limits.cpu.map(|cpu| cpu.as_secs_f64()),
            "memory_bytes": limits.memory_bytes,
            "children_max": limits.children_max,
        },
        "json": {
            "depth": limits::JSON_DEPTH_MAX,
            "nodes": limits::JSON_NODES_MAX,
            "size": limits::JSON_BYTES_MAX,
            "integer": limits::JSON_INTEGER_MAX,
        },
    })
}
