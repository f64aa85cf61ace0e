//! Promises on statistics (P8).

use std::collections::HashMap;
use std::sync::Arc;

use chrono::TimeDelta;

use super::samples::{
    Numbers, at, end, finish, fresh, id, ids, insert, insert_all, one, transition,
};
use crate::execution::{Completion, Execution, ExecutionId, ResourceUsage, TenantId, Trigger};
use crate::limits::RECENT_MAX;
use crate::request::StatsQuery;
use crate::stats::{Histogram, Stats};
use crate::status::Status;
use crate::storage::{Change, Storage, Write};

async fn stats(storage: &Arc<dyn Storage>) -> Stats {
    storage.stats(&StatsQuery::default()).await.unwrap()
}

fn running(n: u64) -> Execution {
    Execution {
        status: Status::Running,
        ..fresh(n)
    }
}

/// `total` is what completed or failed; cancelled and open executions are counted apart.
pub async fn stats_count_each_outcome(storage: &Arc<dyn Storage>) {
    let rows: Vec<_> = (0..5).map(running).collect();
    insert_all(storage, &rows).await;
    let outcomes = [
        Status::Completed,
        Status::Completed,
        Status::Failed,
        Status::Cancelled,
    ];
    for ((row, status), us) in rows.iter().zip(outcomes).zip([1, 2, 4_000_000, 8]) {
        let mut end = end(status);
        end.duration_us = Some(us);
        end.usage.cpu_us = Some(us * 10);
        end.usage.memory_peak_bytes = Some(us * 100);
        end.usage.children = u32::try_from(us).ok();
        end.usage.threads = u32::try_from(us * 2).ok();
        end.queue_us = Some(us * 3);
        end.output_bytes = us * 4;
        one(storage, transition(row, Change::End(end)))
            .await
            .unwrap();
    }
    let stats = stats(storage).await;
    let all = &stats.all;
    assert_eq!((all.total, all.successful, all.failed), (3, 2, 1));
    assert_eq!((all.cancelled, stats.open), (1, 1));
    assert_eq!((all.duration_us, all.cpu_us), (4_000_003, 40_000_030));
    assert_eq!(all.memory_peak_bytes, 400_000_000);
    assert_eq!((all.children, all.threads), (4_000_003, 8_000_006));
    assert_eq!((all.queue_us, all.output_bytes), (12_000_009, 16_000_012));
    let mut durations = Histogram::default();
    for us in [1, 2, 4_000_000] {
        durations.add(Histogram::bucket(us), 1);
    }
    assert_eq!(all.durations, durations);
    assert_eq!(stats.by_script["disk_cleanup.py"], *all);
    assert_eq!(ids(&stats.recent), [3, 2, 1, 0].map(id));
}

/// Tests and rollbacks are in the list and in no statistic.
pub async fn test_and_rollback_are_not_counted(storage: &Arc<dyn Storage>) {
    for (n, trigger) in (0..).zip(Trigger::ALL) {
        for n in [n, n + 100] {
            let row = Execution {
                trigger: *trigger,
                ..running(n)
            };
            insert_all(storage, std::slice::from_ref(&row)).await;
            if n < 100 {
                one(storage, finish(&row, Status::Completed)).await.unwrap();
            }
        }
    }
    let counted = Trigger::ALL.iter().filter(|t| t.is_counted()).count() as u64;
    let stats = stats(storage).await;
    assert_eq!((stats.all.total, stats.open), (counted, counted));
    let shown = stats.recent.iter().all(|row| row.trigger.is_counted());
    assert!(shown && stats.recent.len() as u64 == counted);
}

/// The day is the UTC date of the end, and a script is asked for by its exact name.
pub async fn stats_by_day_and_script(storage: &Arc<dyn Storage>) {
    let midnight = at(12 * 3600);
    let us = TimeDelta::microseconds(1);
    let ends = [
        (0, "a.py", midnight - us),
        (1, "a.py", midnight),
        (2, "b.py", midnight + TimeDelta::days(1)),
    ];
    for (n, script, completed_at) in ends {
        let row = Execution {
            script_name: script.to_owned(),
            ..running(n)
        };
        insert_all(storage, std::slice::from_ref(&row)).await;
        let end = Completion::new(Status::Completed, None, completed_at);
        one(storage, transition(&row, Change::End(end)))
            .await
            .unwrap();
    }
    let day = midnight.date_naive();
    let cases = [
        (None, None, vec![2, 1, 0]),
        (Some(day), None, vec![2, 1]),
        (Some(day), Some("a.py"), vec![1]),
        (day.succ_opt(), Some("a.py"), vec![]),
        (None, Some("A.py"), vec![]),
    ];
    for (since, script, expected) in cases {
        let query = StatsQuery {
            since,
            script_name: script.map(str::to_owned),
            ..StatsQuery::default()
        };
        let stats = storage.stats(&query).await.unwrap();
        let expected: Vec<_> = expected.into_iter().map(id).collect();
        assert_eq!(stats.all.total, expected.len() as u64, "{query:?}");
        assert_eq!(ids(&stats.recent), expected, "{query:?}");
    }
}

/// From whichever day on: each run of months is counted once, at the edges of months and years, too.
pub async fn stats_since_any_day_count_each_run_once(storage: &Arc<dyn Storage>) {
    let first = at(0) - TimeDelta::days(40);
    for n in 0..100 {
        let row = running(n);
        insert_all(storage, std::slice::from_ref(&row)).await;
        let day = first + TimeDelta::days(n.try_into().unwrap());
        let mut end = Completion::new(Status::Completed, None, day);
        end.duration_us = Some(n);
        one(storage, transition(&row, Change::End(end)))
            .await
            .unwrap();
    }
    for n in 0..=100_u64 {
        let day = first + TimeDelta::days(n.try_into().unwrap());
        let query = StatsQuery {
            since: Some(day.date_naive()),
            ..StatsQuery::default()
        };
        let all = storage.stats(&query).await.unwrap().all;
        assert_eq!(
            (all.total, all.duration_us),
            (100 - n, (n..100).sum()),
            "{day}"
        );
    }
}

/// The newest finished executions are shown without output, `RECENT_MAX` at most.
pub async fn recent_are_the_newest_finished(storage: &Arc<dyn Storage>) {
    let count = RECENT_MAX as u64 + 3;
    let rows: Vec<_> = (0..count).map(running).collect();
    insert_all(storage, &rows).await;
    // The newest stays open; the others end in the wrong order.
    for row in rows[..rows.len() - 1].iter().rev() {
        let mut end = end(Status::Completed);
        end.output = "out".to_owned();
        end.parsed_output = Some(serde_json::json!(1));
        one(storage, transition(row, Change::End(end)))
            .await
            .unwrap();
    }
    let recent = stats(storage).await.recent;
    let expected: Vec<_> = (2..count - 1).rev().map(id).collect();
    assert_eq!(ids(&recent), expected);
    assert!(
        recent
            .iter()
            .all(|row| row.output.is_empty() && row.parsed_output.is_none())
    );
}

/// After any history, made by many callers at a time, the statistics are those of the model.
pub async fn stats_equal_model(storage: &Arc<dyn Storage>) {
    let mut model = Model::default();
    for round in 0..40 {
        let writes = model.round(round);
        let mut callers = tokio::task::JoinSet::new();
        for write in writes {
            let storage = Arc::clone(storage);
            callers.spawn(async move { one(&storage, write).await.unwrap() });
        }
        callers.join_all().await;
        if round % 8 == 7 {
            model.check(storage).await;
        }
    }
}

const TENANTS: [&str; 2] = ["default", "other"];
const SCRIPTS: [&str; 3] = ["a.py", "b.py", "c.py"];

/// What the storage is to hold.
#[derive(Debug)]
struct Model {
    numbers: Numbers,
    rows: HashMap<ExecutionId, Execution>,
}

impl Default for Model {
    fn default() -> Self {
        Self {
            numbers: Numbers(42),
            rows: HashMap::new(),
        }
    }
}

impl Model {
    /// Returns writes to different executions, and takes them as done.
    fn round(&mut self, round: u64) -> Vec<Write> {
        let mut open: Vec<_> = self
            .rows
            .values()
            .filter(|row| !row.status.is_terminal())
            .cloned()
            .collect();
        open.sort_by_key(|row| row.id);
        let moved = open
            .iter()
            .filter_map(|row| self.advance(row))
            .collect::<Vec<_>>();
        let fresh = (0..8)
            .map(|n| self.accept(round * 8 + n))
            .collect::<Vec<_>>();
        moved.into_iter().chain(fresh).collect()
    }

    fn accept(&mut self, n: u64) -> Write {
        let numbers = &mut self.numbers;
        let row = Execution {
            tenant_id: TenantId::new(numbers.one_of(&TENANTS)),
            script_name: numbers.one_of(&SCRIPTS).to_owned(),
            trigger: numbers.one_of(Trigger::ALL),
            status: numbers.one_of(&[Status::Starting, Status::Running]),
            started_at: at(numbers.below(200).try_into().unwrap()),
            ..fresh(n)
        };
        self.rows.insert(row.id, row.clone());
        insert(&row)
    }

    fn advance(&mut self, row: &Execution) -> Option<Write> {
        let to = self.numbers.one_of(&Status::ALL);
        if !(row.status.may_become(to) && to.is_terminal()) {
            return None;
        }
        let end = self.end(to);
        let known = self.rows.get_mut(&row.id).unwrap();
        known.end(end.clone());
        Some(transition(row, Change::End(end)))
    }

    fn end(&mut self, status: Status) -> Completion {
        let numbers = &mut self.numbers;
        let some = |n: u64| (n > 0).then_some(n);
        let days = TimeDelta::days(numbers.below(3).try_into().unwrap());
        Completion {
            duration_us: some(numbers.below(5_000_000)),
            usage: ResourceUsage {
                cpu_us: some(numbers.below(3)),
                memory_peak_bytes: some(numbers.below(1 << 30)),
                children: some(numbers.below(3)).map(|n| u32::try_from(n).unwrap()),
                threads: some(numbers.below(9)).map(|n| u32::try_from(n).unwrap()),
            },
            queue_us: some(numbers.below(1000)),
            output_bytes: numbers.below(1 << 20),
            output: "text".to_owned(),
            ..Completion::new(status, None, at(300) + days)
        }
    }

    async fn check(&self, storage: &Arc<dyn Storage>) {
        let days = (0..4).map(|n| Some((at(300) + TimeDelta::days(n)).date_naive()));
        for since in [None].into_iter().chain(days) {
            for tenant in TENANTS {
                for script in [None].into_iter().chain(SCRIPTS.map(Some)) {
                    let query = StatsQuery {
                        tenant_id: TenantId::new(tenant),
                        since,
                        script_name: script.map(str::to_owned),
                    };
                    let found = storage.stats(&query).await.unwrap();
                    assert_eq!(found, self.fold(&query), "{query:?}");
                }
            }
        }
    }

    fn fold(&self, query: &StatsQuery) -> Stats {
        let mut rows: Vec<_> = self
            .rows
            .values()
            .filter(|row| row.tenant_id == query.tenant_id)
            .filter(|row| {
                query
                    .script_name
                    .as_ref()
                    .is_none_or(|name| *name == row.script_name)
            })
            .filter(|row| match (query.since, row.completed_at) {
                (Some(since), Some(at)) => since <= at.date_naive(),
                _ => true,
            })
            .collect();
        rows.sort_by_key(|row| std::cmp::Reverse((row.started_at, row.id)));
        Stats::fold(rows, RECENT_MAX)
    }
}
