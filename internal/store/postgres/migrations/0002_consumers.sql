-- Sandboxes that are driven by processes of their own, and what those tell of
-- themselves.

ALTER TABLE sandboxes ADD COLUMN owner text NOT NULL DEFAULT ''; -- consumers.name, as in the record

-- Records of sandboxes that each open store has written, as queue and events.
ALTER TABLE peers ADD COLUMN boxes bigint NOT NULL DEFAULT 0;

CREATE TABLE consumers (
  name     bytea PRIMARY KEY,
  told     timestamptz NOT NULL, -- when, by this server's clock
  consumer text NOT NULL         -- JSON
) WITH (fillfactor = 50);
