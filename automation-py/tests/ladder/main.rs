//! What ends what: every rung of the ladder, on scripts that try to stay.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test's helpers fail like a test"
)]

mod cases;
mod rungs;
#[path = "../executor/support.rs"]
#[expect(dead_code, reason = "shared with the executor's suite")]
mod support;
