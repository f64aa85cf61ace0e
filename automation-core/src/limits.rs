//! Every limit of the library, its default and its reason, in one place.

use std::time::Duration;

/// Deepest nesting of a JSON value that enters or leaves (rule O7): deeper ones only serve stack overflows.
pub const JSON_DEPTH_MAX: usize = 32;
/// Most values and keys in one JSON document (O7).
pub const JSON_NODES_MAX: usize = 10_000;
/// Largest JSON document in bytes (O7).
pub const JSON_BYTES_MAX: usize = 256 * 1024;
/// Largest magnitude of an integer (O7): 2^53 - 1, beyond which JavaScript and databases disagree (RFC 7493).
pub const JSON_INTEGER_MAX: i64 = (1 << 53) - 1;

/// First bytes of a stream that are kept (O2).
pub const STREAM_HEAD_BYTES: usize = 64 * 1024;
/// Last bytes of a stream that are kept (O2).
pub const STREAM_TAIL_BYTES: usize = 960 * 1024;

/// Largest script source: a helpdesk script has a few hundred lines, a compiler bomb has megabytes.
pub const SCRIPT_BYTES_MAX: usize = 256 * 1024;
/// Time a script gets unless its metadata says otherwise.
pub const SCRIPT_TIMEOUT: Duration = Duration::from_secs(300);
/// Longest time a script's metadata may ask for.
pub const SCRIPT_TIMEOUT_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// Memory a script gets unless its metadata says otherwise, in MiB.
pub const SCRIPT_MEMORY_MB: u64 = 512;
/// Most memory a script's metadata may ask for, in MiB: 1 TiB, so that its bytes fit any integer type.
pub const SCRIPT_MEMORY_MB_MAX: u64 = 1024 * 1024;
/// Most output a stream may be asked to keep, in KiB: 256 runs at once hold theirs in memory.
pub const STREAM_KIB_MAX: usize = 16 * 1024;
/// Sources that are validated at once: each may keep the interpreter busy for seconds.
pub const VALIDATIONS_MAX: usize = 2;
/// Longest wait for a validation to begin; then it is refused as overloaded.
pub const VALIDATION_WAIT_MAX: Duration = Duration::from_secs(5);
/// Problems with one request that are listed; a hostile body has thousands.
pub const PROBLEMS_MAX: usize = 50;

/// Scripts that are counted by name in the metrics: who collects them keeps a series for each.
pub const METERED_SCRIPTS_MAX: usize = 1000;
/// Runs that may be dispatched at once; they may wait for a worker thread (promise P2).
pub const EXECUTIONS_MAX: usize = 256;
/// Accepted runs that may wait to be dispatched; the next request is refused as overloaded.
pub const QUEUE_MAX: usize = 1024;
/// Longest ticket id in characters.
pub const TICKET_ID_CHARS_MAX: usize = 128;
/// Longest idempotency key in characters.
pub const IDEMPOTENCY_KEY_CHARS_MAX: usize = 255;
/// Most attempts after the first one that a script's metadata may ask for.
pub const RETRIES_MAX: u32 = 100;
/// Longest pause before a run is tried again by itself.
pub const BACKOFF_MAX: Duration = Duration::from_secs(60 * 60);
/// Longest actor name in characters.
pub const ACTOR_CHARS_MAX: usize = 256;

/// Rows of a page unless asked otherwise.
pub const PAGE_ROWS: usize = 50;
/// Most rows of a page.
pub const PAGE_ROWS_MAX: usize = 500;
/// Bytes of output from which a page has no further row: 500 rows may hold a gigabyte. A page has one row at least.
pub const PAGE_BYTES: usize = 8 * 1024 * 1024;
/// Ended executions that one call of pruning looks at, at most: a commit of so many delays others by some milliseconds.
pub const PRUNE_ROWS_MAX: usize = 1000;
/// Ended executions that the engine prunes at a time.
pub const PRUNE_ROWS: usize = 250;
/// Finished runs listed in the statistics.
pub const RECENT_MAX: usize = 10;

/// Events (log lines, progress) recorded for one run; later ones are counted and dropped.
pub const EVENTS_MAX: usize = 10_000;
/// Journal entries of one run: each is an act that can be undone.
pub const JOURNAL_ENTRIES_MAX: usize = 10_000;
/// Longest [`error`](crate::Execution::error) of one run in bytes; the rest is cut.
pub const ERROR_BYTES_MAX: usize = 4096;
/// Longest text of one event in bytes; the rest is cut.
pub const EVENT_BYTES_MAX: usize = 16 * 1024;
/// Shortest secret that is redacted: masking shorter ones would shred ordinary text.
pub const SECRET_BYTES_MIN: usize = 4;
/// Shortest line of a secret with several lines that is redacted by itself, for the same reason.
pub const SECRET_LINE_BYTES_MIN: usize = 8;

/// Most runs that may be dispatched at once, whatever the builder is told: each holds its output in memory.
pub const EXECUTIONS_MAX_MAX: usize = 100_000;
/// Longest lease: what a crash left open stays open for as long.
pub const LEASE_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// Time for which an instance's runs are its own without a renewal.
pub const LEASE: Duration = Duration::from_secs(30);
/// Time that runs get to end when the handle is shut down.
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(30);
