-- What the processes that drive sandboxes tell of themselves. The owner of a
-- sandbox is in its record.

CREATE TABLE consumers (
  name     TEXT PRIMARY KEY,
  told     INTEGER NOT NULL, -- when
  consumer TEXT NOT NULL     -- JSON
) STRICT, WITHOUT ROWID;
