-- Times are nanoseconds since 1970 in UTC, 0 where there is none.

CREATE TABLE tasks (
  seq          INTEGER PRIMARY KEY, -- order of submission
  id           TEXT    NOT NULL UNIQUE,
  tenant       TEXT    NOT NULL,
  pool         TEXT    NOT NULL,
  priority     INTEGER NOT NULL,
  idem_key     TEXT,                -- NULL: none
  digest       TEXT    NOT NULL,    -- of the spec, to tell repeats from conflicts
  submitted_at INTEGER NOT NULL,
  state        TEXT    NOT NULL,
  place        INTEGER NOT NULL DEFAULT 0, -- 0 waiting, 1 leased (sandbox claimed or not), 2 ended
  attempt      INTEGER NOT NULL DEFAULT 0,
  fence        INTEGER NOT NULL DEFAULT 0,
  due_at       INTEGER NOT NULL,
  deadline     INTEGER NOT NULL DEFAULT 0, -- of waiting, by timeouts.queue
  sandbox      TEXT    NOT NULL DEFAULT '',
  node         TEXT    NOT NULL DEFAULT '',
  launch       TEXT    NOT NULL DEFAULT '',
  phases       TEXT    NOT NULL DEFAULT '', -- JSON; '' when all are zero
  result       TEXT    NOT NULL DEFAULT '', -- JSON; '' when empty
  cancel       INTEGER NOT NULL DEFAULT 0,
  cancel_by    TEXT    NOT NULL DEFAULT '',
  claimed_at   INTEGER NOT NULL DEFAULT 0,
  started_at   INTEGER NOT NULL DEFAULT 0,
  running_at   INTEGER NOT NULL DEFAULT 0,
  ended_at     INTEGER NOT NULL DEFAULT 0,
  dead         INTEGER NOT NULL DEFAULT 0, -- 1: set aside for a person
  webhook      INTEGER NOT NULL DEFAULT 0, -- 0 none or not yet, 1 to be delivered, 2 ended
  webhook_problem TEXT NOT NULL DEFAULT ''
) STRICT;

CREATE UNIQUE INDEX tasks_key     ON tasks (tenant, idem_key) WHERE idem_key IS NOT NULL;
CREATE INDEX        tasks_state   ON tasks (state, id);
CREATE INDEX        tasks_pool    ON tasks (pool, id);
-- The waiting tasks, with all that the order in memory is rebuilt from. These
-- indexes depend on place and not on state, so that progress touches only one.
CREATE INDEX        tasks_waiting ON tasks (pool, tenant, priority, due_at) WHERE place = 0;
CREATE INDEX        tasks_expire  ON tasks (deadline) WHERE place = 0 AND deadline > 0;
CREATE INDEX        tasks_held    ON tasks (place) WHERE place = 1;
CREATE INDEX        tasks_ended   ON tasks (ended_at) WHERE place = 2;
CREATE INDEX        tasks_dead    ON tasks (dead) WHERE dead = 1;
CREATE INDEX        tasks_webhook ON tasks (ended_at) WHERE webhook = 1;

-- Apart from tasks, because specs are large and never change.
CREATE TABLE specs (
  seq  INTEGER PRIMARY KEY,
  spec TEXT NOT NULL -- JSON
) STRICT;

CREATE TABLE labels (
  key   TEXT NOT NULL,
  value TEXT NOT NULL,
  task  TEXT NOT NULL,
  PRIMARY KEY (key, value, task)
) STRICT, WITHOUT ROWID;

CREATE TABLE pools (
  pool    TEXT PRIMARY KEY,
  arrived INTEGER NOT NULL -- tasks ever submitted
) STRICT, WITHOUT ROWID;

CREATE TABLE sandboxes (
  id         TEXT    PRIMARY KEY,
  state      TEXT    NOT NULL,
  task       TEXT    NOT NULL DEFAULT '',
  fence      INTEGER NOT NULL DEFAULT 0,
  claimed_at INTEGER NOT NULL DEFAULT 0,
  gone_at    INTEGER NOT NULL DEFAULT 0,
  record     TEXT    NOT NULL -- JSON; the columns above overrule it
) STRICT;

CREATE INDEX sandboxes_here ON sandboxes (id) WHERE state <> 'gone';
CREATE INDEX sandboxes_gone ON sandboxes (gone_at) WHERE state = 'gone';

CREATE TABLE decisions (
  seq         INTEGER PRIMARY KEY,
  at          INTEGER NOT NULL,
  changed     INTEGER NOT NULL,
  observation BLOB NOT NULL,
  plan        BLOB NOT NULL,
  state       BLOB NOT NULL
) STRICT;

CREATE TABLE events (
  seq     INTEGER PRIMARY KEY,
  at      INTEGER NOT NULL,
  kind    TEXT NOT NULL,
  layer   TEXT NOT NULL,
  task    TEXT NOT NULL,
  sandbox TEXT NOT NULL,
  event   TEXT NOT NULL -- JSON
) STRICT;

CREATE INDEX events_task    ON events (task, seq) WHERE task <> '';
CREATE INDEX events_sandbox ON events (sandbox, seq) WHERE sandbox <> '';
CREATE INDEX events_kind    ON events (kind, seq);
CREATE INDEX events_at      ON events (at);

CREATE TABLE schedules (
  name     TEXT PRIMARY KEY,
  schedule TEXT NOT NULL -- JSON
) STRICT, WITHOUT ROWID;

CREATE TABLE settings (
  key   TEXT PRIMARY KEY,
  value BLOB NOT NULL
) STRICT, WITHOUT ROWID;
