//! What ends what: every rung of the ladder, on scripts that try to stay.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test's helpers fail like a test"
)]

mod bounds;
mod cases;
mod rungs;
#[path = "../executor/support.rs"]
#[expect(dead_code, reason = "shared with the executor's suite")]
mod support;
#[path = "../executor/tested.rs"]
mod tested;
use self::tested::{Tested, executor};

/// Held by each test: scripts of others would delay its own, some by keeping the GIL.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
