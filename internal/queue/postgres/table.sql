-- A queue of tasks, version 1. PostgreSQL 13 or newer.
-- Producers need: GRANT INSERT (body, headers, priority, due_at) ON {{table}} TO …
CREATE TABLE {{table}} (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    body        bytea NOT NULL CHECK (octet_length(body) <= 16777216),
    headers     jsonb NOT NULL DEFAULT '{}',
    priority    smallint NOT NULL DEFAULT 0,           -- higher is first
    enqueued_at timestamptz NOT NULL DEFAULT now(),
    due_at      timestamptz,                           -- not before; null: at once. Of a lease: its end
    attempts    integer NOT NULL DEFAULT 0,            -- deliveries
    lease_token uuid,                                  -- changes with each delivery
    leased_by   text,                                  -- who had it last
    dead_at     timestamptz,                           -- set aside, to be looked at
    dead_reason text,
    state       text GENERATED ALWAYS AS (CASE
        WHEN dead_at IS NOT NULL THEN 'dead'
        WHEN lease_token IS NOT NULL THEN 'leased'
        WHEN due_at IS NOT NULL THEN 'delayed'
        ELSE 'ready' END) STORED
) WITH (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000);
CREATE INDEX {{ready}} ON {{table}} (priority DESC, id) WHERE state = 'ready';
CREATE INDEX {{due}} ON {{table}} (due_at) WHERE state IN ('delayed', 'leased');

-- What is in the queue, as a sum of differences: a statement adds a row and
-- waits for nobody; consumers fold the rows into one.
CREATE TABLE {{count}} (
    id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    ready   bigint NOT NULL,
    delayed bigint NOT NULL,
    leased  bigint NOT NULL,
    dead    bigint NOT NULL,
    arrived bigint NOT NULL                            -- ever inserted
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_analyze_threshold = 1000000000);

CREATE FUNCTION {{counted}}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    d record;
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        INSERT INTO {{count}} (ready, delayed, leased, dead, arrived)
            SELECT -sum(ready), -sum(delayed), -sum(leased), -sum(dead), 0 FROM {{count}} HAVING count(*) > 0;
        RETURN NULL;
    ELSIF TG_OP = 'INSERT' THEN
        SELECT count(*) FILTER (WHERE state = 'ready') AS ready, count(*) FILTER (WHERE state = 'delayed') AS delayed,
            count(*) FILTER (WHERE state = 'leased') AS leased, count(*) FILTER (WHERE state = 'dead') AS dead,
            count(*) AS arrived INTO d FROM added;
    ELSIF TG_OP = 'DELETE' THEN
        SELECT -count(*) FILTER (WHERE state = 'ready') AS ready, -count(*) FILTER (WHERE state = 'delayed') AS delayed,
            -count(*) FILTER (WHERE state = 'leased') AS leased, -count(*) FILTER (WHERE state = 'dead') AS dead,
            0 AS arrived INTO d FROM gone;
    ELSE
        SELECT coalesce(sum(n) FILTER (WHERE state = 'ready'), 0) AS ready, coalesce(sum(n) FILTER (WHERE state = 'delayed'), 0) AS delayed,
            coalesce(sum(n) FILTER (WHERE state = 'leased'), 0) AS leased, coalesce(sum(n) FILTER (WHERE state = 'dead'), 0) AS dead,
            0 AS arrived INTO d FROM (SELECT state, 1 AS n FROM added UNION ALL SELECT state, -1 FROM gone) AS both_sides;
    END IF;
    IF d.ready <> 0 OR d.delayed <> 0 OR d.leased <> 0 OR d.dead <> 0 THEN
        INSERT INTO {{count}} (ready, delayed, leased, dead, arrived) VALUES (d.ready, d.delayed, d.leased, d.dead, d.arrived);
    END IF;
    -- Consumers wake for what they can take, now or later.
    IF TG_NARGS > 0 AND (d.ready > 0 OR d.delayed > 0) THEN
        PERFORM pg_notify(TG_ARGV[0], '');
    END IF;
    RETURN NULL;
END
$body$;
REVOKE ALL ON FUNCTION {{counted}}() FROM PUBLIC;
CREATE TRIGGER counted_insert AFTER INSERT ON {{table}} REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION {{counted}}({{channel}});
CREATE TRIGGER counted_update AFTER UPDATE ON {{table}} REFERENCING OLD TABLE AS gone NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION {{counted}}({{channel}});
CREATE TRIGGER counted_delete AFTER DELETE ON {{table}} REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION {{counted}}({{channel}});
CREATE TRIGGER counted_truncate AFTER TRUNCATE ON {{table}}
    FOR EACH STATEMENT EXECUTE FUNCTION {{counted}}({{channel}});
COMMENT ON TABLE {{table}} IS 'Muster queue, version 1';
