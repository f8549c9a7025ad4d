-- Which message of an outside queue a task was made from, until it is settled
-- there.

CREATE TABLE messages (
  task    TEXT PRIMARY KEY,
  queue   TEXT NOT NULL,
  message TEXT NOT NULL, -- the backend's name for it, or a digest of its content
  receipt TEXT NOT NULL  -- of its newest delivery
) STRICT, WITHOUT ROWID;

CREATE INDEX messages_queue ON messages (queue, task);
