//! One recorded run: what is known of it, and what its end adds.

use std::fmt;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::status::Status;

/// The id of an execution: a UUIDv7, so that ids sort by the time of acceptance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ExecutionId(Uuid);

impl ExecutionId {
    /// Wraps a UUID.
    #[must_use]
    pub const fn from_uuid(id: Uuid) -> Self {
        Self(id)
    }

    /// Returns the UUID.
    #[must_use]
    pub const fn as_uuid(&self) -> &Uuid {
        &self.0
    }
}

impl fmt::Display for ExecutionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::str::FromStr for ExecutionId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Uuid::parse_str(text).map(Self)
    }
}

macro_rules! text_newtype {
    ($(#[$doc:meta])* $name:ident, $default:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Wraps a text.
            #[must_use]
            pub fn new(text: impl Into<Arc<str>>) -> Self {
                Self(text.into())
            }

            /// Returns the text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self::new($default)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_newtype!(
    /// Whose data it is. Every row, key and query has one; `default` where nobody asks.
    TenantId,
    "default"
);
text_newtype!(
    /// Which engine instance holds a run.
    InstanceId,
    ""
);

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
        )]
        #[non_exhaustive]
        pub enum $name {
            $($(#[$vdoc])* #[serde(rename = $word)] $variant,)+
        }

        impl $name {
            /// Every value.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// Returns the word used in JSON, SQL and logs.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }

            /// Returns the value that `word` names, if any.
            #[must_use]
            pub fn from_word(word: &str) -> Option<Self> {
                match word { $($word => Some(Self::$variant),)+ _ => None }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}
pub(crate) use words;

words!(
    /// What started an execution.
    Trigger {
        /// A ticket and its classification.
        Ticket = "ticket",
        /// A person or program that named the script.
        Manual = "manual",
        /// A schedule.
        Schedule = "schedule",
        /// A test of the system; never counted.
        Test = "test",
        /// A repetition of a failed execution.
        Retry = "retry",
        /// The undoing of an execution; never counted.
        Rollback = "rollback",
    }
);

impl Trigger {
    /// Returns whether executions of this trigger count in the statistics (promise P8).
    #[must_use]
    pub const fn is_counted(self) -> bool {
        matches!(
            self,
            Self::Ticket | Self::Manual | Self::Schedule | Self::Retry
        )
    }
}

words!(
    /// The finer cause of a status.
    Reason {
        /// The deadline passed.
        Timeout = "timeout",
        /// Somebody cancelled it.
        CancelledByRequest = "cancelled_by_request",
        /// It used more memory than it may.
        MemoryLimit = "memory_limit",
        /// It used more processor time than it may.
        CpuLimit = "cpu_limit",
        /// An exception was not caught.
        Exception = "exception",
        /// It exited with a code other than 0.
        ExitCode = "exit_code",
        /// It completed without a result that satisfies its output schema (rule O8).
        InvalidOutput = "invalid_output",
        /// The process ended while it ran; what it did is unknown.
        Orphaned = "orphaned",
        /// The process ended before it began; it did nothing.
        NotStarted = "not_started",
        /// The engine was shut down.
        Shutdown = "shutdown",
        /// The executor could not do its part.
        ExecutorError = "executor_error",
        /// It waits until somebody approves it.
        AwaitingApproval = "awaiting_approval",
        /// Nobody approved it in time.
        ApprovalExpired = "approval_expired",
        /// It waits until it is tried again.
        Backoff = "backoff",
        /// It waits for its time.
        Scheduled = "scheduled",
    }
);

words!(
    /// What an event tells.
    EventKind {
        /// A line of the script's log.
        Log = "log",
        /// How far the script is.
        Progress = "progress",
        /// An entry of the script's journal, durable before the script went on.
        Journal = "journal",
        /// Something that the script did to the world outside its own memory.
        Effect = "effect",
        /// Something that the script changed for the whole process, and that could not be undone.
        Contamination = "contamination",
        /// A script that could not be stopped has ended after all; its row stays as it is (promise P3).
        LateEnd = "late_end",
        /// The ticket's resolution could not be recorded: the customer's table refused it.
        Resolution = "resolution",
    }
);

/// Something that happened in a run, in order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Event {
    /// Whose it is.
    pub tenant_id: TenantId,
    /// The run.
    pub execution_id: ExecutionId,
    /// Its place in the run, from 1 without gaps.
    pub seq: u32,
    /// When.
    pub at: DateTime<Utc>,
    /// What it tells.
    pub kind: EventKind,
    /// What it says.
    pub data: Value,
}

impl Event {
    /// Creates an event.
    #[must_use]
    pub const fn new(
        tenant_id: TenantId,
        execution_id: ExecutionId,
        seq: u32,
        at: DateTime<Utc>,
        kind: EventKind,
        data: Value,
    ) -> Self {
        Self {
            tenant_id,
            execution_id,
            seq,
            at,
            kind,
            data,
        }
    }
}

/// What a run used. `None` where the executor can't measure it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceUsage {
    /// Processor time in microseconds, of its threads and programs together.
    pub cpu_us: Option<u64>,
    /// Largest memory use in bytes.
    pub memory_peak_bytes: Option<u64>,
    /// Programs that it started.
    pub children: Option<u32>,
    /// Threads that it started; `None` of an isolated run that was killed.
    pub threads: Option<u32>,
}

words!(
    /// What a script can do to the world outside its own memory. Recorded a run; a script's `deny` forbids some. A
    /// tripwire against accidents, not a sandbox: foreign code, and programs that it starts, do what they like.
    Effect {
        /// Start a program.
        Subprocess = "subprocess",
        /// Connect or send to another host or program.
        Network = "network",
        /// Open a file for writing, or rename or remove one.
        Write = "write",
        /// Call foreign code (`ctypes`, extension modules loaded from other places).
        Native = "native",
    }
);

words!(
    /// Why a script's version no longer runs inside this process.
    Concern {
        /// A run could not be stopped.
        Abandoned = "abandoned",
        /// A run ended the whole process.
        Crashed = "crashed",
        /// A run changed the process for all others, and that could not be undone.
        Contaminated = "contaminated",
        /// A run met its memory limit where the interpreter may not survive that.
        MemoryLimit = "memory_limit",
    }
);

words!(
    /// Where a script runs.
    #[derive(Default)]
    Isolation {
        /// In this process.
        #[default]
        InProcess = "in-process",
        /// In a process of its own.
        Process = "process",
    }
);

/// What a run was asked with besides its parameters.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Context {
    /// The ticket, for ticket runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ticket: Option<Arc<Value>>,
    /// Its classification, for ticket runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classification: Option<Arc<Value>>,
    /// What stands for the whole request, of one under a caller's idempotency key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
}

impl Context {
    /// Creates the context of a ticket without a classification.
    #[must_use]
    pub fn of_ticket(ticket: Value) -> Self {
        Self {
            ticket: Some(Arc::new(ticket)),
            ..Self::default()
        }
    }

    /// Returns what the next attempt is asked with, if there is anything.
    pub(crate) fn of_next(&self) -> Option<Arc<Self>> {
        let next = Self {
            digest: None,
            ..self.clone()
        };
        (!next.is_empty()).then(|| Arc::new(next))
    }

    /// Returns whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// One recorded run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Execution {
    /// Its id.
    pub id: ExecutionId,
    /// Whose it is.
    pub tenant_id: TenantId,
    /// The ticket it serves; its own id when there is none.
    pub ticket_id: String,
    /// The script.
    pub script_name: String,
    /// SHA-256 of the script's source, in hex.
    pub script_version: String,
    /// What started it.
    pub trigger: Trigger,
    /// Who asked.
    pub actor: Option<String>,
    /// The parameters that the script received, defaults filled in, secrets masked.
    pub parameters: Value,
    /// Whether the script was told to change nothing.
    pub dry_run: bool,
    /// What it was asked with besides its parameters; kept so that it can wait, and be tried again.
    pub context: Option<Arc<Context>>,
    /// Where it stands.
    pub status: Status,
    /// Why it stands there, and for one that waits, what it waits for.
    pub reason: Option<Reason>,
    /// Where it runs; for one that waits, where it would run now.
    pub isolation: Isolation,
    /// When it was accepted.
    pub started_at: DateTime<Utc>,
    /// When it became terminal.
    pub completed_at: Option<DateTime<Utc>>,
    /// Not to be dispatched before this time; of one that waits for a decision, when its time is over.
    pub run_at: Option<DateTime<Utc>>,
    /// Higher goes first.
    pub priority: i32,
    /// The engine instance that holds it.
    pub claimed_by: Option<InstanceId>,
    /// Until when it is held.
    pub lease_until: Option<DateTime<Utc>>,
    /// Fencing number; grows with each claim.
    pub epoch: i64,
    /// Which attempt this is, from 1.
    pub attempt: i32,
    /// The first execution of a chain of attempts.
    pub root_id: Option<ExecutionId>,
    /// The execution that caused this one.
    pub parent_id: Option<ExecutionId>,
    /// The caller's key under which at most one execution exists.
    pub idempotency_key: Option<String>,
    /// From dispatch to the script's first byte, in microseconds.
    pub queue_us: Option<u64>,
    /// From the script's first byte to its end, in microseconds.
    pub duration_us: Option<u64>,
    /// What it used.
    pub usage: ResourceUsage,
    /// Standard output.
    pub output: String,
    /// Standard error.
    pub stderr: String,
    /// The failure in a sentence.
    pub error: Option<String>,
    /// The structured result.
    pub parsed_output: Option<Value>,
    /// The exit code, where there was one.
    pub exit_code: Option<i32>,
    /// Whether a stream was longer than what was kept.
    pub truncated: bool,
    /// Bytes that the script wrote to both streams.
    pub output_bytes: u64,
    /// Whether the script could not be stopped and was still running when this was recorded.
    pub still_running: bool,
    /// Why this version of the script is kept out of this process since this run, if so.
    pub concern: Option<Concern>,
}

impl Execution {
    /// Creates a fresh `starting` execution; every other field has its empty value.
    #[must_use]
    pub fn new(
        id: ExecutionId,
        script_name: impl Into<String>,
        script_version: impl Into<String>,
        trigger: Trigger,
        started_at: DateTime<Utc>,
    ) -> Self {
        Self {
            id,
            tenant_id: TenantId::default(),
            ticket_id: id.to_string(),
            script_name: script_name.into(),
            script_version: script_version.into(),
            trigger,
            actor: None,
            parameters: Value::Object(serde_json::Map::new()),
            dry_run: false,
            context: None,
            status: Status::Starting,
            reason: None,
            isolation: Isolation::default(),
            started_at,
            completed_at: None,
            run_at: None,
            priority: 0,
            claimed_by: None,
            lease_until: None,
            epoch: 1,
            attempt: 1,
            root_id: None,
            parent_id: None,
            idempotency_key: None,
            queue_us: None,
            duration_us: None,
            usage: ResourceUsage::default(),
            output: String::new(),
            stderr: String::new(),
            error: None,
            parsed_output: None,
            exit_code: None,
            truncated: false,
            output_bytes: 0,
            still_running: false,
            concern: None,
        }
    }

    /// Returns whether the script succeeded; `None` while it is open.
    #[must_use]
    pub fn success(&self) -> Option<bool> {
        self.status
            .is_terminal()
            .then_some(self.status == Status::Completed)
    }

    /// Returns whether it waits: nothing has executed and nobody holds it, so it survives the process (promise P5).
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.status == Status::Starting && self.lease_until.is_none()
    }

    /// Returns whether it is a ticket run, or repeats one.
    #[must_use]
    pub fn is_of_ticket(&self) -> bool {
        match self.trigger {
            Trigger::Ticket => true,
            Trigger::Retry => self
                .context
                .as_ref()
                .is_some_and(|context| context.ticket.is_some()),
            _ => false,
        }
    }

    /// Returns the first execution of its chain of attempts: itself where it is the first.
    #[must_use]
    pub fn root(&self) -> ExecutionId {
        self.root_id.unwrap_or(self.id)
    }

    /// Returns the owner's word for the trigger: `automated` for ticket runs, else the trigger's own.
    #[must_use]
    pub const fn execution_type(&self) -> &'static str {
        match self.trigger {
            Trigger::Ticket => "automated",
            other => other.as_str(),
        }
    }

    /// Returns the run's length in whole seconds, rounded half up.
    #[must_use]
    pub fn execution_time_seconds(&self) -> Option<u64> {
        self.duration_us.map(whole_seconds)
    }

    /// Adds what the end of the run says. The caller has checked that the transition is legal.
    pub fn end(&mut self, completion: Completion) {
        self.status = completion.status;
        self.reason = completion.reason;
        self.completed_at = Some(completion.completed_at);
        self.lease_until = None;
        self.queue_us = completion.queue_us;
        self.duration_us = completion.duration_us;
        self.usage = completion.usage;
        self.output = completion.output;
        self.stderr = completion.stderr;
        self.error = completion.error;
        self.parsed_output = completion.parsed_output;
        self.exit_code = completion.exit_code;
        self.truncated = completion.truncated;
        self.output_bytes = completion.output_bytes;
        self.still_running = completion.still_running;
        self.concern = completion.concern;
    }
}

/// Returns `us` microseconds in whole seconds, rounded half up.
pub(crate) const fn whole_seconds(us: u64) -> u64 {
    us.saturating_add(500_000) / 1_000_000
}

/// What the end of a run adds to its record. As JSON it outlives the program that wrote it, in the spool: a new field
/// needs a default.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
#[expect(
    missing_docs,
    reason = "each field is the one of `Execution` with the same name"
)]
pub struct Completion {
    pub status: Status,
    pub reason: Option<Reason>,
    pub completed_at: DateTime<Utc>,
    pub queue_us: Option<u64>,
    pub duration_us: Option<u64>,
    pub usage: ResourceUsage,
    pub output: String,
    pub stderr: String,
    pub error: Option<String>,
    pub parsed_output: Option<Value>,
    pub exit_code: Option<i32>,
    pub truncated: bool,
    pub output_bytes: u64,
    pub still_running: bool,
    pub concern: Option<Concern>,
}

impl Completion {
    /// Creates an end with a status; every other field has its empty value.
    #[must_use]
    pub const fn new(status: Status, reason: Option<Reason>, completed_at: DateTime<Utc>) -> Self {
        Self {
            status,
            reason,
            completed_at,
            queue_us: None,
            duration_us: None,
            usage: ResourceUsage {
                cpu_us: None,
                memory_peak_bytes: None,
                children: None,
                threads: None,
            },
            output: String::new(),
            stderr: String::new(),
            error: None,
            parsed_output: None,
            exit_code: None,
            truncated: false,
            output_bytes: 0,
            still_running: false,
            concern: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Reason, Trigger, whole_seconds};

    #[test]
    fn seconds_round_half_up() {
        for (us, seconds) in [
            (0, 0),
            (499_999, 0),
            (500_000, 1),
            (1_499_999, 1),
            (1_500_000, 2),
        ] {
            assert_eq!(whole_seconds(us), seconds, "{us}");
        }
        assert_eq!(whole_seconds(u64::MAX), u64::MAX / 1_000_000);
    }

    #[test]
    fn words_round_trip_and_match_serde() {
        for reason in Reason::ALL {
            assert_eq!(Reason::from_word(reason.as_str()), Some(*reason));
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.as_str());
        }
        for trigger in Trigger::ALL {
            assert_eq!(Trigger::from_word(trigger.as_str()), Some(*trigger));
        }
    }
}
