//! What the writer is compared with: a loop on one thread that executes the writer's statements on the same tables, with
//! values from the same structs, and knows neither callers nor conditions nor faults.

use chrono::{DateTime, Datelike, Timelike, Utc};
use rusqlite::{Connection, Statement, params};
use serde_json::Value;
use uuid::Uuid;

use automation_core::{Completion, Execution};

/// The statements of the writer, with its columns and conditions.
pub(crate) struct Bare<'c> {
    begin: Statement<'c>,
    commit: Statement<'c>,
    insert: Statement<'c>,
    find: Statement<'c>,
    end: Statement<'c>,
    find_ticket: Statement<'c>,
    resolve: Statement<'c>,
    durations: [Statement<'c>; 2],
    count: [Statement<'c>; 2],
}

const SUMS: [&str; 2] = ["automation_stats", "automation_months"];

impl<'c> Bare<'c> {
    pub(crate) fn new(connection: &'c Connection) -> Self {
        let settings = "PRAGMA synchronous = normal; PRAGMA wal_autocheckpoint = 4096; PRAGMA cache_size = -16384;
             PRAGMA temp_store = memory; PRAGMA foreign_keys = true;";
        connection.execute_batch(settings).unwrap();
        let prepare = |sql: &str| connection.prepare(sql).unwrap();
        Self {
            begin: prepare("BEGIN IMMEDIATE"),
            commit: prepare("COMMIT"),
            insert: prepare(INSERT),
            find: prepare(FIND),
            end: prepare(END),
            find_ticket: prepare(FIND_TICKET),
            resolve: prepare(RESOLVE),
            durations: SUMS.map(|table| prepare(&DURATIONS.replace("{table}", table))),
            count: SUMS.map(|table| prepare(&COUNT.replace("{table}", table))),
        }
    }

    /// Records that runs begin and others end, in one transaction.
    pub(crate) fn transaction(&mut self, new: &[Execution], open: &[(Execution, Completion)]) {
        self.begin.execute([]).unwrap();
        for execution in new {
            self.insert(execution);
        }
        for (execution, end) in open {
            self.end(execution, end);
        }
        if let Some((execution, _)) = open.first() {
            self.count(&execution.script_name, i64::try_from(open.len()).unwrap());
        }
        self.commit.execute([]).unwrap();
    }

    fn insert(&mut self, run: &Execution) {
        let mut id = Uuid::encode_buffer();
        let id = text(run.id.as_uuid(), &mut id);
        let nothing: Option<String> = None;
        let values = params![
            id,
            run.tenant_id.as_str(),
            run.ticket_id,
            run.script_name,
            run.script_version,
            run.trigger.as_str(),
            run.status.as_str(),
            nothing,
            time(run.started_at),
            run.completed_at.map(time),
            run.run_at.map(time),
            run.priority,
            nothing,
            run.lease_until.map(time),
            run.epoch,
            run.attempt,
            nothing,
            nothing,
            run.actor,
            run.idempotency_key,
            run.dry_run,
            run.queue_us.map(u64::cast_signed),
            run.duration_us.map(u64::cast_signed),
            run.usage.cpu_us.map(u64::cast_signed),
            run.usage.memory_peak_bytes.map(u64::cast_signed),
            run.exit_code,
            run.truncated,
            run.output_bytes.cast_signed(),
            run.still_running,
            run.error,
            json(&run.parameters),
            run.isolation.as_str(),
            run.usage.children,
            run.usage.threads,
            nothing,
            nothing,
            run.parsed_output.as_ref().map(json),
            run.output,
            run.stderr,
            nothing,
            nothing,
            "automated",
        ];
        self.insert.execute(values).unwrap();
    }

    fn end(&mut self, run: &Execution, end: &Completion) {
        let mut id = Uuid::encode_buffer();
        let id = text(run.id.as_uuid(), &mut id);
        let tenant = run.tenant_id.as_str();
        let rowid: i64 = self.find.query_row([id, tenant], |row| row.get(0)).unwrap();
        let nothing: Option<String> = None;
        let parsed = end.parsed_output.as_ref().map(json);
        let values = params![
            rowid,
            end.status.as_str(),
            nothing,
            time(end.completed_at),
            end.queue_us.map(u64::cast_signed),
            end.duration_us.map(u64::cast_signed),
            end.usage.cpu_us.map(u64::cast_signed),
            end.usage.memory_peak_bytes.map(u64::cast_signed),
            end.exit_code,
            end.truncated,
            end.output_bytes.cast_signed(),
            end.still_running,
            end.duration_us.map(|us| us.cast_signed() / 1_000_000),
            true,
            end.error,
            parsed,
            end.output,
            end.stderr,
            end.usage.children,
            end.usage.threads,
            nothing,
        ];
        self.end.execute(values).unwrap();
        let ticket = &run.ticket_id;
        assert!(!self.find_ticket.exists([tenant, ticket]).unwrap());
        let values = params![tenant, ticket, run.script_name, parsed, id];
        self.resolve.execute(values).unwrap();
    }

    fn count(&mut self, script: &str, runs: i64) {
        for (durations, count) in self.durations.iter_mut().zip(&mut self.count) {
            let _there = durations.exists([script]).unwrap();
            let id = Uuid::now_v7().to_string();
            count.execute(params![id, script, runs]).unwrap();
        }
    }
}

fn text<'b>(id: &Uuid, buffer: &'b mut [u8]) -> &'b str {
    id.hyphenated().encode_lower(buffer)
}

fn json(value: &Value) -> String {
    serde_json::to_string(value).unwrap()
}

/// As the writer does it: much faster than chrono's own way.
fn time(at: DateTime<Utc>) -> String {
    let mut text = *b"0000-00-00T00:00:00.000000Z";
    let mut digits = |place: std::ops::Range<usize>, mut number: u32| {
        for digit in text[place].iter_mut().rev() {
            *digit = b'0' + (number % 10) as u8;
            number /= 10;
        }
    };
    digits(0..4, at.year().unsigned_abs());
    digits(5..7, at.month());
    digits(8..10, at.day());
    digits(11..13, at.hour());
    digits(14..16, at.minute());
    digits(17..19, at.second());
    digits(20..26, at.nanosecond() / 1000);
    text.iter().copied().map(char::from).collect()
}

const INSERT: &str = "\
INSERT INTO automation_logs (id, tenant_id, ticket_id, script_name, script_version, trigger, status, reason,
    started_at, completed_at, run_at, priority, claimed_by, lease_until, epoch, attempt, root_id, parent_id, actor,
    idempotency_key, dry_run, queue_us, duration_us, cpu_us, memory_peak_bytes, exit_code, truncated, output_bytes,
    still_running, error, parameters, isolation, children, threads, concern, context, parsed_output, output, stderr,
    execution_time, success, execution_type)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?,
    ?, ?, ?, ?, ?, ?)";

const FIND: &str = "\
SELECT rowid, epoch, status, trigger, dry_run, ticket_id, script_name FROM automation_logs
WHERE id = ?1 AND tenant_id = ?2";

const END: &str = "\
UPDATE automation_logs SET status = ?2, reason = ?3, completed_at = ?4, lease_until = NULL, queue_us = ?5,
    duration_us = ?6, cpu_us = ?7, memory_peak_bytes = ?8, exit_code = ?9, truncated = ?10, output_bytes = ?11,
    still_running = ?12, execution_time = ?13, success = ?14, error = ?15, parsed_output = ?16, output = ?17,
    stderr = ?18, children = ?19, threads = ?20, concern = ?21
WHERE rowid = ?1";

const FIND_TICKET: &str =
    "SELECT 1 FROM resolutions WHERE tenant_id = ?1 AND ticket_id = ?2 LIMIT 1";

const RESOLVE: &str = "\
INSERT INTO resolutions (id, tenant_id, ticket_id, automation_script, automation_output, automation_log_id)
VALUES (?5, ?1, ?2, ?3, ?4, ?5)";

const DURATIONS: &str = "\
SELECT durations FROM {table}
WHERE tenant_id = 'default' AND script_name = ?1 AND execution_date = '2026-01-01'";

const COUNT: &str = "\
INSERT INTO {table} AS old (id, tenant_id, script_name, execution_date, total_executions, durations)
VALUES (?1, 'default', ?2, '2026-01-01', ?3, '143:2 144:2')
ON CONFLICT (tenant_id, script_name, execution_date) DO UPDATE
SET total_executions = old.total_executions + excluded.total_executions, durations = excluded.durations";
