-- What a decision was made by, so that it can be made again: the version of the
-- planner, and the policy, which is kept once for all decisions under it.

CREATE TABLE policies (
  id     INTEGER PRIMARY KEY,
  digest TEXT NOT NULL UNIQUE, -- SHA-256 of the JSON
  policy BLOB NOT NULL         -- kept as the parts of a decision are
) STRICT;

ALTER TABLE decisions ADD COLUMN version INTEGER NOT NULL DEFAULT 0; -- 0: of before it was recorded
ALTER TABLE decisions ADD COLUMN policy  INTEGER NOT NULL DEFAULT 0; -- policies.id; 0: not recorded

CREATE INDEX decisions_policy ON decisions (policy);
CREATE INDEX decisions_at     ON decisions (at);
