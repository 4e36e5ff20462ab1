-- Room: the database itself keeps the log as it was written: no UPDATE, no TRUNCATE, and DELETE only of
-- events below the head that stand in a sealed range.

CREATE OR REPLACE FUNCTION {schema}.refuse() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
    RAISE EXCEPTION USING ERRCODE = 'EF005',
        MESSAGE = format('%s of %I.%I was refused: the log is immutable. Append an event that corrects the earlier one.',
                         TG_OP, TG_TABLE_SCHEMA, TG_TABLE_NAME);
END
$body$;

CREATE OR REPLACE FUNCTION {schema}.refuse_unsealed() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, {schema}, pg_temp AS $body$
DECLARE
    gone bigint := CASE WHEN TG_TABLE_NAME = 'request' THEN (to_jsonb(OLD) ->> 'first')::bigint
                        ELSE (to_jsonb(OLD) ->> 'position')::bigint END;
BEGIN
    IF EXISTS (SELECT 1 FROM sealed WHERE gone BETWEEN first AND last)
       AND EXISTS (SELECT 1 FROM event WHERE position > gone) THEN
        RETURN OLD;
    END IF;
    RAISE EXCEPTION USING ERRCODE = 'EF005',
        MESSAGE = format('DELETE of position %s was refused: the log is immutable. '
                         'Only sealed ranges below the head may be moved away.', gone);
END
$body$;

-- ALWAYS: also in sessions whose session_replication_role would switch ordinary triggers off.
DO $body$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['event', 'tag', 'request'] LOOP
        EXECUTE format('CREATE TRIGGER no_update BEFORE UPDATE ON {schema}.%I FOR EACH STATEMENT EXECUTE FUNCTION {schema}.refuse()', name);
        EXECUTE format('CREATE TRIGGER no_truncate BEFORE TRUNCATE ON {schema}.%I FOR EACH STATEMENT EXECUTE FUNCTION {schema}.refuse()', name);
        EXECUTE format('CREATE TRIGGER no_delete BEFORE DELETE ON {schema}.%I FOR EACH ROW EXECUTE FUNCTION {schema}.refuse_unsealed()', name);
        EXECUTE format('ALTER TABLE {schema}.%I ENABLE ALWAYS TRIGGER no_update', name);
        EXECUTE format('ALTER TABLE {schema}.%I ENABLE ALWAYS TRIGGER no_truncate', name);
        EXECUTE format('ALTER TABLE {schema}.%I ENABLE ALWAYS TRIGGER no_delete', name);
    END LOOP;
END
$body$;
