-- Tables of the owner's document keep their names and columns; the others are additions.
-- Times are RFC 3339 text in UTC with microseconds, so that people can read them and texts sort as times do.

CREATE TABLE automation_logs (
    id TEXT NOT NULL PRIMARY KEY,
    tenant_id TEXT NOT NULL DEFAULT 'default',
    ticket_id TEXT NOT NULL,
    script_name TEXT NOT NULL,
    script_version TEXT NOT NULL DEFAULT '',
    trigger TEXT NOT NULL DEFAULT 'ticket',
    -- The same as IN (...), for which SQLite would fill a temporary table at each write.
    status TEXT NOT NULL CHECK (status = 'starting' OR status = 'running' OR status = 'completed'
        OR status = 'failed' OR status = 'cancelled'),
    reason TEXT,
    started_at TEXT NOT NULL,
    completed_at TEXT,
    run_at TEXT,
    priority INTEGER NOT NULL DEFAULT 0,
    claimed_by TEXT,
    lease_until TEXT,
    epoch INTEGER NOT NULL DEFAULT 1,
    attempt INTEGER NOT NULL DEFAULT 1,
    root_id TEXT,
    parent_id TEXT,
    actor TEXT,
    idempotency_key TEXT,
    dry_run BOOLEAN NOT NULL DEFAULT FALSE,
    queue_us INTEGER,
    duration_us INTEGER,
    cpu_us INTEGER,
    memory_peak_bytes INTEGER,
    exit_code INTEGER,
    truncated BOOLEAN NOT NULL DEFAULT FALSE,
    output_bytes INTEGER NOT NULL DEFAULT 0,
    still_running BOOLEAN NOT NULL DEFAULT FALSE,
    execution_time INTEGER, -- in seconds
    success BOOLEAN,
    execution_type TEXT NOT NULL DEFAULT 'automated',
    -- Long texts come last: a read of a column in front of them does not touch their pages.
    error TEXT,
    decision TEXT,
    parameters JSONB NOT NULL DEFAULT '{}',
    context JSONB,
    parsed_output JSONB,
    -- Those of 4 KiB and more are blobs: their length in 4 bytes, lowest first, and then an LZ4 block.
    output TEXT NOT NULL DEFAULT '',
    stderr TEXT NOT NULL DEFAULT ''
);

-- Each index on this table costs every run; the partial ones cost only while their condition holds.
CREATE INDEX automation_logs_newest ON automation_logs (tenant_id, started_at);
CREATE INDEX automation_logs_ticket ON automation_logs (tenant_id, ticket_id, started_at);
CREATE INDEX automation_logs_script ON automation_logs (tenant_id, script_name, started_at);
CREATE INDEX automation_logs_actor ON automation_logs (tenant_id, actor, started_at)
    WHERE actor IS NOT NULL;
CREATE INDEX automation_logs_unsuccessful ON automation_logs (tenant_id, started_at)
    WHERE status IN ('failed', 'cancelled');
-- Without it, the first page of a script that seldom fails would be a walk through the failures of all others.
CREATE INDEX automation_logs_unsuccessful_script ON automation_logs (tenant_id, script_name, started_at)
    WHERE status IN ('failed', 'cancelled');
CREATE INDEX automation_logs_open ON automation_logs (tenant_id)
    WHERE status IN ('starting', 'running');
CREATE INDEX automation_logs_due ON automation_logs (tenant_id, priority DESC, run_at, id)
    WHERE status = 'starting' AND run_at IS NOT NULL;
CREATE UNIQUE INDEX automation_logs_idempotency ON automation_logs (tenant_id, idempotency_key)
    WHERE idempotency_key IS NOT NULL;

CREATE TABLE automation_stats (
    id TEXT NOT NULL PRIMARY KEY,
    tenant_id TEXT NOT NULL DEFAULT 'default',
    script_name TEXT NOT NULL,
    execution_date DATE NOT NULL DEFAULT CURRENT_DATE,
    total_executions INTEGER NOT NULL DEFAULT 0,
    successful_executions INTEGER NOT NULL DEFAULT 0,
    failed_executions INTEGER NOT NULL DEFAULT 0,
    cancelled_executions INTEGER NOT NULL DEFAULT 0,
    avg_execution_time DECIMAL(10, 2) NOT NULL DEFAULT 0, -- in seconds
    duration_us INTEGER NOT NULL DEFAULT 0,
    cpu_us INTEGER NOT NULL DEFAULT 0,
    memory_peak_bytes INTEGER NOT NULL DEFAULT 0,
    -- How many runs took how long, as bucket:runs; buckets grow by an eighth of a power of two.
    durations TEXT NOT NULL DEFAULT '',
    UNIQUE (tenant_id, script_name, execution_date)
);

-- The sums of whole months, under the months' first days: years are read as few rows.
CREATE TABLE automation_months (
    id TEXT NOT NULL PRIMARY KEY,
    tenant_id TEXT NOT NULL DEFAULT 'default',
    script_name TEXT NOT NULL,
    execution_date DATE NOT NULL,
    total_executions INTEGER NOT NULL DEFAULT 0,
    successful_executions INTEGER NOT NULL DEFAULT 0,
    failed_executions INTEGER NOT NULL DEFAULT 0,
    cancelled_executions INTEGER NOT NULL DEFAULT 0,
    avg_execution_time DECIMAL(10, 2) NOT NULL DEFAULT 0,
    duration_us INTEGER NOT NULL DEFAULT 0,
    cpu_us INTEGER NOT NULL DEFAULT 0,
    memory_peak_bytes INTEGER NOT NULL DEFAULT 0,
    durations TEXT NOT NULL DEFAULT '',
    UNIQUE (tenant_id, script_name, execution_date)
);

CREATE TABLE automation_events (
    tenant_id TEXT NOT NULL DEFAULT 'default',
    execution_id TEXT NOT NULL REFERENCES automation_logs (id) ON DELETE CASCADE,
    seq INTEGER NOT NULL,
    at TEXT NOT NULL,
    kind TEXT NOT NULL,
    data JSONB NOT NULL,
    PRIMARY KEY (execution_id, seq)
) WITHOUT ROWID;

CREATE TABLE automation_records (
    tenant_id TEXT NOT NULL DEFAULT 'default',
    kind TEXT NOT NULL,
    key TEXT NOT NULL,
    value JSONB NOT NULL,
    revision INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, kind, key)
);
