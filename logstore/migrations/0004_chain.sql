-- The chain. The chain of an entry is the SHA-256 digest over the chain of the
-- one before, in lower-case hexadecimal, a line feed, its record, a line feed;
-- before the first entry stand 64 zeros. The record is the only truth: at, type,
-- identifier, entry_address, entry_message and issued follow from it.

-- The records up to this entry do not name their keys in issued, and the table is
-- all that is known of them.
CREATE TABLE unnamed_keys (
    id  INTEGER PRIMARY KEY CHECK (id = 1),
    seq INTEGER NOT NULL
) STRICT;
INSERT INTO unnamed_keys SELECT 1, coalesce(max(seq), 0) FROM entry;
CREATE TRIGGER unnamed_keys_once BEFORE INSERT ON unnamed_keys WHEN EXISTS (SELECT 1 FROM unnamed_keys)
BEGIN SELECT raise(ABORT, 'the register is append-only'); END;
CREATE TRIGGER unnamed_keys_kept BEFORE DELETE ON unnamed_keys
BEGIN SELECT raise(ABORT, 'the register is append-only'); END;
CREATE TRIGGER unnamed_keys_unchanged BEFORE UPDATE ON unnamed_keys
BEGIN SELECT raise(ABORT, 'the register is append-only'); END;

-- The program fills it for the entries that exist, right after this script and in
-- the same transaction.
ALTER TABLE entry ADD COLUMN chain BLOB CHECK (length(chain) = 32);
CREATE TRIGGER entry_chained BEFORE INSERT ON entry WHEN NEW.chain IS NULL
BEGIN SELECT raise(ABORT, 'the register is a chain'); END;
DROP TRIGGER entry_unchanged;
CREATE TRIGGER entry_unchanged BEFORE UPDATE ON entry
WHEN OLD.chain IS NOT NULL OR NEW.chain IS NULL OR NEW.seq <> OLD.seq OR NEW.at <> OLD.at OR NEW.type <> OLD.type
    OR NEW.identifier <> OLD.identifier OR NEW.record <> OLD.record
BEGIN SELECT raise(ABORT, 'the register is append-only'); END;

-- The entries that went after their term: all up to through, whose chain is kept,
-- so that the chain goes on from there. seq is the entry that says so.
CREATE TABLE purged (
    through INTEGER PRIMARY KEY,
    chain   BLOB    NOT NULL CHECK (length(chain) = 32),
    seq     INTEGER NOT NULL,
    at      INTEGER NOT NULL,
    proof   BLOB    NOT NULL CHECK (length(proof) > 0) -- that they were archived and sealed
) STRICT;
CREATE TRIGGER purged_in_order BEFORE INSERT ON purged
WHEN NEW.through <= (SELECT coalesce(max(through), 0) FROM purged)
    OR NOT EXISTS (SELECT 1 FROM entry WHERE seq = NEW.through AND chain = NEW.chain)
    OR NOT EXISTS (SELECT 1 FROM entry WHERE seq = NEW.seq AND seq = (SELECT max(seq) FROM entry)
        AND seq > NEW.through AND at = NEW.at AND type = 'cancellazione'
        AND json_extract(record, '$.purge.through') = NEW.through)
BEGIN SELECT raise(ABORT, 'the register is kept until its term is over'); END;
CREATE TRIGGER purged_kept BEFORE DELETE ON purged
BEGIN SELECT raise(ABORT, 'the register is append-only'); END;
CREATE TRIGGER purged_unchanged BEFORE UPDATE ON purged
BEGIN SELECT raise(ABORT, 'the register is append-only'); END;

-- Only the oldest entries go, one after the other, and what is searched with them.
DROP TRIGGER entry_kept;
CREATE TRIGGER entry_kept BEFORE DELETE ON entry
WHEN OLD.seq > (SELECT coalesce(max(through), 0) FROM purged) OR OLD.seq > (SELECT min(seq) FROM entry)
BEGIN SELECT raise(ABORT, 'the register is append-only'); END;
DROP TRIGGER entry_address_kept;
CREATE TRIGGER entry_address_kept BEFORE DELETE ON entry_address
WHEN OLD.seq > (SELECT coalesce(max(through), 0) FROM purged)
BEGIN SELECT raise(ABORT, 'the register is append-only'); END;
DROP TRIGGER entry_message_kept;
CREATE TRIGGER entry_message_kept BEFORE DELETE ON entry_message
WHEN OLD.seq > (SELECT coalesce(max(through), 0) FROM purged)
BEGIN SELECT raise(ABORT, 'the register is append-only'); END;
DROP TRIGGER issued_kept;
CREATE TRIGGER issued_kept BEFORE DELETE ON issued
WHEN OLD.seq > (SELECT coalesce(max(through), 0) FROM purged)
BEGIN SELECT raise(ABORT, 'the register is append-only'); END;
