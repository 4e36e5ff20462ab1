-- What a session calls first, and a search that is cheaper in the database.

-- The store's identity. Another cluster, timeline or table than last time means that events may have been lost (a
-- restored backup, a failover, a restored dump): the epoch grows, once.
CREATE OR REPLACE FUNCTION {schema}.attach(OUT id text, OUT epoch bigint, OUT layout integer, OUT unplaced bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, {schema}, pg_temp AS $body$
DECLARE
    here text;
    there text;
    damaged boolean;
BEGIN
    SELECT s.id, s.epoch, s.layout, s.place, s.unplaced, checksum(concat_ws(E'\n', s.id, s.epoch, s.layout, s.unplaced, s.place)) <> s.crc
        INTO id, epoch, layout, there, unplaced, damaged FROM store s;
    IF damaged THEN
        RAISE EXCEPTION USING ERRCODE = 'EF021', MESSAGE = 'The row that says which store this is does not have its checksum. '
            'Keep a copy of the database as it is, check the server''s disk, and restore a backup.';
    END IF;
    IF pg_is_in_recovery() OR current_setting('transaction_read_only') = 'on' THEN
        RETURN;
    END IF;
    BEGIN
        here := (SELECT system_identifier FROM pg_control_system()) || '/' || left(pg_walfile_name(pg_current_wal_lsn()), 8)
            || '/' || 'store'::regclass::oid;
    EXCEPTION WHEN insufficient_privilege OR undefined_function THEN
        RETURN; -- some hosted servers do not tell; the event id in every cursor still does
    END;
    IF here IS DISTINCT FROM there THEN
        UPDATE store s SET epoch = s.epoch + CASE WHEN s.place IS NULL THEN 0 ELSE 1 END, place = here
            WHERE s.place IS DISTINCT FROM here;
        SELECT s.epoch INTO epoch FROM store s;
    END IF;
END
$body$;

-- Begins a new epoch: events may have been lost in a way that `attach` cannot see (a recovery to a point in time).
CREATE OR REPLACE FUNCTION {schema}.begin_epoch(OUT epoch bigint)
LANGUAGE sql SET search_path = pg_catalog, {schema}, pg_temp AS $body$
    UPDATE store SET epoch = epoch + 1 RETURNING epoch
$body$;

-- The probes of a binary search for the last position whose time is at most `moment`: recorded time never decreases
-- along the log, so that no index is needed (27 probes at a hundred million events). The caller verifies the probed
-- events and takes the result from them; a position without an event is the last probe.
CREATE OR REPLACE FUNCTION {schema}.position_at(moment bigint, OUT head bigint, OUT probes bigint[])
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, {schema}, pg_temp SET enable_seqscan = off AS $body$
DECLARE
    low bigint := 0;
    high bigint := coalesce((SELECT position FROM event ORDER BY position DESC LIMIT 1), 0);
    middle bigint;
    found bigint;
BEGIN
    head := high;
    probes := '{}';
    WHILE low < high LOOP
        middle := (low + high + 1) / 2;
        probes := probes || middle;
        found := (SELECT time FROM event WHERE position = middle);
        EXIT WHEN found IS NULL;
        IF found <= moment THEN
            low := middle;
        ELSE
            high := middle - 1;
        END IF;
    END LOOP;
END
$body$;
