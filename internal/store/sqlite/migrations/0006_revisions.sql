-- Every specification that the fleet had. Rows are never changed.

CREATE TABLE revisions (
  number INTEGER PRIMARY KEY,
  at     INTEGER NOT NULL,
  author TEXT NOT NULL,
  source TEXT NOT NULL,
  note   TEXT NOT NULL,
  digest TEXT NOT NULL, -- SHA-256 of the JSON
  spec   BLOB NOT NULL  -- kept as the parts of a decision are
) STRICT;
