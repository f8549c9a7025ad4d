-- What was charged. One row says from where the ledger goes on; it is written
-- with what it is about, or not at all.

CREATE TABLE ledger (
  one   smallint PRIMARY KEY CHECK (one = 1),
  seq   bigint NOT NULL,
  state bytea  NOT NULL
);

CREATE TABLE ledger_books (
  span    text   NOT NULL, -- hour, day
  at      bigint NOT NULL, -- nanoseconds since 1970
  content bytea  NOT NULL,
  PRIMARY KEY (span, at)
);

CREATE TABLE ledger_tasks (
  task    bytea  PRIMARY KEY, -- packed into 13 bytes that sort as the id does
  micro   bigint NOT NULL,    -- micro-USD
  busy    bigint NOT NULL,    -- milliseconds
  outcome text   NOT NULL     -- '': not over
);
