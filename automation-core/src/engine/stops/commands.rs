//! Stopping and resuming: checked, in effect at once, recorded, and told to those who look.

use super::{StopTarget, Stopped};
use crate::engine::Engine;
use crate::engine::decided::{Decided, Verb, check_decider};
use crate::engine::host::Stop;
use crate::engine::plan;
use crate::error::{Error, Result};
use crate::policy::Subject;
use crate::script::{Category, Script};
use crate::storage::StorageError;

impl Engine {
    pub(in crate::engine) async fn stops_loaded(&self) -> Result<(), StorageError> {
        let notices = &self.stops.notices;
        notices.load(|| notices.refresh(&*self.parts.storage)).await
    }

    pub(in crate::engine) async fn keep_up_stops(&self) -> Result<(), StorageError> {
        let notices = &self.stops.notices;
        notices
            .keep_up(|| notices.refresh(&*self.parts.storage))
            .await
    }

    pub(in crate::engine) async fn record_stops(&self) -> Result<(), StorageError> {
        self.stops.notices.record(&*self.parts.storage).await
    }

    /// Refuses what people have stopped.
    pub(in crate::engine) fn check_stops(
        &self,
        script: &Script,
        category: Option<&str>,
    ) -> Result<()> {
        let subject = Subject {
            script: script.name(),
            category,
        };
        self.stops
            .check(subject, script.metadata().category.as_deref())
    }

    pub(crate) async fn set_stop(
        &self,
        target: StopTarget,
        actor: &str,
        reason: &str,
        cancel_running: bool,
    ) -> Result<Stopped> {
        check_decider(actor, reason)?;
        self.check_target(&target)?;
        let stop = Stopped {
            target,
            actor: actor.to_owned(),
            reason: reason.to_owned(),
            at: self.now(),
        };
        let key = stop.target.key();
        let is_new = self.stops.notices.add(&key, &stop);
        if is_new {
            self.decided(&Decided::new(Verb::Stop, &stop.target, actor, reason));
        }
        if cancel_running {
            self.cancel_stopped(&stop);
        }
        if let Err(error) = self.record_stops().await {
            tracing::warn!(%error, "a stop is not recorded yet; it is tried again with the leases");
        }
        Ok(self.known_stop(&key).unwrap_or(stop))
    }

    /// Asks the runs of this instance to end that would not be let in now.
    fn cancel_stopped(&self, stop: &Stopped) {
        let runs: Vec<_> = self.live.lock().values().cloned().collect();
        for run in runs {
            let (script, category) = run.subject();
            if self.check_stops(script, category).is_err() {
                let actor = Some(stop.actor.clone());
                run.stop(Stop::Cancel { actor });
            }
        }
    }

    pub(crate) async fn lift_stop(
        &self,
        target: &StopTarget,
        actor: &str,
        reason: &str,
    ) -> Result<Stopped> {
        check_decider(actor, reason)?;
        self.stops_loaded().await?;
        let notices = &self.stops.notices;
        let _turn = notices.turn().await;
        let key = target.key();
        let Some(stop) = self.known_stop(&key) else {
            let detail = format!("{target} is not stopped");
            return Err(Error::Conflict { detail });
        };
        notices.delete(&*self.parts.storage, &key, &stop).await?;
        self.decided(&Decided::new(Verb::Resume, target, actor, reason));
        Ok(stop)
    }

    fn known_stop(&self, key: &str) -> Option<Stopped> {
        let stops = self.stops.notices.entries();
        stops.get(key).map(|stop| stop.notice.clone())
    }

    pub(crate) async fn stopped(&self) -> Result<Vec<Stopped>> {
        self.stops_loaded().await?;
        Ok(self.known_stops())
    }

    /// Returns what is known to be stopped, oldest first.
    pub(in crate::engine) fn known_stops(&self) -> Vec<Stopped> {
        let stops = self.stops.notices.all().into_iter();
        let mut stops: Vec<_> = stops.map(|(_, stop)| stop).collect();
        stops.sort_by_key(|stop| stop.at);
        stops
    }

    /// A misspelled name would stop nothing.
    fn check_target(&self, target: &StopTarget) -> Result<()> {
        let index = self.scripts();
        match target {
            StopTarget::All => Ok(()),
            StopTarget::Script(name) => match plan::script(&index, name) {
                Err(error @ Error::ScriptNotFound { .. }) => Err(error),
                Ok(_) | Err(_) => Ok(()),
            },
            StopTarget::Category(name) => {
                let category = Category::new(name);
                let policy = self.policy();
                let mut routes = policy.routes.iter();
                let is_known = !index.for_category(name).is_empty()
                    || routes.any(|rule| Category::new(&rule.category) == category);
                if is_known {
                    return Ok(());
                }
                Err(Error::NoScriptForCategory {
                    category: name.clone(),
                    detail: "no script and no rule names it, so stopping it would stop nothing"
                        .to_owned(),
                })
            }
        }
    }
}
