-- Layout 1 to 2: checksums for what stands beside the log; snapshots are dropped, which costs time and no event.

DELETE FROM {schema}.snapshot;
ALTER TABLE {schema}.snapshot ADD COLUMN crc integer NOT NULL;

ALTER TABLE {schema}.inlined ADD COLUMN crc integer;
UPDATE {schema}.inlined SET crc = ('x' || encode(substr(sha256(convert_to(
    concat_ws(E'\n', name, code, ticket, array_to_string(types, E'\n')), 'UTF8')), 1, 4), 'hex'))::bit(32)::integer;
ALTER TABLE {schema}.inlined ALTER COLUMN crc SET NOT NULL;
