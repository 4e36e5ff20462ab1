-- Layout 1 to 2: checksums for the other tables. Snapshots are dropped, which loses no event.

DO $body$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = '{schema}.event'::regclass AND attname = 'crc' AND NOT attisdropped) THEN
        RAISE EXCEPTION USING ERRCODE = 'EF020', MESSAGE = 'The events of this store have no checksums: a version from before layout 1 was '
            'complete wrote them. Export them with that version, and append them to a new store.';
    END IF;
END
$body$;

DELETE FROM {schema}.snapshot;
ALTER TABLE {schema}.snapshot ADD COLUMN crc integer NOT NULL;

CREATE TABLE IF NOT EXISTS {schema}.inlined ( -- the first versions of layout 1 had no inline read models
    name   text COLLATE "C" PRIMARY KEY,
    code   text NOT NULL,
    types  text[] NOT NULL,
    ticket text NOT NULL
);
ALTER TABLE {schema}.inlined ADD COLUMN crc integer;
UPDATE {schema}.inlined SET crc = ('x' || encode(substr(sha256(convert_to(
    concat_ws(E'\n', name, code, ticket, array_to_string(types, E'\n')), 'UTF8')), 1, 4), 'hex'))::bit(32)::integer;
ALTER TABLE {schema}.inlined ALTER COLUMN crc SET NOT NULL;

ALTER TABLE {schema}.request ADD COLUMN crc integer;

-- Rows keep the checksum that they were written with. The column has another name, so that a reader of
-- layout 1 fails on it instead of reporting new rows as damaged.
ALTER TABLE {schema}.event RENAME COLUMN crc TO checksum;

-- `place` gains the table's oid without a new epoch. A restored dump of layout 1 has another cluster's in it as before.
ALTER TABLE {schema}.store ADD COLUMN unplaced bigint NOT NULL DEFAULT 0, ADD COLUMN crc integer NOT NULL DEFAULT 0;
ALTER TABLE {schema}.store ALTER COLUMN crc DROP DEFAULT;
UPDATE {schema}.store SET unplaced = (SELECT coalesce(max(position), 0) FROM {schema}.event),
    place = place || '/' || '{schema}.store'::regclass::oid;

-- A joined decision names the events of its own transaction that it has seen.
ALTER TABLE {schema}.staged ADD COLUMN seen uuid[];
