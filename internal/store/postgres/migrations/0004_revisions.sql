-- Every specification that the fleet had. Rows are never changed.

CREATE TABLE revisions (
  number bigint PRIMARY KEY,
  at     bigint NOT NULL,
  author bytea NOT NULL,
  source text  NOT NULL,
  note   bytea NOT NULL,
  digest text  NOT NULL, -- SHA-256 of the JSON
  spec   bytea NOT NULL  -- kept as the parts of a decision are
);
