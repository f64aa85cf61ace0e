-- Where a run ran, what else it used, and why its version is kept out of the process since.
-- New columns can only stand behind the long texts; a read without output that needs them is rare (ten recent runs).

ALTER TABLE automation_logs ADD COLUMN children INTEGER;
ALTER TABLE automation_logs ADD COLUMN threads INTEGER;
-- Every run of the first version ran in the process.
ALTER TABLE automation_logs ADD COLUMN isolation TEXT NOT NULL DEFAULT 'in-process';
ALTER TABLE automation_logs ADD COLUMN concern TEXT;

ALTER TABLE automation_stats ADD COLUMN queue_us INTEGER NOT NULL DEFAULT 0;
ALTER TABLE automation_months ADD COLUMN queue_us INTEGER NOT NULL DEFAULT 0;
ALTER TABLE automation_stats ADD COLUMN output_bytes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE automation_months ADD COLUMN output_bytes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE automation_stats ADD COLUMN children INTEGER NOT NULL DEFAULT 0;
ALTER TABLE automation_months ADD COLUMN children INTEGER NOT NULL DEFAULT 0;
ALTER TABLE automation_stats ADD COLUMN threads INTEGER NOT NULL DEFAULT 0;
ALTER TABLE automation_months ADD COLUMN threads INTEGER NOT NULL DEFAULT 0;

-- The statistics are a recount of the log, those of the days before among them.
UPDATE automation_stats SET queue_us = recount.queue_us, output_bytes = recount.output_bytes
FROM (
    SELECT tenant_id, script_name, date(completed_at) AS day,
        sum(coalesce(queue_us, 0)) AS queue_us, sum(output_bytes) AS output_bytes
    FROM automation_logs
    WHERE (status = 'completed' OR status = 'failed')
        AND trigger IN ('ticket', 'manual', 'schedule', 'retry')
    GROUP BY 1, 2, 3
) AS recount
WHERE automation_stats.tenant_id = recount.tenant_id
    AND automation_stats.script_name = recount.script_name
    AND automation_stats.execution_date = recount.day;
UPDATE automation_months SET queue_us = recount.queue_us, output_bytes = recount.output_bytes
FROM (
    SELECT tenant_id, script_name, date(completed_at, 'start of month') AS day,
        sum(coalesce(queue_us, 0)) AS queue_us, sum(output_bytes) AS output_bytes
    FROM automation_logs
    WHERE (status = 'completed' OR status = 'failed')
        AND trigger IN ('ticket', 'manual', 'schedule', 'retry')
    GROUP BY 1, 2, 3
) AS recount
WHERE automation_months.tenant_id = recount.tenant_id
    AND automation_months.script_name = recount.script_name
    AND automation_months.execution_date = recount.day;
