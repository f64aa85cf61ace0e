//! Where a script runs: in this process or in one of its own, by its metadata, the builder and the quarantine.

use std::sync::Arc;

use super::quarantine::Consequence;
use super::{Engine, Settings};
use crate::error::{Error, Result};
use crate::execution::{Concern, Isolation};
use crate::executor::Executor;
use crate::script::Script;

/// Where a script runs.
pub(super) struct Venue {
    pub(super) isolation: Isolation,
    pub(super) executor: Arc<dyn Executor>,
}

/// Returns whether a script is to be isolated whatever its runs did.
pub(super) fn wants_isolation(settings: &Settings, script: &Script) -> bool {
    settings.isolate_all || script.metadata().isolation == Isolation::Process
}

impl Engine {
    /// Returns where a script runs now: what its metadata, the builder and the quarantine say.
    pub(super) fn venue(&self, script: &Script) -> Result<Venue> {
        let isolated = self.parts.isolated_executor.as_ref();
        let isolated = isolated.map(|executor| Venue {
            isolation: Isolation::Process,
            executor: Arc::clone(executor),
        });
        if wants_isolation(&self.settings, script) {
            return isolated.ok_or_else(|| asks_for_isolation(script));
        }
        match (self.quarantine.concern(script.version()), isolated) {
            (None, _) => Ok(self.in_process()),
            (Some(_), Some(isolated)) => Ok(isolated),
            (Some(concern), None) => self.without_isolation(script, concern),
        }
    }

    fn in_process(&self) -> Venue {
        Venue {
            isolation: Isolation::InProcess,
            executor: Arc::clone(&self.parts.executor),
        }
    }

    /// Decides on a version in quarantine where nothing can isolate it.
    fn without_isolation(&self, script: &Script, concern: Concern) -> Result<Venue> {
        let name = script.name();
        if self.consequence(concern) == Consequence::Refused {
            let what = format!(
                "script {name:?} is in quarantine ({concern}) and there is no isolated executor: give one, change \
                 the script, or release it"
            );
            return Err(Error::Unsupported { what });
        }
        tracing::warn!(script = name, %concern, "a script in quarantine runs in this process: there is no isolated executor");
        Ok(self.in_process())
    }

    /// Returns what becomes of the runs of a version for which there is this concern.
    pub(super) const fn consequence(&self, concern: Concern) -> Consequence {
        match (&self.parts.isolated_executor, concern) {
            (Some(_), _) => Consequence::Isolated,
            (None, Concern::Crashed) => Consequence::Refused,
            (None, _) => Consequence::Tolerated,
        }
    }
}

fn asks_for_isolation(script: &Script) -> Error {
    let name = script.name();
    let what = format!(
        "script {name:?} asks for isolation = \"process\" and there is no isolated executor"
    );
    Error::Unsupported { what }
}
