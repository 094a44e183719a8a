-- Keys of addresses have only their domain in lower case from here on (RFC 6109,
-- 2.2.1). entry_address stays in lower case altogether: a search is lenient.

-- The keys in issued up to this entry have their local part folded too. The
-- register is not written again; such a key counts for every spelling.
CREATE TABLE folded_keys (
    id  INTEGER PRIMARY KEY CHECK (id = 1),
    seq INTEGER NOT NULL
) STRICT;
INSERT INTO folded_keys SELECT 1, coalesce(max(seq), 0) FROM entry;

-- The ledger: what the sender has been told, and keys of the new form. rtrim
-- takes off the end all that is not @, so that the last @ ends what is left.
ALTER TABLE awaited ADD COLUMN warned_at INTEGER;
ALTER TABLE awaited ADD COLUMN expired_at INTEGER;
UPDATE awaited SET key = CASE instr(recipient, '@') WHEN 0 THEN recipient ELSE
    rtrim(recipient, replace(recipient, '@', '')) ||
    lower(substr(recipient, 1 + length(rtrim(recipient, replace(recipient, '@', ''))))) END
WHERE key <> recipient;

-- What timeouts are looked for in, every few seconds: rows leave these indexes
-- when nothing more will be said about them.
DROP INDEX awaited_open;
CREATE INDEX awaited_open ON awaited (sent, identifier, position)
    WHERE outcome IS NULL AND expired_at IS NULL;
CREATE INDEX awaited_unwarned ON awaited (sent, identifier, position)
    WHERE outcome IS NULL AND expired_at IS NULL AND warned_at IS NULL AND taken_at IS NULL;

-- What becomes of ordinary mail.
CREATE TABLE policy (
    subject  TEXT PRIMARY KEY, -- the key of a mailbox, or a domain in lower case
    ordinary TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- The secret of the store, put here when it is first opened.
CREATE TABLE secret (
    id     INTEGER PRIMARY KEY CHECK (id = 1),
    octets BLOB NOT NULL CHECK (length(octets) = 32)
) STRICT;
CREATE TRIGGER secret_once BEFORE INSERT ON secret WHEN EXISTS (SELECT 1 FROM secret)
BEGIN SELECT raise(ABORT, 'the secret never changes'); END;
CREATE TRIGGER secret_kept BEFORE DELETE ON secret
BEGIN SELECT raise(ABORT, 'the secret never changes'); END;
CREATE TRIGGER secret_unchanged BEFORE UPDATE ON secret
BEGIN SELECT raise(ABORT, 'the secret never changes'); END;
