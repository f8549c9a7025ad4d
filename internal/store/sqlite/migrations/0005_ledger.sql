-- What was charged. One row says from where the ledger goes on; it is written
-- with what it is about, or not at all.

CREATE TABLE ledger (
  only  INTEGER PRIMARY KEY CHECK (only = 1),
  seq   INTEGER NOT NULL,
  state BLOB    NOT NULL
) STRICT;

CREATE TABLE ledger_books (
  span    INTEGER NOT NULL, -- 0 an hour, 1 a day
  at      INTEGER NOT NULL, -- hours since 1970
  content BLOB    NOT NULL,
  PRIMARY KEY (span, at)
) STRICT, WITHOUT ROWID;

-- The id is packed into 13 bytes that sort as it does, by submission.
CREATE TABLE ledger_tasks (
  task    BLOB    PRIMARY KEY,
  micro   INTEGER NOT NULL, -- micro-USD
  busy    INTEGER NOT NULL, -- milliseconds
  outcome INTEGER NOT NULL  -- 0: not over
) STRICT, WITHOUT ROWID;
