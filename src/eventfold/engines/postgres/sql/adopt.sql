-- Imports events of another log with their positions and times. For the store's owner only: these functions trust
-- the positions and times that they are given.

CREATE OR REPLACE FUNCTION {schema}.adopt(
    layout integer, first bigint, moments bigint[], ids uuid[], types text[], datas bytea[], tags text[], crcs integer[],
    versions integer[], occurreds bigint[], metadatas bytea[], codecs text[], keyids text[],
    offsets integer[], sizes integer[], keys text[], firsts bigint[]
) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, {schema}, pg_temp AS $body$
#variable_conflict use_variable
DECLARE
    head bigint;
    names text;
BEGIN
    IF layout <> {layout} THEN
        RAISE EXCEPTION USING ERRCODE = 'EF020',
            MESSAGE = 'The store has layout {layout}, and this process writes ' || layout || '. Restart it with the newer eventfold.';
    END IF;
    PERFORM pg_advisory_xact_lock({lock});
    SELECT string_agg(i.name, E'\n' ORDER BY i.name) INTO names FROM inlined i;
    IF names IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'EF009', DETAIL = to_json(names)::text,
            MESSAGE = 'Read models are kept within every append. Give them up, copy, and name them again.';
    END IF;
    IF ids IS NOT NULL THEN
        SELECT coalesce(max(e.position), 0) INTO head FROM event e;
        IF first <> head + 1 THEN
            RAISE EXCEPTION USING ERRCODE = 'EF007', DETAIL = head::text,
                MESSAGE = 'The events do not begin right behind the head. Go on where the copy stopped.';
        END IF;
        WITH written AS (
            INSERT INTO event (position, time, occurred, version, "offset", size, id, type, codec, tags, key, data, metadata, checksum)
            SELECT first + u.o - 1, u.moment, u.occurred, coalesce(u.version, 1), u."offset", u.size, u.id, u.type,
                   coalesce(u.codec, 'json'), u.tags, u.key, u.data, u.metadata,
                   u.crc # placed(first + u.o - 1, u.moment, u."offset", u.size)
            FROM unnest(moments, ids, types, datas, tags, crcs, versions, occurreds, metadatas, codecs, keyids, offsets, sizes)
                 WITH ORDINALITY u(moment, id, type, data, tags, crc, version, occurred, metadata, codec, key, "offset", size, o)
            RETURNING event.position, event.tags, event.type
        )
        INSERT INTO tag (tag, position, type) SELECT t, w.position, w.type FROM written w, unnest(string_to_array(w.tags, E'\n')) t;
    END IF;
    INSERT INTO request (key, first, size, crc)
        SELECT k.key, k.first, e.size, checksum(concat_ws(E'\n', k.key, k.first, e.size)) FROM unnest(keys, firsts) k(key, first) JOIN event e ON e.position = k.first;
    PERFORM pg_notify({channel}, coalesce(first + cardinality(ids) - 1, 0)::text);
END
$body$;

CREATE OR REPLACE FUNCTION {schema}.succeed(layout integer, store_id text, store_epoch bigint) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, {schema}, pg_temp AS $body$
#variable_conflict use_variable
DECLARE
    head bigint;
    names text;
BEGIN
    IF layout <> {layout} THEN
        RAISE EXCEPTION USING ERRCODE = 'EF020',
            MESSAGE = 'The store has layout {layout}, and this process writes ' || layout || '. Restart it with the newer eventfold.';
    END IF;
    PERFORM pg_advisory_xact_lock({lock});
    SELECT string_agg(i.name, E'\n' ORDER BY i.name) INTO names FROM inlined i;
    IF names IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'EF009', DETAIL = to_json(names)::text,
            MESSAGE = 'Read models are kept within every append. Give them up, copy, and name them again.';
    END IF;
    SELECT coalesce(max(e.position), 0) INTO head FROM event e;
    IF head > 0 THEN
        RAISE EXCEPTION USING ERRCODE = 'EF007', DETAIL = head::text,
            MESSAGE = 'The store has events already. Copy into an empty one.';
    END IF;
    UPDATE store SET id = store_id, epoch = store_epoch;
END
$body$;
