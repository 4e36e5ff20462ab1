-- Triggers that keep the log as it was written: no UPDATE, no DELETE, no TRUNCATE. `sealed` is for events that are
-- kept elsewhere, which no version does yet: its trigger refuses every row until then.

-- The first 32 bits of a text's SHA-256: PostgreSQL has no CRC-32 before version 18.
CREATE OR REPLACE FUNCTION {schema}.checksum(content text) RETURNS integer LANGUAGE sql IMMUTABLE AS $body$
    SELECT ('x' || encode(substr(sha256(convert_to(content, 'UTF8')), 1, 4), 'hex'))::bit(32)::integer
$body$;

-- The position of an event, for its checksum: every change of a single bit of the four arguments changes this number.
-- checksums.py computes the same. The caller's CRC-32 cannot include it, since positions are assigned here.
CREATE OR REPLACE FUNCTION {schema}.placed(place bigint, moment bigint, number integer, size integer)
RETURNS integer LANGUAGE sql IMMUTABLE AS $body$
    SELECT (((place % 2147483647) * 1566083941 % 2147483647 + (moment % 2147483647 + 2147483647) % 2147483647 * 1812433253 % 2147483647
        + number::bigint * 1103515245 % 2147483647 + size::bigint * 1664525 % 2147483647) % 2147483647)::integer
$body$;

CREATE OR REPLACE FUNCTION {schema}.store_checksum() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, {schema}, pg_temp AS $body$
BEGIN
    NEW.crc := checksum(concat_ws(E'\n', NEW.id, NEW.epoch, NEW.layout, NEW.unplaced, NEW.place));
    RETURN NEW;
END
$body$;
DROP TRIGGER IF EXISTS store_checksum ON {schema}.store;
CREATE TRIGGER store_checksum BEFORE INSERT OR UPDATE ON {schema}.store
    FOR EACH ROW EXECUTE FUNCTION {schema}.store_checksum();

CREATE OR REPLACE FUNCTION {schema}.refuse() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
    RAISE EXCEPTION USING ERRCODE = 'EF005',
        MESSAGE = format('%s of %I.%I was refused: the log is immutable. Append an event that corrects the earlier one.',
                         TG_OP, TG_TABLE_SCHEMA, TG_TABLE_NAME);
END
$body$;

CREATE OR REPLACE FUNCTION {schema}.refuse_sealing() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
    RAISE EXCEPTION USING ERRCODE = 'EF005',
        MESSAGE = format('%s of %I.%I was refused: no event can be moved away yet. Keep the log whole.',
                         TG_OP, TG_TABLE_SCHEMA, TG_TABLE_NAME);
END
$body$;

-- Per statement, so that its cost does not grow with the rows. ALWAYS: also in sessions whose
-- session_replication_role would switch ordinary triggers off.
DO $body$
DECLARE
    name text;
    change text;
BEGIN
    FOREACH name IN ARRAY ARRAY['event', 'tag', 'request', 'sealed'] LOOP
        FOREACH change IN ARRAY CASE name WHEN 'sealed' THEN ARRAY['insert', 'update', 'delete', 'truncate']
                                          ELSE ARRAY['update', 'delete', 'truncate'] END LOOP
            EXECUTE format('DROP TRIGGER IF EXISTS %I ON {schema}.%I', 'no_' || change, name);
            EXECUTE format('CREATE TRIGGER %I BEFORE %s ON {schema}.%I FOR EACH STATEMENT EXECUTE FUNCTION {schema}.%s()',
                           'no_' || change, change, name, CASE name WHEN 'sealed' THEN 'refuse_sealing' ELSE 'refuse' END);
            EXECUTE format('ALTER TABLE {schema}.%I ENABLE ALWAYS TRIGGER %I', name, 'no_' || change);
        END LOOP;
    END LOOP;
END
$body$;
