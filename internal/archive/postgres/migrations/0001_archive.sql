-- Times are nanoseconds since 1970 in UTC.

CREATE TABLE logs (
  task    text COLLATE "C" NOT NULL,
  attempt int     NOT NULL,
  size    bigint  NOT NULL, -- bytes stored
  ended   boolean NOT NULL DEFAULT false,
  PRIMARY KEY (task, attempt)
) WITH (fillfactor = 50);

CREATE TABLE log_pieces (
  task    text COLLATE "C" NOT NULL,
  attempt int      NOT NULL,
  at_byte bigint   NOT NULL, -- of the log
  at      bigint   NOT NULL,
  stream  smallint NOT NULL,
  bytes   bytea    NOT NULL, -- never empty, at most 64 KiB
  PRIMARY KEY (task, attempt, at_byte)
);

-- A file is what its content is; content is written before it has a name.
CREATE TABLE files (
  task    text COLLATE "C" NOT NULL,
  name    text COLLATE "C" NOT NULL,
  content bigint NOT NULL,
  size    bigint NOT NULL,
  PRIMARY KEY (task, name)
);

CREATE INDEX files_content ON files (content);

CREATE SEQUENCE contents;

CREATE TABLE chunks (
  content bigint NOT NULL,
  n       int    NOT NULL, -- from 0
  bytes   bytea  NOT NULL, -- 256 KiB, but for the last
  PRIMARY KEY (content, n)
);

-- Contents without a name: being written, or replaced while somebody may read
-- them. They are deleted after a while.
CREATE TABLE nameless (
  content bigint PRIMARY KEY,
  since   timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX nameless_since ON nameless (since);
