//! A host that remembers, and the short way from a source to an outcome.

use std::sync::Arc;
use std::time::{Duration, Instant};

use automation_core::executor::{
    CancelToken, Ending, Executor, Failure, Invocation, Outcome, RunEvent, RunHost,
};
use automation_core::secret::{Secret, SecretError};
use automation_core::storage::StorageError;
use automation_core::{ExecutionId, Reason, Script};
use parking_lot::Mutex;
use serde_json::{Value, json};
use uuid::Uuid;

/// Remembers what it was told.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    pub(crate) started: Mutex<Option<Instant>>,
    pub(crate) events: Mutex<Vec<RunEvent>>,
    /// What the script did to the world; most scripts of the tests do something.
    pub(crate) effects: Mutex<Vec<RunEvent>>,
    pub(crate) dry_run: bool,
}

impl RunHost for Recorder {
    fn started(&self) {
        let former = self.started.lock().replace(Instant::now());
        assert!(former.is_none(), "started twice");
    }

    fn emit(&self, event: RunEvent) {
        match event {
            RunEvent::Effect { .. } => self.effects.lock().push(event),
            other => self.events.lock().push(other),
        }
    }

    fn secret(&self, name: &str) -> Result<Secret, SecretError> {
        let name = name.to_owned();
        match name.as_str() {
            "token" => Ok(Secret::new("12345678")),
            "panic" => panic!("the host has a defect"),
            "broken" => {
                let detail = "no permission".to_owned();
                Err(SecretError::Unreadable { name, detail })
            }
            "../x" => Err(SecretError::InvalidName { name }),
            _ => Err(SecretError::Missing { name }),
        }
    }

    fn journal(&self, _entry: Value) -> Result<(), StorageError> {
        Ok(())
    }

    fn deadline(&self) -> Option<Instant> {
        None
    }

    fn is_cancelled(&self) -> bool {
        false
    }

    fn dry_run(&self) -> bool {
        self.dry_run
    }
}

/// Defines `stuck(seconds)`, a call of foreign code that no signal ends.
pub(crate) const STUCK: &str = "\
import ctypes, time
class At(ctypes.Structure): _fields_ = [('s', ctypes.c_long), ('ns', ctypes.c_long)]
def stuck(seconds):
    mutex, end, lib = ctypes.create_string_buffer(64), time.time() + seconds, ctypes.CDLL(None)
    lib.pthread_mutex_lock(mutex)
    lib.pthread_mutex_timedlock(mutex, ctypes.byref(At(int(end), int(end % 1 * 1e9))))
";

/// One run to be.
pub(crate) struct Case {
    pub(crate) host: Arc<Recorder>,
    pub(crate) invocation: Invocation,
    pub(crate) cancel: CancelToken,
}

impl Case {
    pub(crate) fn new(source: &str) -> Self {
        Self::at("/srv/scripts/probe.py", source)
    }

    pub(crate) fn at(path: &str, source: &str) -> Self {
        let script = Arc::new(Script::parse(path, source.as_bytes()).unwrap());
        let host = Arc::new(Recorder::default());
        let id = ExecutionId::from_uuid(Uuid::now_v7());
        let mut invocation = Invocation::new(id, script, Arc::clone(&host) as Arc<dyn RunHost>);
        invocation.limits.timeout = Duration::from_secs(30);
        Self {
            host,
            invocation,
            cancel: CancelToken::new(),
        }
    }

    pub(crate) fn with(mut self, parameters: Value) -> Self {
        let Value::Object(parameters) = parameters else {
            panic!("parameters are an object")
        };
        self.invocation.parameters = parameters;
        self
    }

    pub(crate) fn ticket(mut self, ticket: Value) -> Self {
        self.invocation.ticket = Some(Arc::new(ticket));
        self.invocation.classification = Some(Arc::new(json!({ "category": "Device Slow" })));
        self
    }

    pub(crate) fn within(mut self, timeout: Duration) -> Self {
        self.invocation.limits.timeout = timeout;
        self
    }

    pub(crate) async fn run(self, executor: &Tested) -> Outcome {
        executor
            .execute(self.invocation, self.cancel)
            .await
            .unwrap()
    }
}

// What a suite is about: each suite's root says it.
pub(crate) use crate::{Tested, executor};

/// Runs a source with an executor of its own.
pub(crate) async fn run(source: &str) -> Outcome {
    Case::new(source).run(&executor()).await
}

/// Runs a source that has to complete. Returns its standard output.
pub(crate) async fn stdout(source: &str) -> String {
    let outcome = run(source).await;
    assert_eq!(
        outcome.ending,
        Ending::Completed,
        "{}\n{}",
        outcome.output.stdout.text,
        outcome.output.stderr.text
    );
    outcome.output.stdout.text
}

/// Returns why a run failed.
pub(crate) fn failure(outcome: &Outcome) -> (Reason, &str) {
    let Ending::Failed(Failure { reason, message }) = &outcome.ending else {
        panic!("{outcome:?}")
    };
    (*reason, message)
}
