-- Times are nanoseconds since 1970 in UTC, 0 where there is none. What comes
-- from users and may hold any bytes is bytea; JSON is text, since jsonb refuses
-- \u0000.

CREATE TABLE tasks (
  id           text   COLLATE "C" PRIMARY KEY,
  seq          bigint GENERATED ALWAYS AS IDENTITY, -- order of submission
  tenant       text   COLLATE "C" NOT NULL,
  pool         text   COLLATE "C" NOT NULL,
  priority     int    NOT NULL,
  idem_key     bytea,                 -- NULL: none
  digest       text   NOT NULL,       -- of the spec, to tell repeats from conflicts
  submitted_at bigint NOT NULL,
  place        smallint NOT NULL,     -- 0 due, 1 delayed, 2 leased, 3 in a sandbox, 4 ended
  state        text   NOT NULL,
  outcome      text   COLLATE "C" NOT NULL DEFAULT '', -- the state once it is final: an index may not name state, see below
  attempt      int    NOT NULL DEFAULT 0,
  fence        bigint NOT NULL DEFAULT 0,
  due_at       bigint NOT NULL,
  deadline     bigint NOT NULL DEFAULT 0, -- of waiting, by timeouts.queue
  lease_until  bigint NOT NULL DEFAULT 0, -- with place 2
  lease_owner  bigint NOT NULL DEFAULT 0, -- peers.id
  lease_term   bigint NOT NULL DEFAULT 0, -- of the leader that leased it; 0: another process did
  sandbox      text   NOT NULL DEFAULT '',
  node         text   NOT NULL DEFAULT '',
  launch       text   NOT NULL DEFAULT '',
  phases       text   NOT NULL DEFAULT '', -- JSON; '' when all are zero
  result       text   NOT NULL DEFAULT '', -- JSON; '' when empty
  cancel       boolean NOT NULL DEFAULT false,
  cancel_by    text   NOT NULL DEFAULT '',
  claimed_at   bigint NOT NULL DEFAULT 0,
  started_at   bigint NOT NULL DEFAULT 0,
  running_at   bigint NOT NULL DEFAULT 0,
  ended_at     bigint NOT NULL DEFAULT 0,
  dead         boolean NOT NULL DEFAULT false, -- set aside for a person
  webhook      smallint NOT NULL DEFAULT 0,    -- 0 none or not yet, 1 to be delivered, 2 ended
  webhook_problem text NOT NULL DEFAULT ''
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 2000);

-- Progress (state, phases, times) touches no index, so that it is written
-- within the page.
CREATE UNIQUE INDEX tasks_key     ON tasks (tenant, idem_key) WHERE idem_key IS NOT NULL;
CREATE INDEX        tasks_pool    ON tasks (pool, id);
CREATE INDEX        tasks_due     ON tasks (pool, tenant, priority, due_at, seq) WHERE place = 0;
CREATE INDEX        tasks_delayed ON tasks (due_at) WHERE place = 1;
CREATE INDEX        tasks_expire  ON tasks (deadline) WHERE place IN (0, 1) AND deadline > 0;
CREATE INDEX        tasks_leased  ON tasks (lease_until) WHERE place = 2;
CREATE INDEX        tasks_open    ON tasks (place, id) WHERE place <> 4;
CREATE INDEX        tasks_outcome ON tasks (outcome, id) WHERE place = 4;
CREATE INDEX        tasks_ended   ON tasks (ended_at, id) WHERE place = 4;
CREATE INDEX        tasks_webhook ON tasks (ended_at, id) WHERE webhook = 1;

-- Apart from tasks, because specs are large and never change.
CREATE TABLE specs (
  id   text COLLATE "C" PRIMARY KEY,
  spec text NOT NULL -- JSON
);

CREATE TABLE labels (
  key   bytea NOT NULL,
  value bytea NOT NULL,
  task  text COLLATE "C" NOT NULL,
  PRIMARY KEY (key, value, task)
);
CREATE INDEX labels_task ON labels (task);

-- How many tasks are where: the sum of all rows. A transaction adds rows and
-- changes none, so that none waits for another; they are folded now and then.
CREATE TABLE tally (
  pool     text   COLLATE "C" NOT NULL,
  tenant   text   COLLATE "C" NOT NULL,
  priority int    NOT NULL,
  due      bigint NOT NULL DEFAULT 0,
  delayed  bigint NOT NULL DEFAULT 0,
  held     bigint NOT NULL DEFAULT 0,
  dead     bigint NOT NULL DEFAULT 0,
  arrived  bigint NOT NULL DEFAULT 0 -- ever submitted
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);

CREATE FUNCTION tally_added() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
  INSERT INTO tally (pool, tenant, priority, due, delayed, arrived)
  SELECT pool, tenant, priority, count(*) FILTER (WHERE place = 0), count(*) FILTER (WHERE place = 1), count(*)
  FROM added GROUP BY 1, 2, 3;
  RETURN NULL;
END $$;

CREATE FUNCTION tally_moved() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
  IF OLD.place = 2 AND NEW.place = 3 THEN RETURN NULL; END IF; -- held before and after
  INSERT INTO tally (pool, tenant, priority, due, delayed, held, dead) VALUES (NEW.pool, NEW.tenant, NEW.priority,
    (NEW.place = 0)::int - (OLD.place = 0)::int, (NEW.place = 1)::int - (OLD.place = 1)::int,
    (NEW.place IN (2, 3))::int - (OLD.place IN (2, 3))::int, NEW.dead::int - OLD.dead::int);
  RETURN NULL;
END $$;

CREATE FUNCTION tally_pruned() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
  INSERT INTO tally (pool, tenant, priority, dead) VALUES (OLD.pool, OLD.tenant, OLD.priority, -1);
  RETURN NULL;
END $$;

CREATE TRIGGER tally_added AFTER INSERT ON tasks REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION tally_added();
CREATE TRIGGER tally_moved AFTER UPDATE ON tasks FOR EACH ROW WHEN (OLD.place IS DISTINCT FROM NEW.place) EXECUTE FUNCTION tally_moved();
CREATE TRIGGER tally_pruned AFTER DELETE ON tasks FOR EACH ROW WHEN (OLD.dead) EXECUTE FUNCTION tally_pruned();

CREATE TABLE sandboxes (
  id         text COLLATE "C" PRIMARY KEY,
  state      text   NOT NULL,
  task       text   NOT NULL DEFAULT '',
  fence      bigint NOT NULL DEFAULT 0,
  node       text   NOT NULL DEFAULT '',
  claimed_at bigint NOT NULL DEFAULT 0,
  gone_at    bigint NOT NULL DEFAULT 0,
  gone       boolean NOT NULL DEFAULT false,
  record     text   NOT NULL -- JSON; the columns above overrule it
) WITH (fillfactor = 70);

CREATE INDEX sandboxes_here ON sandboxes (id) WHERE NOT gone;
CREATE INDEX sandboxes_gone ON sandboxes (gone_at) WHERE gone;

CREATE TABLE policies (
  id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  digest text   NOT NULL UNIQUE, -- SHA-256 of the JSON
  policy bytea  NOT NULL
);

CREATE TABLE decisions (
  seq         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  at          bigint  NOT NULL,
  changed     boolean NOT NULL,
  observation bytea   NOT NULL,
  plan        bytea   NOT NULL,
  state       bytea   NOT NULL,
  version     int     NOT NULL, -- of the planner; 0: not recorded
  policy      bigint  NOT NULL  -- policies.id; 0: not recorded
);
ALTER TABLE decisions ALTER observation SET STORAGE EXTERNAL, ALTER plan SET STORAGE EXTERNAL, ALTER state SET STORAGE EXTERNAL; -- packed already
CREATE INDEX decisions_at     ON decisions (at);
CREATE INDEX decisions_policy ON decisions (policy);

CREATE TABLE events (
  seq     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  at      bigint NOT NULL,
  kind    text NOT NULL,
  layer   text NOT NULL,
  task    text NOT NULL,
  sandbox text NOT NULL,
  event   text NOT NULL -- JSON
);
CREATE INDEX events_task    ON events (task, seq) WHERE task <> '';
CREATE INDEX events_sandbox ON events (sandbox, seq) WHERE sandbox <> '';
CREATE INDEX events_kind    ON events (kind, seq);
CREATE INDEX events_at      ON events (at);

-- Which message of an outside queue a task was made from, until it is settled
-- there.
CREATE TABLE messages (
  task    text COLLATE "C" PRIMARY KEY,
  queue   text  COLLATE "C" NOT NULL,
  message bytea NOT NULL, -- the backend's name for it, or a digest of its content
  receipt bytea NOT NULL  -- of its newest delivery
);
CREATE INDEX messages_queue ON messages (queue, task);

CREATE TABLE schedules (
  name     bytea PRIMARY KEY,
  schedule text NOT NULL -- JSON
);

CREATE TABLE settings (
  key   text COLLATE "C" PRIMARY KEY,
  value bytea NOT NULL
);

-- Who leads: the one row's term grows with each leader.
CREATE TABLE leadership (
  single boolean PRIMARY KEY DEFAULT true CHECK (single),
  term   bigint NOT NULL,
  leader text   NOT NULL,
  since  timestamptz NOT NULL DEFAULT now()
);
INSERT INTO leadership (term, leader) VALUES (0, '');

-- in_term waits for a leader that is just taking over and refuses one that was
-- followed by another. Two statements, so that the second sees what the first
-- waited for.
CREATE FUNCTION in_term(mine bigint, turnstile bigint) RETURNS void LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
  now_leads record;
BEGIN
  PERFORM pg_advisory_xact_lock_shared(turnstile);
  SELECT term, leader INTO now_leads FROM leadership;
  IF now_leads.term IS DISTINCT FROM mine THEN
    RAISE EXCEPTION 'term % is over: % leads in term %', mine, now_leads.leader, now_leads.term USING ERRCODE = 'MUS01';
  END IF;
END $$;

-- What each open store has changed, so that others notice even if push fails:
-- a row for each of its lanes, of which one transaction at a time writes.
CREATE TABLE peers (
  id     bigint NOT NULL,
  lane   int    NOT NULL,
  queue  bigint NOT NULL,
  events bigint NOT NULL,
  at     timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (id, lane)
) WITH (fillfactor = 50);
