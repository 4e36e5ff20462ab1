-- Room: what a session asks first, and the few questions that are cheaper beside the data.

-- Which store this is. Another cluster or timeline than last time means that history may have been lost
-- (a restored backup, a failover): the epoch grows, once.
CREATE OR REPLACE FUNCTION {schema}.attach(OUT id text, OUT epoch bigint, OUT layout integer)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, {schema}, pg_temp AS $body$
DECLARE
    here text;
    there text;
BEGIN
    SELECT s.id, s.epoch, s.layout, s.place INTO id, epoch, layout, there FROM store s;
    IF pg_is_in_recovery() OR current_setting('transaction_read_only') = 'on' THEN
        RETURN;
    END IF;
    BEGIN
        here := (SELECT system_identifier FROM pg_control_system()) || '/' || left(pg_walfile_name(pg_current_wal_lsn()), 8);
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

-- The last position whose time is at most `moment`: recorded time never decreases along the log, so a
-- search by halves needs no index of its own (27 probes at a hundred million events).
CREATE OR REPLACE FUNCTION {schema}.position_at(moment bigint) RETURNS bigint
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, {schema}, pg_temp SET enable_seqscan = off AS $body$
DECLARE
    low bigint := 0;
    high bigint := coalesce((SELECT position FROM event ORDER BY position DESC LIMIT 1), 0);
    middle bigint;
BEGIN
    WHILE low < high LOOP
        middle := (low + high + 1) / 2;
        IF (SELECT time FROM event WHERE position >= middle ORDER BY position LIMIT 1) <= moment THEN
            low := middle;
        ELSE
            high := middle - 1;
        END IF;
    END LOOP;
    RETURN low;
END
$body$;
