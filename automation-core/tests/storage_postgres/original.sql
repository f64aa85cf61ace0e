-- The schema of the original Node service, with rows, views and policies as people have them.
CREATE TABLE automation_logs (
    id UUID PRIMARY KEY,
    ticket_id UUID NOT NULL,
    script_name TEXT,
    status TEXT CHECK (status IN ('starting', 'running', 'completed', 'failed', 'cancelled')),
    started_at TIMESTAMP WITH TIME ZONE DEFAULT NOW(),
    completed_at TIMESTAMP WITH TIME ZONE,
    execution_time INTEGER, -- in seconds
    output TEXT,
    error TEXT,
    success BOOLEAN,
    execution_type TEXT DEFAULT 'automated',
    parameters JSONB
);

CREATE TABLE resolutions (id UUID PRIMARY KEY, ticket_id UUID NOT NULL, resolution_text TEXT);
ALTER TABLE resolutions ADD COLUMN automation_script TEXT;
ALTER TABLE resolutions ADD COLUMN automation_output JSONB;
ALTER TABLE resolutions ADD COLUMN automation_log_id UUID;

CREATE TABLE automation_stats (
    id UUID PRIMARY KEY,
    script_name TEXT NOT NULL,
    execution_date DATE DEFAULT CURRENT_DATE,
    total_executions INTEGER DEFAULT 0,
    successful_executions INTEGER DEFAULT 0,
    failed_executions INTEGER DEFAULT 0,
    avg_execution_time DECIMAL(10,2) DEFAULT 0
);

CREATE VIEW tickets_automated AS SELECT ticket_id, count(*) AS runs FROM automation_logs GROUP BY ticket_id;
CREATE VIEW tickets_hard WITH (security_barrier = true) AS SELECT ticket_id FROM tickets_automated WHERE runs > 1;
COMMENT ON VIEW tickets_hard IS 'seen more than once';
GRANT SELECT ON tickets_hard TO PUBLIC;
ALTER TABLE automation_logs ENABLE ROW LEVEL SECURITY;
CREATE POLICY everybody_reads ON automation_logs FOR SELECT USING (ticket_id IS NOT NULL);
CREATE POLICY known_scripts ON automation_stats
    USING (script_name IN (SELECT script_name FROM automation_logs WHERE ticket_id IS NOT NULL));

INSERT INTO automation_logs (id, ticket_id, script_name, status, started_at, completed_at, execution_time, output, success, parameters)
SELECT ('00000000-0000-4000-8000-' || lpad(to_hex(n), 12, '0'))::uuid,
    ('00000000-0000-4000-9000-' || lpad(to_hex(n / 2), 12, '0'))::uuid, 'disk_cleanup.py',
    (ARRAY['completed', 'failed', 'cancelled', 'completed', 'running'])[n % 5 + 1],
    '2025-01-01T00:00:00Z'::timestamptz + n * interval '1 minute',
    CASE WHEN n % 5 < 4 THEN '2025-01-01T00:00:03Z'::timestamptz + n * interval '1 minute' END,
    CASE WHEN n % 5 < 4 THEN 3 END, 'output ' || n, CASE WHEN n % 5 < 4 THEN n % 5 IN (0, 3) END, '{"n": 1}'
FROM generate_series(1, 998) AS n;
INSERT INTO automation_logs (id, ticket_id) VALUES
    ('00000000-0000-4000-8000-00000000fff1', '00000000-0000-4000-9000-00000000fff1'),
    ('00000000-0000-4000-8000-00000000fff2', '00000000-0000-4000-9000-00000000fff2');

INSERT INTO automation_stats VALUES
    ('00000000-0000-4000-a000-000000000001', 'disk_cleanup.py', '2025-01-01', 10, 8, 2, 1.50),
    ('00000000-0000-4000-a000-000000000002', 'disk_cleanup.py', '2025-01-01', 30, 30, 0, 3.50),
    ('00000000-0000-4000-a000-000000000003', 'disk_cleanup.py', '2025-01-01', NULL, NULL, NULL, NULL),
    ('00000000-0000-4000-a000-000000000004', 'disk_cleanup.py', '2025-01-02', 4, 3, 1, 0),
    ('00000000-0000-4000-a000-000000000005', 'vpn_restart.py', '2025-01-01', 1, 0, 1, 0.01);
