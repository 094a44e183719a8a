-- The virus store (RFC 6109, 2.2.4): one row per infected message, which is the
-- file virus/<id>. AUTOINCREMENT: an id is never used again.
CREATE TABLE infected (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    seq        INTEGER NOT NULL REFERENCES entry (seq), -- the event that kept it
    at         INTEGER NOT NULL,
    identifier TEXT    NOT NULL,
    sender     TEXT    NOT NULL,
    virus      TEXT    NOT NULL,
    source     TEXT    NOT NULL,
    size       INTEGER NOT NULL,
    digest     TEXT    NOT NULL CHECK (length(digest) = 64), -- SHA-256, hexadecimal
    until      INTEGER NOT NULL CHECK (until > at)
) STRICT;
CREATE INDEX infected_by_identifier ON infected (identifier, id);
CREATE INDEX infected_by_time ON infected (at, id);
CREATE INDEX infected_by_term ON infected (until, id);

-- What is kept stays as it was put there until its term is over, and goes with a
-- register entry, whatever program writes.
CREATE TRIGGER infected_once BEFORE INSERT ON infected WHEN EXISTS (SELECT 1 FROM infected WHERE id = NEW.id)
BEGIN SELECT raise(ABORT, 'an infected message is kept as it is'); END;
CREATE TRIGGER infected_unchanged BEFORE UPDATE ON infected
BEGIN SELECT raise(ABORT, 'an infected message is kept as it is'); END;
CREATE TRIGGER infected_until BEFORE DELETE ON infected
WHEN NOT EXISTS (SELECT 1 FROM entry WHERE seq = (SELECT max(seq) FROM entry)
    AND type = 'cancellazione' AND identifier = OLD.identifier AND at >= OLD.until
    AND json_extract(record, '$.kept') = OLD.digest)
BEGIN SELECT raise(ABORT, 'an infected message is kept until its term is over'); END;
