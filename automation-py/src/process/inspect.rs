//! Whether a script can be compiled, found out in a child that is thrown away: a source can be made to crash the
//! compiler.

use std::time::Duration;

use automation_core::Script;
use automation_core::executor::{ExecutorError, Inspection};
use automation_core::script::Diagnostic;
use serde_json::{Value, json};

use super::pool::Pool;
use super::wire::{self, Inbox};

/// Time that a source gets to be compiled.
const COMPILE_MAX: Duration = Duration::from_secs(20);
/// Memory that it gets.
const COMPILE_BYTES: u64 = 1 << 30;

/// Inspects a script.
pub(super) fn inspect(pool: &Pool, script: &Script) -> Result<Inspection, ExecutorError> {
    let keep = |code: &str| pool.codes.keep(script, code);
    let diagnostic = match compile(pool, script, keep)? {
        Some(answer) => found(script, &answer),
        None => Some(crashed(script)),
    };
    let mut inspection = Inspection::default();
    inspection.diagnostics.extend(diagnostic);
    Ok(inspection)
}

/// Returns what speaks against compiling a source in a process that matters; that it is no Python is nothing of that
/// kind. Keeps nothing of it.
pub(super) fn probe(pool: &Pool, script: &Script) -> Result<Option<Diagnostic>, ExecutorError> {
    Ok(match compile(pool, script, |_| ())? {
        Some(answer) if answer["problem"].is_null() => None,
        Some(answer) => found(script, &answer),
        None => Some(crashed(script)),
    })
}

fn crashed(script: &Script) -> Diagnostic {
    let message = "can't be compiled: the compiler crashed or takes too long";
    Diagnostic::error(script.name(), message)
}

/// Lets a child compile a script; `None` when it does not survive that. `keep` gets the code.
fn compile(
    pool: &Pool,
    script: &Script,
    keep: impl Fn(&str),
) -> Result<Option<Value>, ExecutorError> {
    let child = pool.zygotes.fork()?;
    let order = json!({
        "do": "inspect",
        "argv": [script.path().to_string_lossy()],
        "source": &**script.source(),
        "code": null,
        "limits": { "cpu_seconds": COMPILE_MAX.as_secs_f64(), "memory_bytes": COMPILE_BYTES },
    });
    let control = &child.wires.control;
    let mut inbox = Inbox::default();
    Ok(wire::send(control, &order).ok().and_then(|()| {
        loop {
            let message = inbox.wait(control, COMPILE_MAX).ok()?;
            match message["tell"].as_str() {
                Some("code") => keep(message["code"].as_str()?),
                _ => return Some(message),
            }
        }
    }))
}

fn found(script: &Script, answer: &Value) -> Option<Diagnostic> {
    let message = answer["syntax"].as_str().or(answer["problem"].as_str())?;
    let mut diagnostic = Diagnostic::error(script.name(), message);
    let number = |key: &str| {
        let number = answer[key]
            .as_u64()
            .and_then(|number| u32::try_from(number).ok());
        number.filter(|number| *number > 0)
    };
    diagnostic.line = number("line");
    diagnostic.column = number("column");
    Some(diagnostic)
}
