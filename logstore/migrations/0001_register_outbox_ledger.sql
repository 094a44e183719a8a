-- Times are nanoseconds since 1970, UTC. Keys of addresses are in lower case.

-- The register. RFC 6109, 2.3: the provider preserves it unmodified.
CREATE TABLE entry (
    seq        INTEGER PRIMARY KEY,
    at         INTEGER NOT NULL,
    type       TEXT    NOT NULL,
    identifier TEXT    NOT NULL,
    record     TEXT    NOT NULL -- the whole entry, JSON
) STRICT;
CREATE INDEX entry_by_identifier ON entry (identifier, at, seq);
CREATE INDEX entry_by_time ON entry (at, seq);

-- at is repeated here so that one index walk gives the entries of an address,
-- or of a Message-ID, in order.
CREATE TABLE entry_address (
    address TEXT    NOT NULL,
    at      INTEGER NOT NULL,
    seq     INTEGER NOT NULL REFERENCES entry (seq),
    PRIMARY KEY (address, at, seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE entry_message (
    message_id TEXT    NOT NULL, -- without angle brackets
    at         INTEGER NOT NULL,
    seq        INTEGER NOT NULL REFERENCES entry (seq),
    PRIMARY KEY (message_id, at, seq)
) STRICT, WITHOUT ROWID;

-- What has been certified, once.
CREATE TABLE issued (
    identifier TEXT    NOT NULL,
    kind       TEXT    NOT NULL,
    origin     TEXT    NOT NULL,
    recipient  TEXT    NOT NULL, -- a key; empty: the whole message
    seq        INTEGER NOT NULL REFERENCES entry (seq),
    PRIMARY KEY (identifier, kind, origin, recipient)
) STRICT, WITHOUT ROWID;

-- The ledger.
CREATE TABLE awaited (
    identifier TEXT    NOT NULL,
    key        TEXT    NOT NULL,
    recipient  TEXT    NOT NULL,
    position   INTEGER NOT NULL,
    sent       INTEGER NOT NULL,
    taken_at   INTEGER,
    ended_at   INTEGER,
    outcome    TEXT,
    PRIMARY KEY (identifier, key),
    CHECK ((ended_at IS NULL) = (outcome IS NULL))
) STRICT, WITHOUT ROWID;
CREATE INDEX awaited_open ON awaited (sent) WHERE outcome IS NULL;

-- The bodies of the outbox: data, or if that is null the file bodies/<id>.
CREATE TABLE body (
    id   INTEGER PRIMARY KEY,
    size INTEGER NOT NULL,
    data BLOB
) STRICT;

-- The outbox. AUTOINCREMENT: an id is never used again, so a late word about a
-- message that is gone cannot hit another.
CREATE TABLE outbox (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    seq        INTEGER NOT NULL REFERENCES entry (seq),
    kind       TEXT    NOT NULL,
    message_id TEXT    NOT NULL,
    envelope   TEXT    NOT NULL,
    sender     TEXT    NOT NULL,
    eight_bit  INTEGER NOT NULL,
    created    INTEGER NOT NULL,
    due        INTEGER NOT NULL,
    attempts   INTEGER NOT NULL DEFAULT 0,
    why        TEXT    NOT NULL DEFAULT ''
) STRICT;
CREATE INDEX outbox_by_due ON outbox (due, id);

CREATE TABLE outbox_recipient (
    outbox   INTEGER NOT NULL REFERENCES outbox (id) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    address  TEXT    NOT NULL,
    PRIMARY KEY (outbox, position)
) STRICT, WITHOUT ROWID;

-- A message is its pieces one after the other: text, or a run of a body.
CREATE TABLE outbox_piece (
    outbox   INTEGER NOT NULL REFERENCES outbox (id) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    text     BLOB,
    body     INTEGER REFERENCES body (id),
    off      INTEGER NOT NULL DEFAULT 0,
    len      INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (outbox, position),
    CHECK ((text IS NULL) <> (body IS NULL))
) STRICT;
CREATE INDEX outbox_piece_by_body ON outbox_piece (body) WHERE body IS NOT NULL;

-- The number of the last transaction. The writer raises it in each, so that after
-- a COMMIT with an error it can find out whether it happened.
CREATE TABLE mark (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    n  INTEGER NOT NULL
) STRICT;
INSERT INTO mark VALUES (1, 0);

-- Append-only, without gaps, whatever program writes.
CREATE TRIGGER entry_in_order BEFORE INSERT ON entry
WHEN NEW.seq IS NOT (SELECT coalesce(max(seq), 0) + 1 FROM entry)
BEGIN SELECT raise(ABORT, 'the register has no gaps and no second entry of one number'); END;
CREATE TRIGGER entry_kept BEFORE DELETE ON entry
BEGIN SELECT raise(ABORT, 'the register is append-only'); END;
CREATE TRIGGER entry_unchanged BEFORE UPDATE ON entry
BEGIN SELECT raise(ABORT, 'the register is append-only'); END;
CREATE TRIGGER entry_address_kept BEFORE DELETE ON entry_address
BEGIN SELECT raise(ABORT, 'the register is append-only'); END;
CREATE TRIGGER entry_address_unchanged BEFORE UPDATE ON entry_address
BEGIN SELECT raise(ABORT, 'the register is append-only'); END;
CREATE TRIGGER entry_message_kept BEFORE DELETE ON entry_message
BEGIN SELECT raise(ABORT, 'the register is append-only'); END;
CREATE TRIGGER entry_message_unchanged BEFORE UPDATE ON entry_message
BEGIN SELECT raise(ABORT, 'the register is append-only'); END;
CREATE TRIGGER issued_kept BEFORE DELETE ON issued
BEGIN SELECT raise(ABORT, 'the register is append-only'); END;
CREATE TRIGGER issued_unchanged BEFORE UPDATE ON issued
BEGIN SELECT raise(ABORT, 'the register is append-only'); END;
