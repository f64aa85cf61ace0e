-- The tables of the automation, for PostgreSQL 15 or later and for Supabase. Paste all of it into the SQL editor, or let
-- the server run it at its start. It can be run again, and it brings tables of the original schema (ticket_id UUID) up to
-- date in place. Everything happens in one transaction: all of it, or nothing.
--
-- The server runs this file in steps; a line "-- version N" begins the step to that version. A step that was released is
-- never changed: a new version is a new step, and each step can be run again. Row Level Security binds the tables' owner
-- too, so a later step that changes rows begins with ALTER TABLE ... NO FORCE ROW LEVEL SECURITY.
BEGIN;

-- version 1

-- Roles. automation_writer is the server's; the others are those of Supabase.
DO $$
DECLARE
    needed text;
    -- From PostgreSQL 16 on, who creates a role is its member, but may not act as it.
    privilege text := CASE WHEN current_setting('server_version_num')::int >= 160000 THEN 'SET' ELSE 'MEMBER' END;
BEGIN
    FOREACH needed IN ARRAY ARRAY['automation_writer', 'anon', 'authenticated', 'service_role'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = needed) THEN
            BEGIN
                EXECUTE format('CREATE ROLE %I NOLOGIN NOINHERIT', needed);
            EXCEPTION WHEN duplicate_object OR unique_violation THEN
                NULL; -- Created meanwhile, from another database of the same server.
            END;
        END IF;
    END LOOP;
    -- The server reads for a tenant as "authenticated".
    FOREACH needed IN ARRAY ARRAY['automation_writer', 'authenticated'] LOOP
        IF NOT pg_has_role(current_user, needed, privilege) THEN
            EXECUTE format('GRANT %I TO %I', needed, current_user);
        END IF;
    END LOOP;
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO automation_writer, anon, authenticated, service_role', current_schema());
END
$$;

-- The tenant of the caller: from what the login service signed, never from user_metadata, which users edit themselves.
-- Nobody's where there are no claims.
CREATE OR REPLACE FUNCTION automation_tenant() RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE SET search_path = ''
AS $$
    SELECT nullif(coalesce(claims -> 'app_metadata' ->> 'tenant_id', claims ->> 'tenant_id'), '')
    FROM (SELECT nullif(current_setting('request.jwt.claims', true), '')::jsonb AS claims) AS setting
$$;

CREATE TABLE IF NOT EXISTS automation_schema (
    version INTEGER PRIMARY KEY,
    applied_at TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT NOW()
);

-- The log of all runs. Real clients send ticket ids that are no UUIDs, so they are text.
CREATE TABLE IF NOT EXISTS automation_logs (
    id UUID PRIMARY KEY,
    ticket_id TEXT NOT NULL,
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

-- Original tables: views and policies that know ticket_id as a UUID keep its type fixed, so they are made again.
DO $$
DECLARE
    logs CONSTANT regclass := 'automation_logs';
    ticket CONSTANT smallint := (SELECT attnum FROM pg_attribute WHERE attrelid = logs AND attname = 'ticket_id');
    drops text[];
    creates text[];
    statement text;
BEGIN
    IF (SELECT atttypid FROM pg_attribute WHERE attrelid = logs AND attnum = ticket) = 'text'::regtype THEN
        RETURN;
    END IF;
    WITH RECURSIVE uses AS (
        SELECT depend.refobjid AS used, rewrite.ev_class AS view
        FROM pg_depend AS depend JOIN pg_rewrite AS rewrite ON rewrite.oid = depend.objid
        WHERE depend.classid = 'pg_rewrite'::regclass AND depend.refclassid = 'pg_class'::regclass
            AND rewrite.ev_class <> depend.refobjid
    ), found AS (
        SELECT view, 1 AS depth FROM uses WHERE used = logs
        UNION
        SELECT uses.view, found.depth + 1 FROM found JOIN uses ON uses.used = found.view
    ), views AS (
        SELECT view AS oid, max(depth) AS depth FROM found GROUP BY view
    ), texts AS (
        SELECT views.depth,
            format('DROP VIEW %s', class.oid::regclass) AS dropped,
            format('CREATE VIEW %s WITH (%s) AS %s', class.oid::regclass,
                array_to_string(array_append(array(
                    SELECT option FROM unnest(class.reloptions) AS option WHERE option NOT LIKE 'security_invoker=%'
                ), 'security_invoker=true'), ', '), pg_get_viewdef(class.oid)) AS created,
            array_cat(
                ARRAY[format('ALTER VIEW %s OWNER TO %I', class.oid::regclass, pg_get_userbyid(class.relowner))],
                array_cat(
                    array(
                        SELECT format('GRANT %s ON %s TO %s', granted.privilege_type, class.oid::regclass,
                            CASE WHEN granted.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(granted.grantee)) END)
                        FROM aclexplode(class.relacl) AS granted WHERE granted.grantee <> class.relowner
                    ),
                    array(
                        SELECT format('COMMENT ON VIEW %s IS %L', class.oid::regclass, comment)
                        FROM obj_description(class.oid, 'pg_class') AS comment WHERE comment IS NOT NULL
                    )
                )
            ) AS dressed,
            class.oid
        FROM views JOIN pg_class AS class ON class.oid = views.oid
    ), policies AS (
        SELECT format('DROP POLICY %I ON %s', polname, polrelid::regclass) AS dropped,
            format('CREATE POLICY %I ON %s AS %s FOR %s TO %s', polname, polrelid::regclass,
                CASE WHEN polpermissive THEN 'PERMISSIVE' ELSE 'RESTRICTIVE' END,
                CASE polcmd WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT' WHEN 'w' THEN 'UPDATE'
                    WHEN 'd' THEN 'DELETE' ELSE 'ALL' END,
                (SELECT string_agg(CASE WHEN role = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(role)) END, ', ')
                    FROM unnest(polroles) AS role))
            || coalesce(' USING (' || pg_get_expr(polqual, polrelid) || ')', '')
            || coalesce(' WITH CHECK (' || pg_get_expr(polwithcheck, polrelid) || ')', '') AS created
        FROM pg_policy
        WHERE oid IN (
            SELECT objid FROM pg_depend
            WHERE classid = 'pg_policy'::regclass AND refobjid = logs AND refobjsubid = ticket
        )
    )
    SELECT array_cat(
            array(SELECT dropped FROM policies),
            array(SELECT dropped FROM texts ORDER BY depth DESC, oid)),
        array_cat(
            array(SELECT line FROM texts, unnest(array_prepend(created, dressed)) WITH ORDINALITY AS lines (line, n)
                ORDER BY depth, oid, n),
            array(SELECT created FROM policies))
    INTO drops, creates;
    FOREACH statement IN ARRAY drops LOOP
        EXECUTE statement;
    END LOOP;
    ALTER TABLE automation_logs ALTER COLUMN ticket_id TYPE TEXT USING ticket_id::text;
    FOREACH statement IN ARRAY creates LOOP
        BEGIN
            EXECUTE statement;
        EXCEPTION WHEN undefined_function OR datatype_mismatch OR cannot_coerce THEN
            RAISE EXCEPTION 'ticket_id becomes text, which this does not work with: %', statement
                USING HINT = 'Write ticket_id::uuid in it, or drop it and create it again afterwards.';
        END;
    END LOOP;
END
$$;

ALTER TABLE automation_logs
    ADD COLUMN IF NOT EXISTS tenant_id TEXT NOT NULL DEFAULT 'default',
    ADD COLUMN IF NOT EXISTS script_version TEXT NOT NULL DEFAULT '',
    ADD COLUMN IF NOT EXISTS trigger TEXT,
    ADD COLUMN IF NOT EXISTS reason TEXT,
    ADD COLUMN IF NOT EXISTS isolation TEXT NOT NULL DEFAULT 'in-process',
    ADD COLUMN IF NOT EXISTS run_at TIMESTAMP WITH TIME ZONE,
    ADD COLUMN IF NOT EXISTS priority INTEGER NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS claimed_by TEXT,
    ADD COLUMN IF NOT EXISTS lease_until TIMESTAMP WITH TIME ZONE,
    ADD COLUMN IF NOT EXISTS epoch BIGINT NOT NULL DEFAULT 1,
    ADD COLUMN IF NOT EXISTS attempt INTEGER NOT NULL DEFAULT 1,
    ADD COLUMN IF NOT EXISTS root_id UUID,
    ADD COLUMN IF NOT EXISTS parent_id UUID,
    ADD COLUMN IF NOT EXISTS actor TEXT,
    ADD COLUMN IF NOT EXISTS idempotency_key TEXT,
    ADD COLUMN IF NOT EXISTS dry_run BOOLEAN NOT NULL DEFAULT FALSE,
    ADD COLUMN IF NOT EXISTS queue_us BIGINT,
    ADD COLUMN IF NOT EXISTS duration_us BIGINT,
    ADD COLUMN IF NOT EXISTS cpu_us BIGINT,
    ADD COLUMN IF NOT EXISTS memory_peak_bytes BIGINT,
    ADD COLUMN IF NOT EXISTS children BIGINT,
    ADD COLUMN IF NOT EXISTS threads BIGINT,
    ADD COLUMN IF NOT EXISTS exit_code INTEGER,
    ADD COLUMN IF NOT EXISTS truncated BOOLEAN NOT NULL DEFAULT FALSE,
    ADD COLUMN IF NOT EXISTS output_bytes BIGINT NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS still_running BOOLEAN NOT NULL DEFAULT FALSE,
    ADD COLUMN IF NOT EXISTS concern TEXT,
    ADD COLUMN IF NOT EXISTS decision TEXT,
    ADD COLUMN IF NOT EXISTS context JSONB,
    ADD COLUMN IF NOT EXISTS parsed_output JSONB,
    ADD COLUMN IF NOT EXISTS stderr TEXT NOT NULL DEFAULT '';

-- Rows of the original program. What it left open nobody looks after, so its lease is over and recovery ends it.
UPDATE automation_logs SET
    script_name = coalesce(script_name, ''),
    status = coalesce(status, 'failed'),
    started_at = coalesce(started_at, completed_at, NOW()),
    output = coalesce(output, ''),
    execution_type = coalesce(execution_type, 'automated'),
    parameters = coalesce(parameters, '{}'),
    trigger = CASE WHEN coalesce(execution_type, 'automated') = 'automated' THEN 'ticket' ELSE 'manual' END,
    duration_us = execution_time::bigint * 1000000,
    output_bytes = octet_length(coalesce(output, '')),
    lease_until = CASE WHEN status IN ('starting', 'running') THEN 'epoch'::timestamptz END
WHERE trigger IS NULL;

ALTER TABLE automation_logs
    ALTER COLUMN script_name SET NOT NULL,
    ALTER COLUMN status SET NOT NULL,
    ALTER COLUMN started_at SET NOT NULL,
    ALTER COLUMN output SET DEFAULT '',
    ALTER COLUMN output SET NOT NULL,
    ALTER COLUMN execution_type SET NOT NULL,
    ALTER COLUMN parameters SET DEFAULT '{}',
    ALTER COLUMN parameters SET NOT NULL,
    ALTER COLUMN trigger SET DEFAULT 'ticket',
    ALTER COLUMN trigger SET NOT NULL;

-- Long output is compressed by the server itself; LZ4, where it has it, costs a fraction of the time.
DO $$
BEGIN
    IF (SELECT 'lz4' = ANY (enumvals) FROM pg_settings WHERE name = 'default_toast_compression') THEN
        ALTER TABLE automation_logs ALTER COLUMN output SET COMPRESSION lz4, ALTER COLUMN stderr SET COMPRESSION lz4;
    END IF;
END
$$;

-- Each index on this table costs every run; the partial ones cost only while their condition holds.
CREATE INDEX IF NOT EXISTS automation_logs_newest ON automation_logs (tenant_id, started_at, id);
CREATE INDEX IF NOT EXISTS automation_logs_ticket ON automation_logs (tenant_id, ticket_id, started_at, id);
CREATE INDEX IF NOT EXISTS automation_logs_script ON automation_logs (tenant_id, script_name, started_at, id);
CREATE INDEX IF NOT EXISTS automation_logs_actor ON automation_logs (tenant_id, actor, started_at, id)
    WHERE actor IS NOT NULL;
CREATE INDEX IF NOT EXISTS automation_logs_unsuccessful ON automation_logs (tenant_id, started_at, id)
    WHERE status IN ('failed', 'cancelled');
CREATE INDEX IF NOT EXISTS automation_logs_unsuccessful_script ON automation_logs (tenant_id, script_name, started_at, id)
    WHERE status IN ('failed', 'cancelled');
CREATE INDEX IF NOT EXISTS automation_logs_open ON automation_logs (started_at, id)
    WHERE status IN ('starting', 'running');
CREATE INDEX IF NOT EXISTS automation_logs_due ON automation_logs (tenant_id, priority DESC, run_at, id)
    WHERE status = 'starting' AND run_at IS NOT NULL;
CREATE UNIQUE INDEX IF NOT EXISTS automation_logs_idempotency ON automation_logs (tenant_id, idempotency_key)
    WHERE idempotency_key IS NOT NULL;

-- Sums a script and day.
CREATE TABLE IF NOT EXISTS automation_stats (
    id UUID PRIMARY KEY,
    script_name TEXT NOT NULL,
    execution_date DATE DEFAULT CURRENT_DATE,
    total_executions INTEGER DEFAULT 0,
    successful_executions INTEGER DEFAULT 0,
    failed_executions INTEGER DEFAULT 0,
    avg_execution_time DECIMAL(10,2) DEFAULT 0 -- in seconds
);

ALTER TABLE automation_stats
    ADD COLUMN IF NOT EXISTS tenant_id TEXT NOT NULL DEFAULT 'default',
    ADD COLUMN IF NOT EXISTS cancelled_executions INTEGER NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS queue_us BIGINT NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS duration_us BIGINT,
    ADD COLUMN IF NOT EXISTS cpu_us BIGINT NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS memory_peak_bytes BIGINT NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS children BIGINT NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS threads BIGINT NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS output_bytes BIGINT NOT NULL DEFAULT 0;

-- Rows of the original program, which may have several a script and day: they are merged.
UPDATE automation_stats SET
    execution_date = coalesce(execution_date, DATE '1970-01-01'),
    total_executions = coalesce(total_executions, 0),
    successful_executions = coalesce(successful_executions, 0),
    failed_executions = coalesce(failed_executions, 0),
    avg_execution_time = coalesce(avg_execution_time, 0),
    duration_us = round(coalesce(avg_execution_time, 0) * coalesce(total_executions, 0) * 1000000)
WHERE duration_us IS NULL;

WITH sums AS (
    SELECT (array_agg(id ORDER BY id))[1] AS id, tenant_id, script_name, execution_date,
        sum(total_executions) AS total, sum(successful_executions) AS successful,
        sum(failed_executions) AS failed, sum(duration_us) AS duration_us
    FROM automation_stats
    GROUP BY tenant_id, script_name, execution_date
    HAVING count(*) > 1
), merged AS (
    UPDATE automation_stats AS kept SET
        total_executions = sums.total,
        successful_executions = sums.successful,
        failed_executions = sums.failed,
        duration_us = sums.duration_us,
        avg_execution_time = round(sums.duration_us / 1000000.0 / greatest(sums.total, 1), 2)
    FROM sums WHERE kept.id = sums.id
)
DELETE FROM automation_stats AS other USING sums
WHERE (other.tenant_id, other.script_name, other.execution_date) = (sums.tenant_id, sums.script_name, sums.execution_date)
    AND other.id <> sums.id;

ALTER TABLE automation_stats
    ALTER COLUMN execution_date SET NOT NULL,
    ALTER COLUMN total_executions SET NOT NULL,
    ALTER COLUMN successful_executions SET NOT NULL,
    ALTER COLUMN failed_executions SET NOT NULL,
    ALTER COLUMN avg_execution_time SET NOT NULL,
    ALTER COLUMN duration_us SET DEFAULT 0,
    ALTER COLUMN duration_us SET NOT NULL,
    -- A row is changed by every commit of its day; with room in its page, no index is.
    SET (fillfactor = 50);

CREATE UNIQUE INDEX IF NOT EXISTS automation_stats_day ON automation_stats (tenant_id, script_name, execution_date);

-- How many runs of a day took how long; buckets grow by an eighth of a power of two.
CREATE TABLE IF NOT EXISTS automation_durations (
    tenant_id TEXT NOT NULL DEFAULT 'default',
    script_name TEXT NOT NULL,
    execution_date DATE NOT NULL,
    bucket INTEGER NOT NULL,
    executions BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, script_name, execution_date, bucket)
) WITH (fillfactor = 50);

-- Of the original program's runs only the average of a day is known, so that is where they are counted.
INSERT INTO automation_durations (tenant_id, script_name, execution_date, bucket, executions)
SELECT tenant_id, script_name, execution_date,
    CASE WHEN mean_us < 8 THEN mean_us ELSE ((exponent - 2) << 3) + ((mean_us >> (exponent - 3)) & 7) END,
    total_executions
FROM automation_stats,
    LATERAL (SELECT duration_us / total_executions AS mean_us) AS mean,
    LATERAL (SELECT length(ltrim(mean_us::bit(64)::text, '0')) - 1 AS exponent) AS exponent
WHERE total_executions > 0 AND NOT EXISTS (
    SELECT FROM automation_durations AS counted
    WHERE (counted.tenant_id, counted.script_name, counted.execution_date)
        = (automation_stats.tenant_id, automation_stats.script_name, automation_stats.execution_date)
);

CREATE TABLE IF NOT EXISTS automation_events (
    tenant_id TEXT NOT NULL DEFAULT 'default',
    execution_id UUID NOT NULL REFERENCES automation_logs (id) ON DELETE CASCADE,
    seq BIGINT NOT NULL,
    at TIMESTAMP WITH TIME ZONE NOT NULL,
    kind TEXT NOT NULL,
    data JSONB NOT NULL,
    PRIMARY KEY (execution_id, seq)
);

CREATE TABLE IF NOT EXISTS automation_records (
    tenant_id TEXT NOT NULL DEFAULT 'default',
    kind TEXT NOT NULL,
    key TEXT COLLATE "C" NOT NULL,
    value JSONB NOT NULL,
    revision BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, kind, key)
);

-- The last commit of each server: tells after a lost connection whether it was applied.
CREATE TABLE IF NOT EXISTS automation_writers (
    id UUID PRIMARY KEY,
    round BIGINT NOT NULL,
    seen_at TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT NOW()
) WITH (fillfactor = 50);

-- A row of nobody would belong to whoever has no claims.
DO $$
DECLARE
    owned text;
BEGIN
    FOREACH owned IN ARRAY ARRAY['automation_logs', 'automation_stats', 'automation_durations', 'automation_events',
            'automation_records'] LOOP
        IF NOT EXISTS (SELECT FROM pg_constraint WHERE conrelid = owned::regclass AND conname = owned || '_tenant_check') THEN
            EXECUTE format('ALTER TABLE %I ADD CONSTRAINT %I CHECK (tenant_id <> '''')', owned, owned || '_tenant_check');
        END IF;
    END LOOP;
END
$$;

-- How tickets were resolved. A table of that name is the customer's: it gets our columns, and nothing else is changed.
DO $$
DECLARE
    is_ours boolean := to_regclass('resolutions') IS NULL;
BEGIN
    IF is_ours THEN
        CREATE TABLE resolutions (id UUID PRIMARY KEY, ticket_id TEXT NOT NULL);
    ELSIF NOT EXISTS (SELECT FROM pg_class WHERE oid = 'resolutions'::regclass AND relkind IN ('r', 'p')) THEN
        RAISE WARNING 'resolutions is no table: how tickets were resolved is not recorded';
        RETURN;
    END IF;
    ALTER TABLE resolutions
        ADD COLUMN IF NOT EXISTS tenant_id TEXT NOT NULL DEFAULT 'default',
        ADD COLUMN IF NOT EXISTS automation_script TEXT,
        ADD COLUMN IF NOT EXISTS automation_output JSONB,
        ADD COLUMN IF NOT EXISTS automation_log_id UUID;
    CREATE INDEX IF NOT EXISTS resolutions_automation_ticket ON resolutions (tenant_id, (ticket_id::text));
    GRANT SELECT, INSERT, UPDATE ON resolutions TO automation_writer;
    IF is_ours THEN
        ALTER TABLE resolutions ADD CONSTRAINT resolutions_tenant_check CHECK (tenant_id <> '');
        ALTER TABLE resolutions ENABLE ROW LEVEL SECURITY;
        ALTER TABLE resolutions FORCE ROW LEVEL SECURITY;
        REVOKE ALL ON resolutions FROM PUBLIC, anon, authenticated;
        GRANT SELECT ON resolutions TO authenticated, service_role;
        CREATE POLICY automation_reads ON resolutions FOR SELECT TO authenticated
            USING (tenant_id = (SELECT automation_tenant()));
        CREATE POLICY automation_bounds ON resolutions AS RESTRICTIVE TO anon, authenticated
            USING (tenant_id = (SELECT automation_tenant())) WITH CHECK (tenant_id = (SELECT automation_tenant()));
        CREATE POLICY automation_service ON resolutions FOR SELECT TO service_role USING (true);
    END IF;
    DROP POLICY IF EXISTS automation_writer ON resolutions;
    CREATE POLICY automation_writer ON resolutions TO automation_writer USING (true) WITH CHECK (true);
EXCEPTION WHEN insufficient_privilege OR undefined_column OR wrong_object_type OR invalid_table_definition THEN
    RAISE WARNING 'resolutions can''t be used, how tickets were resolved is not recorded: %', SQLERRM;
END
$$;

INSERT INTO automation_schema (version)
SELECT 1 WHERE NOT EXISTS (SELECT FROM automation_schema WHERE version = 1);

-- Row Level Security. Tenants read their own rows and write none; only the server writes. The restrictive policies hold
-- whatever other policies and grants there are or will be: no row of another tenant is seen, made, changed or moved.
DO $$
DECLARE
    secured text;
    is_own CONSTANT text := 'tenant_id = (SELECT automation_tenant())';
BEGIN
    FOREACH secured IN ARRAY ARRAY['automation_schema', 'automation_writers', 'automation_records', 'automation_logs',
            'automation_stats', 'automation_durations', 'automation_events'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', secured);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', secured);
        -- Supabase grants everything on new tables, TRUNCATE among it, which no policy holds back.
        EXECUTE format('REVOKE ALL ON %I FROM PUBLIC, anon, authenticated', secured);
        EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %I TO automation_writer', secured);
        EXECUTE format('GRANT SELECT ON %I TO service_role', secured);
        EXECUTE format('DROP POLICY IF EXISTS automation_writer ON %I', secured);
        EXECUTE format('CREATE POLICY automation_writer ON %I TO automation_writer USING (true) WITH CHECK (true)', secured);
        EXECUTE format('DROP POLICY IF EXISTS automation_service ON %I', secured);
        EXECUTE format('CREATE POLICY automation_service ON %I FOR SELECT TO service_role USING (true)', secured);
        CONTINUE WHEN secured IN ('automation_schema', 'automation_writers');
        EXECUTE format('DROP POLICY IF EXISTS automation_bounds ON %I', secured);
        EXECUTE format('CREATE POLICY automation_bounds ON %I AS RESTRICTIVE TO anon, authenticated USING (%s) WITH CHECK (%s)',
            secured, is_own, is_own);
        -- Records are the server's own affairs.
        CONTINUE WHEN secured = 'automation_records';
        EXECUTE format('GRANT SELECT ON %I TO authenticated', secured);
        EXECUTE format('DROP POLICY IF EXISTS automation_reads ON %I', secured);
        EXECUTE format('CREATE POLICY automation_reads ON %I FOR SELECT TO authenticated USING (%s)', secured, is_own);
    END LOOP;
    -- Who owns the tables notes the version when this is run again.
    DROP POLICY IF EXISTS automation_owner ON automation_schema;
    CREATE POLICY automation_owner ON automation_schema TO CURRENT_USER USING (true) WITH CHECK (true);
END
$$;

-- A view reads as its owner unless told otherwise, and would show every tenant's rows; so would a view on a view.
DO $$
DECLARE
    exposed regclass;
BEGIN
    FOR exposed IN
        WITH RECURSIVE uses AS (
            SELECT depend.refobjid AS used, rewrite.ev_class AS view
            FROM pg_depend AS depend JOIN pg_rewrite AS rewrite ON rewrite.oid = depend.objid
            WHERE depend.classid = 'pg_rewrite'::regclass AND depend.refclassid = 'pg_class'::regclass
                AND rewrite.ev_class <> depend.refobjid
        ), found AS (
            SELECT view FROM uses WHERE used IN ('automation_logs'::regclass, 'automation_stats'::regclass,
                'automation_durations'::regclass, 'automation_events'::regclass, 'automation_records'::regclass)
            UNION
            SELECT uses.view FROM found JOIN uses ON uses.used = found.view
        )
        SELECT oid::regclass FROM pg_class
        WHERE oid IN (SELECT found.view FROM found) AND relkind = 'v'
            AND NOT coalesce('security_invoker=true' = ANY (reloptions), FALSE)
    LOOP
        EXECUTE format('ALTER VIEW %s SET (security_invoker = true)', exposed);
    END LOOP;
END
$$;

-- end
COMMIT;
