//! Counts runs for the policy's quotas, in this instance. Knows nothing of what the rules are for.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use parking_lot::Mutex;

use super::Engine;
use super::plan::Plan;
use crate::error::{Error, Result};
use crate::execution::{Execution, TenantId};
use crate::limits;
use crate::policy::{Counted, Quota, Subject};
use crate::request::Page;
use crate::script::ScriptIndex;
use crate::storage::{ExecutionQuery, StorageError};

/// What a run that was refused for too many at once is told to wait.
const CONCURRENT_RETRY: Duration = Duration::from_secs(1);
/// Counts that are kept at least before those that say nothing any more are looked for.
const COUNTS_MIN: usize = 256;

/// The rule, and what it counts apart.
type Key = (Arc<Quota>, Box<str>);

#[derive(Debug, Default)]
struct Counts {
    by_key: HashMap<Key, Count>,
    /// So many are there when they are looked through.
    sweep_at: usize,
}

#[derive(Debug, Default)]
struct Count {
    running: usize,
    /// When runs were accepted, oldest first; none that is older than the rule's window.
    accepted: VecDeque<DateTime<Utc>>,
}

/// The counts. Clones share one.
#[derive(Debug, Clone, Default)]
pub(super) struct Quotas(Arc<Mutex<Counts>>);

/// A run's share of the quotas; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Share {
    quotas: Quotas,
    keys: Vec<Key>,
    /// When it was taken, unless it counts in the windows for good.
    taken: Option<DateTime<Utc>>,
}

impl Quotas {
    /// Takes a run's share of every rule that is about it, or of none; refused while a rule has none left.
    pub(super) fn enter(
        &self,
        rules: &[Arc<Quota>],
        run: Counted<'_>,
        now: DateTime<Utc>,
    ) -> Result<Option<Share>> {
        if rules.is_empty() {
            return Ok(None);
        }
        let keys = rules.iter().filter_map(|rule| {
            let key = rule.key(run)?;
            Some((Arc::clone(rule), key.into_boxed_str()))
        });
        let keys: Vec<Key> = keys.collect();
        let mut counts = self.0.lock();
        for key in &keys {
            if let Some(count) = counts.by_key.get_mut(key) {
                count.check(&key.0, now)?;
            }
        }
        for key in &keys {
            counts.of(key, now).take(&key.0, now);
        }
        drop(counts);
        Ok(Some(Share {
            quotas: self.clone(),
            keys,
            taken: Some(now),
        }))
    }

    /// Counts a run in the windows that an earlier process accepted. Runs are told newest first.
    pub(super) fn remember(&self, rules: &[Arc<Quota>], run: Counted<'_>, at: DateTime<Utc>) {
        let mut counts = self.0.lock();
        for rule in rules.iter().filter(|rule| rule.rate().is_some()) {
            if let Some(key) = rule.key(run) {
                let key = (Arc::clone(rule), key.into_boxed_str());
                counts.of(&key, at).accepted.push_front(at);
            }
        }
    }
}

impl Engine {
    /// Takes a run's share of the policy's quotas, unless somebody forces the run.
    pub(super) async fn share(&self, tenant: &TenantId, plan: &Plan) -> Result<Option<Share>> {
        let policy = self.policy.load_full();
        let rules = &policy.quotas;
        if rules.is_empty() || plan.decision.forced.is_some() {
            return Ok(None);
        }
        let load = || self.remember_runs(rules);
        Box::pin(self.quotas_loaded.get_or_try_init(load)).await?;
        let run = Counted {
            subject: Subject {
                script: plan.script.name(),
                category: plan.decision.category.as_deref(),
            },
            tenant: tenant.as_str(),
            ticket: plan.ticket_id.as_deref(),
            actor: plan.actor.as_deref(),
        };
        self.quotas.enter(rules, run, self.now())
    }

    /// Counts what earlier processes, and other instances until now, accepted within the windows.
    async fn remember_runs(&self, rules: &[Arc<Quota>]) -> Result<(), StorageError> {
        let windows = rules.iter().filter_map(|rule| rule.rate());
        let Some(longest) = windows.map(|(_, window)| window).max() else {
            return Ok(());
        };
        let query = ExecutionQuery {
            since: Some(self.now() - longest),
            without_output: true,
            ..ExecutionQuery::default()
        };
        let (index, mut read) = (self.scripts(), 0);
        let mut page = Page::first(limits::PAGE_ROWS_MAX);
        loop {
            let rows = self.parts.storage.list(&query, &page).await?;
            for row in &rows.items {
                self.quotas
                    .remember(rules, counted(row, &index), row.started_at);
            }
            read += rows.items.len();
            let Some(next) = rows.next else { return Ok(()) };
            if read >= limits::QUOTA_ROWS_MAX {
                tracing::warn!(
                    read,
                    "only the newest runs of an earlier process count for the quotas"
                );
                return Ok(());
            }
            page = Page::first(limits::PAGE_ROWS_MAX).after(next);
        }
    }
}

/// What a recorded run is counted by; its category is the one that its script declares now.
fn counted<'a>(row: &'a Execution, index: &'a ScriptIndex) -> Counted<'a> {
    let script = index.script(&row.script_name);
    let own_id = row.id.to_string();
    Counted {
        subject: Subject {
            script: &row.script_name,
            category: script.and_then(|script| script.metadata().category.as_deref()),
        },
        tenant: row.tenant_id.as_str(),
        ticket: (row.ticket_id != own_id).then_some(&row.ticket_id),
        actor: row.actor.as_deref(),
    }
}

impl Counts {
    /// Returns a count, and forgets those that say nothing any more when there are too many.
    fn of(&mut self, key: &Key, now: DateTime<Utc>) -> &mut Count {
        if self.by_key.len() >= self.sweep_at.max(COUNTS_MIN) {
            self.by_key.retain(|(rule, _), count| {
                count.forget(rule, now);
                count.running > 0 || !count.accepted.is_empty()
            });
            self.sweep_at = self.by_key.len() * 2;
        }
        self.by_key.entry(key.clone()).or_default()
    }
}

impl Count {
    fn check(&mut self, rule: &Quota, now: DateTime<Utc>) -> Result<()> {
        self.forget(rule, now);
        if let Some(most) = rule.concurrent.filter(|most| self.running >= *most) {
            return Err(Error::QuotaExceeded {
                limit: format!("{}: {most} at once", rule.shown()),
                retry_after: CONCURRENT_RETRY,
            });
        }
        let Some((most, window)) = rule.rate() else {
            return Ok(());
        };
        // Where a rule was made stricter, more runs than one have to become old.
        let Some(frees) = self.accepted.len().checked_sub(most) else {
            return Ok(());
        };
        let frees = self.accepted[frees] + window;
        let retry_after = (frees - now).to_std().unwrap_or(Duration::ZERO);
        Err(Error::QuotaExceeded {
            limit: format!("{}: {most} in {} seconds", rule.shown(), window.as_secs()),
            retry_after,
        })
    }

    fn forget(&mut self, rule: &Quota, now: DateTime<Utc>) {
        let Some((_, window)) = rule.rate() else {
            return;
        };
        while self.accepted.front().is_some_and(|at| *at + window <= now) {
            self.accepted.pop_front();
        }
    }

    fn take(&mut self, rule: &Quota, now: DateTime<Utc>) {
        self.running += 1;
        if rule.rate().is_some() {
            self.accepted.push_back(now);
        }
    }
}

impl Share {
    /// The run was accepted: it stays in the windows when it has ended.
    pub(super) fn accepted(mut self) -> Self {
        self.taken = None;
        self
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut counts = self.quotas.0.lock();
        for key in &self.keys {
            let Some(count) = counts.by_key.get_mut(key) else {
                continue;
            };
            count.running = count.running.saturating_sub(1);
            let taken = self
                .taken
                .and_then(|at| count.accepted.iter().rposition(|one| *one == at));
            if let Some(taken) = taken {
                count.accepted.remove(taken);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use chrono::{DateTime, TimeDelta, Utc};
    use proptest::prelude::*;

    use super::{Quotas, Share};
    use crate::error::Error;
    use crate::policy::{Counted, Per, Quota, Subject};

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::seconds(seconds)
    }

    fn of(actor: &str) -> Counted<'_> {
        Counted {
            subject: Subject {
                script: "a.py",
                category: None,
            },
            tenant: "t",
            ticket: None,
            actor: Some(actor),
        }
    }

    fn rate(per: Per, runs: usize, window_seconds: u64) -> Vec<Arc<Quota>> {
        vec![Arc::new(Quota {
            per,
            runs: Some(runs),
            window_seconds: Some(window_seconds),
            ..Quota::default()
        })]
    }

    fn accepted(entered: Result<Option<Share>, Error>) {
        drop(entered.unwrap().unwrap().accepted());
    }

    #[test]
    fn a_window_frees_when_its_oldest_run_is_old() {
        let (quotas, rules) = (Quotas::default(), rate(Per::Actor, 2, 60));
        accepted(quotas.enter(&rules, of("a"), at(0)));
        accepted(quotas.enter(&rules, of("a"), at(10)));
        let error = quotas.enter(&rules, of("a"), at(30)).unwrap_err();
        assert_eq!(error.retry_after(), Some(Duration::from_secs(30)));
        assert_eq!(
            error.to_string(),
            "quota exceeded: quota per actor: 2 in 60 seconds; the next one frees in 30 seconds"
        );
        accepted(quotas.enter(&rules, of("b"), at(30)));
        accepted(quotas.enter(&rules, of("a"), at(60)));
        assert!(quotas.enter(&rules, of("a"), at(69)).is_err());
    }

    #[test]
    fn who_is_not_accepted_after_all_leaves_no_trace() {
        let (quotas, rules) = (Quotas::default(), rate(Per::All, 1, 60));
        drop(quotas.enter(&rules, of("a"), at(0)).unwrap());
        accepted(quotas.enter(&rules, of("a"), at(0)));
        assert!(quotas.enter(&rules, of("a"), at(0)).is_err());
    }

    #[test]
    fn one_rule_that_refuses_takes_no_share_of_the_others() {
        let quotas = Quotas::default();
        let mut rules = rate(Per::All, 2, 60);
        rules.extend(rate(Per::Actor, 1, 60));
        accepted(quotas.enter(&rules, of("a"), at(0)));
        assert!(quotas.enter(&rules, of("a"), at(0)).is_err());
        accepted(quotas.enter(&rules, of("b"), at(0)));
    }

    #[test]
    fn what_says_nothing_any_more_is_forgotten() {
        let (quotas, rules) = (Quotas::default(), rate(Per::Actor, 1, 1));
        for n in 0..10_000 {
            accepted(quotas.enter(&rules, of(&n.to_string()), at(n)));
        }
        assert!(quotas.0.lock().by_key.len() <= 2 * super::COUNTS_MIN);
    }

    proptest! {
        /// Against a list of all runs that is counted anew each time.
        #[test]
        fn never_more_at_once_or_in_the_window_than_the_rule_says(
            steps in prop::collection::vec((0..3_u8, 0..4_i64, any::<bool>()), 0..60),
            (concurrent, runs, window) in (1..4_usize, 1..5_usize, 1..8_u64),
        ) {
            let quotas = Quotas::default();
            let rules = [Arc::new(Quota {
                per: Per::Actor,
                concurrent: Some(concurrent),
                runs: Some(runs),
                window_seconds: Some(window),
                ..Quota::default()
            })];
            let mut open: Vec<(u8, Share)> = Vec::new();
            let mut log: Vec<(u8, i64)> = Vec::new();
            let mut now = 0;
            for (actor, pause, ends) in steps {
                now += pause;
                if ends && let Some(i) = open.iter().position(|(of, _)| *of == actor) {
                    drop(open.remove(i));
                    continue;
                }
                let recent = log.iter().filter(|(of, at)| *of == actor && *at + i64::try_from(window).unwrap() > now);
                let running = open.iter().filter(|(of, _)| *of == actor).count();
                let fits = running < concurrent && recent.count() < runs;
                let entered = quotas.enter(&rules, of(&actor.to_string()), at(now));
                prop_assert_eq!(entered.is_ok(), fits);
                if let Ok(Some(share)) = entered {
                    open.push((actor, share.accepted()));
                    log.push((actor, now));
                }
            }
        }
    }
}
