-- Appends. One call is one transaction: lock, judge, assign positions, write, notify.
--
-- READ COMMITTED only. The advisory lock is a statement of its own, and it is held until the commit is visible:
-- every statement after it sees everything that was committed before. Positions are the head + 1, + 2 …
-- under that lock: no gaps, and in commit order. The store's owner owns it: writers may call it,
-- and need no rights on the tables.
--
-- `layout` is the one that the caller writes: a process of an older version may not write after an upgrade. The other
-- arguments are one array per column of the events (NULL where every event has the default), then
--   owners, offsets, sizes   per event: which request (from 1), its number in it (from 0), that request's size;
--                            NULL where every request is one event
--   keys                     per request
--   c_requests, c_afters, c_groups   per clause of a condition: its request, after, and which group of events of
--                            this same call match it (NULL: none)
--   i_clauses, i_afters, i_tags, i_types   per item of a clause's query; tags and types joined by newlines
--   m_requests, m_groups, m_offsets  per event of this call that matches a clause: its request, group, number
--   c_follows                per clause: the number (from 1) of an event of this call behind which it begins; 0: an event
--                            that does not exist; NULL where it begins behind its own `after`
--   careful                  look the ids up first (otherwise a known id fails on the unique index)
--   early                    judge the log's present events before taking the lock, and only later ones under it
--   furthest                 the greatest of c_afters
--   brought                  "name code" of every read model that the caller folds within appends (see inlined in tables.sql)
--   patience                 ms to wait for the lock, where the session's own lock_timeout cannot be set (poolers)
--
-- Returns the position before the first event written, its time, and, unless everything was written, arrays
-- per request: outcomes (0 written, 1 repeated, 2 conflict, 3 id reused, 4 clause in the future,
-- 5 clause behind an event that does not exist, 6 an inline projection that the caller lacks handles events of this
-- call, so that nothing of it was written); places
-- (first position; for 2 the position found, for 3 the position of the id, for 4 the head); whats (for 2, 4 and 5
-- the clause, for 3 the event's number in the call).

CREATE OR REPLACE FUNCTION {schema}.append(
    layout integer, ids uuid[], types text[], datas bytea[], tags text[], crcs integer[],
    versions integer[] DEFAULT NULL, occurreds bigint[] DEFAULT NULL, metadatas bytea[] DEFAULT NULL, codecs text[] DEFAULT NULL, keyids text[] DEFAULT NULL,
    owners integer[] DEFAULT NULL, offsets integer[] DEFAULT NULL, sizes integer[] DEFAULT NULL, keys text[] DEFAULT NULL,
    c_requests integer[] DEFAULT NULL, c_afters bigint[] DEFAULT NULL, c_groups integer[] DEFAULT NULL,
    i_clauses integer[] DEFAULT NULL, i_afters bigint[] DEFAULT NULL, i_tags text[] DEFAULT NULL, i_types text[] DEFAULT NULL,
    m_requests integer[] DEFAULT NULL, m_groups integer[] DEFAULT NULL, m_offsets integer[] DEFAULT NULL,
    careful boolean DEFAULT false, early boolean DEFAULT false, patience integer DEFAULT NULL, furthest bigint DEFAULT NULL,
    c_follows integer[] DEFAULT NULL, brought text[] DEFAULT NULL,
    OUT head bigint, OUT moment bigint, OUT outcomes integer[], OUT places bigint[], OUT whats integer[], OUT folded text[]
)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, {schema}, pg_temp
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off
AS $body$
#variable_conflict use_variable
DECLARE
    seen bigint := 0;
    founds bigint[];
    found_more bigint[];
    positions bigint[];
    lacking boolean := false;
    damaged boolean;
    n integer := cardinality(ids);
BEGIN
    IF layout <> {layout} THEN
        RAISE EXCEPTION USING ERRCODE = 'EF020',
            MESSAGE = 'The store has layout {layout}, and this process writes ' || layout || '. Restart it with the newer eventfold.';
    END IF;
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION USING ERRCODE = 'EF003', MESSAGE = 'An append cannot be judged in a transaction of isolation level '
            || current_setting('transaction_isolation') || '. Use READ COMMITTED for the transaction that the append joins.';
    END IF;
    IF current_setting('synchronous_commit') IN ('off', 'local', 'remote_write')
       AND current_setting('eventfold.unsafe', true) IS DISTINCT FROM 'on' THEN
        PERFORM set_config('synchronous_commit', 'on', true); -- a default from the database or role, never ours
    END IF;

    IF early AND i_clauses IS NOT NULL THEN -- NULL: every clause begins behind an event of this call
        seen := coalesce((SELECT e.position FROM event e ORDER BY e.position DESC LIMIT 1), 0);
        founds := judge(i_clauses, i_afters, i_tags, i_types, cardinality(c_requests), 0, seen);
    END IF;

    IF patience IS NOT NULL THEN
        PERFORM set_config('lock_timeout', patience::text, true);
    END IF;
    -- Waiting writers are not overtaken: the attempt fails while others wait.
    IF NOT pg_try_advisory_xact_lock({lock}) THEN
        PERFORM pg_advisory_xact_lock({lock});
    END IF;
    SELECT e.position, e.time INTO head, moment FROM event e ORDER BY e.position DESC LIMIT 1;
    head := coalesce(head, 0);
    moment := greatest((extract(epoch FROM clock_timestamp()) * 1000000)::bigint, coalesce(moment, 0));

    IF i_clauses IS NOT NULL THEN
        found_more := judge(i_clauses, i_afters, i_tags, i_types, cardinality(c_requests), seen, 9223372036854775807);
        IF founds IS NULL THEN
            founds := found_more;
        ELSIF found_more IS NOT NULL THEN
            SELECT array_agg(coalesce(a, b) ORDER BY o) INTO founds
                FROM unnest(founds, found_more) WITH ORDINALITY u(a, b, o);
        END IF;
    END IF;

    IF EXISTS (SELECT FROM inlined) THEN
        SELECT array_agg(i.line), bool_or(i.types && types AND NOT coalesce(i.name || ' ' || i.code = ANY (brought), false)),
               bool_or(checksum(i.line) <> i.crc)
            INTO folded, lacking, damaged
            FROM (SELECT *, concat_ws(E'\n', r.name, r.code, r.ticket, array_to_string(r.types, E'\n')) AS line FROM inlined r) i;
        IF damaged THEN
            RAISE EXCEPTION USING ERRCODE = 'EF021', MESSAGE = 'A registration of a read model that every append folds does not '
                'have its checksum. Nothing was written: check the server''s disk, and restore a backup.';
        END IF;
        careful := careful OR lacking; -- a repeated append is recognised even if this caller could not make it any more
    END IF;

    IF careful OR keys IS NOT NULL OR founds IS NOT NULL OR m_requests IS NOT NULL OR c_follows IS NOT NULL OR head < furthest THEN
        SELECT d.outcomes, d.places, d.whats, d.positions INTO outcomes, places, whats, positions
            FROM decide(ids, types, datas, tags, versions, occurreds, metadatas, codecs, keyids, owners, offsets, sizes,
                        keys, c_requests, c_afters, c_groups, c_follows, m_requests, m_groups, m_offsets, founds, careful, head) d;
    END IF;

    IF lacking THEN
        outcomes := ARRAY(SELECT CASE WHEN o.outcome = 0 THEN 6 ELSE o.outcome END FROM unnest(outcomes) WITH ORDINALITY o(outcome, at) ORDER BY o.at);
        positions := array_fill(NULL::bigint, ARRAY[n]);
    END IF;

    IF n = 1 THEN -- the lone event, without the cost of taking arrays apart
        IF positions IS NULL OR positions[1] IS NOT NULL THEN
            INSERT INTO event (position, time, occurred, version, "offset", size, id, type, codec, tags, key, data, metadata, checksum)
                              VALUES (head + 1, moment, occurreds[1], coalesce(versions[1], 1), 0, 1, ids[1], types[1],
                                      coalesce(codecs[1], 'json'), tags[1], keyids[1], datas[1], metadatas[1],
                                      crcs[1] # placed(head + 1, moment, 0, 1));
            IF tags[1] <> '' THEN
                INSERT INTO tag (tag, position, type) SELECT t, head + 1, types[1] FROM unnest(string_to_array(tags[1], E'\n')) t;
            END IF;
        END IF;
    ELSE
        WITH written AS (
            INSERT INTO event (position, time, occurred, version, "offset", size, id, type, codec, tags, key, data, metadata, checksum)
            SELECT coalesce(u.place, head + u.o), moment, u.occurred, coalesce(u.version, 1), coalesce(u."offset", 0),
                   coalesce(u.size, 1), u.id, u.type, coalesce(u.codec, 'json'), u.tags, u.key, u.data, u.metadata,
                   u.crc # placed(coalesce(u.place, head + u.o), moment, coalesce(u."offset", 0), coalesce(u.size, 1))
            FROM unnest(ids, types, datas, tags, crcs, versions, occurreds, metadatas, codecs, keyids, offsets, sizes, positions)
                 WITH ORDINALITY u(id, type, data, tags, crc, version, occurred, metadata, codec, key, "offset", size, place, o)
            WHERE positions IS NULL OR u.place IS NOT NULL
            RETURNING event.position, event.tags, event.type
        )
        INSERT INTO tag (tag, position, type) SELECT t, w.position, w.type FROM written w, unnest(string_to_array(w.tags, E'\n')) t;
    END IF;

    IF keys IS NOT NULL THEN -- then `decide` has filled outcomes and places
        INSERT INTO request (key, first, size, crc)
        SELECT w.key, w.first, w.size, checksum(concat_ws(E'\n', w.key, w.first, w.size)) FROM (
            SELECT k.key, places[k.o], coalesce((SELECT v.size FROM unnest(owners, sizes) v(owner, size) WHERE v.owner = k.o LIMIT 1), 1)
            FROM unnest(keys) WITH ORDINALITY k(key, o) WHERE k.key IS NOT NULL
                -- a repeat that was recognised by its ids claims its key
                AND (outcomes[k.o] = 0 OR outcomes[k.o] = 1 AND whats[k.o] > 0)) w(key, first, size);
    END IF;

    -- A listener holds this lock shared. If it can be taken, no process listens; a listener that begins now waits
    -- for it until this transaction is committed, and then reads the head.
    IF (outcomes IS NULL OR 0 = ANY (outcomes)) AND NOT pg_try_advisory_xact_lock({listening}) THEN
        PERFORM pg_notify({channel}, (head + CASE WHEN positions IS NULL THEN n
            ELSE cardinality(array_remove(positions, NULL)) END)::text);
    END IF;
END
$body$;

-- For each clause the first position after `after`, above `low` and up to `high`, of an event that matches it;
-- NULL if no clause found one. Every branch is a b-tree probe that ends at its first hit.
CREATE OR REPLACE FUNCTION {schema}.judge(
    i_clauses integer[], i_afters bigint[], i_tags text[], i_types text[], clauses integer, low bigint, high bigint
) RETURNS bigint[]
LANGUAGE plpgsql
SET search_path = pg_catalog, {schema}, pg_temp
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off
AS $body$
DECLARE
    found bigint;
    founds bigint[];
    clause integer;
    since bigint;
    every text[];
    of_types text[];
    together boolean := cardinality(i_clauses) > 2;
    many boolean := cardinality(i_clauses) > 64;
BEGIN
    IF together THEN -- many items of the usual kind, one tag, in one statement
        FOR clause, found IN
            SELECT u.clause, f.position
            FROM unnest(i_clauses, i_afters, i_tags, i_types) u(clause, after, tag, types) CROSS JOIN LATERAL (
                SELECT t.position FROM tag t WHERE t.tag = u.tag AND t.position > greatest(u.after, low)
                    AND (u.types = '' OR t.type = ANY (string_to_array(u.types, E'\n')))
                ORDER BY t.position LIMIT 1) f
            WHERE u.tag <> '' AND strpos(u.tag, E'\n') = 0 AND f.position <= high
        LOOP
            founds := coalesce(founds, array_fill(NULL::bigint, ARRAY[clauses]));
            founds[clause] := least(founds[clause], found);
        END LOOP;
    END IF;
    IF many THEN -- so many that the other kinds are not looped over either: several tags (the first is walked), and types
        FOR clause, found IN
            SELECT u.clause, f.position
            FROM unnest(i_clauses, i_afters, i_tags, i_types) u(clause, after, tags, types)
            CROSS JOIN LATERAL (SELECT string_to_array(u.tags, E'\n') AS tags, string_to_array(u.types, E'\n') AS types OFFSET 0) k
            CROSS JOIN LATERAL (
                SELECT t.position FROM tag t WHERE t.tag = k.tags[1] AND t.position > greatest(u.after, low)
                    AND (u.types = '' OR t.type = ANY (k.types))
                    AND cardinality(k.tags) - 1 = (SELECT count((
                            SELECT o.position FROM tag o WHERE o.tag = g AND o.position = t.position
                        )) FROM unnest(k.tags[2:]) g)
                ORDER BY t.position LIMIT 1) f
            WHERE strpos(u.tags, E'\n') > 0 AND f.position <= high
            UNION ALL
            SELECT u.clause, f.position
            FROM unnest(i_clauses, i_afters, i_tags, i_types) u(clause, after, tags, types)
            CROSS JOIN LATERAL unnest(string_to_array(u.types, E'\n')) g CROSS JOIN LATERAL (
                SELECT e.position FROM event e WHERE e.type = g AND e.position > greatest(u.after, low)
                ORDER BY e.position LIMIT 1) f
            WHERE u.tags = '' AND u.types <> '' AND f.position <= high
        LOOP
            founds := coalesce(founds, array_fill(NULL::bigint, ARRAY[clauses]));
            founds[clause] := least(founds[clause], found);
        END LOOP;
    END IF;
    FOR i IN 1 .. coalesce(cardinality(i_clauses), 0) LOOP
        CONTINUE WHEN together AND i_tags[i] <> '' AND strpos(i_tags[i], E'\n') = 0;
        CONTINUE WHEN many AND (i_tags[i] <> '' OR i_types[i] <> '');
        since := greatest(i_afters[i], low);
        IF i_types[i] <> '' THEN
            of_types := string_to_array(i_types[i], E'\n');
        END IF;
        IF i_tags[i] = '' AND i_types[i] = '' THEN
            SELECT e.position INTO found FROM event e WHERE e.position > since ORDER BY e.position LIMIT 1;
        ELSIF i_tags[i] = '' THEN
            SELECT min(f.position) INTO found FROM unnest(of_types) t CROSS JOIN LATERAL (
                SELECT e.position FROM event e WHERE e.type = t AND e.position > since ORDER BY e.position LIMIT 1) f;
        ELSIF strpos(i_tags[i], E'\n') = 0 THEN
            IF i_types[i] = '' THEN
                SELECT t.position INTO found FROM tag t WHERE t.tag = i_tags[i] AND t.position > since
                    ORDER BY t.position LIMIT 1;
            ELSE
                SELECT t.position INTO found FROM tag t WHERE t.tag = i_tags[i] AND t.position > since
                    AND t.type = ANY (of_types) ORDER BY t.position LIMIT 1;
            END IF;
        ELSE
            -- Several tags: scan the rarest in this range (counted up to 1,000), probe the others.
            every := string_to_array(i_tags[i], E'\n');
            SELECT t.position INTO found FROM tag t
                WHERE t.tag = (SELECT g FROM unnest(every) g ORDER BY (
                        SELECT count(*) FROM (SELECT FROM tag r WHERE r.tag = g AND r.position > since LIMIT 1000) few
                    ) LIMIT 1)
                AND t.position > since AND (i_types[i] = '' OR t.type = ANY (of_types))
                AND cardinality(every) = (SELECT count((
                        SELECT o.position FROM tag o WHERE o.tag = g AND o.position = t.position
                    )) FROM unnest(every) g)
                ORDER BY t.position LIMIT 1;
        END IF;
        IF found <= high THEN
            clause := i_clauses[i];
            founds := coalesce(founds, array_fill(NULL::bigint, ARRAY[clauses]));
            founds[clause] := least(founds[clause], found);
        END IF;
    END LOOP;
    RETURN founds;
END
$body$;

-- The outcome of each request, and the position of each event (NULL: none). Only called if something may be refused:
-- a known key or id, a clause that found an event or lies in the future, requests that match each other's conditions.
CREATE OR REPLACE FUNCTION {schema}.decide(
    ids uuid[], types text[], datas bytea[], tags text[],
    versions integer[], occurreds bigint[], metadatas bytea[], codecs text[], keyids text[],
    owners integer[], offsets integer[], sizes integer[], keys text[],
    c_requests integer[], c_afters bigint[], c_groups integer[], c_follows integer[],
    m_requests integer[], m_groups integer[], m_offsets integer[],
    founds bigint[], careful boolean, head bigint,
    OUT outcomes integer[], OUT places bigint[], OUT whats integer[], OUT positions bigint[]
)
LANGUAGE plpgsql
SET search_path = pg_catalog, {schema}, pg_temp
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off
AS $body$
#variable_conflict use_variable
DECLARE
    n integer := cardinality(ids);
    requests integer := coalesce(owners[n], n);
    running bigint := head;
    size integer;
    e integer := 1;
    c integer := 1;
    m integer := 1;
    firsts bigint[] := '{}'; -- per group: the first of this call's events in it, and the last
    lasts bigint[] := '{}';
    stands bigint[]; -- per event: where its id stands in the log already
    since bigint;
    at bigint;
    f integer;
    known record;
BEGIN
    outcomes := array_fill(0, ARRAY[requests]);
    places := array_fill(NULL::bigint, ARRAY[requests]);
    whats := array_fill(NULL::integer, ARRAY[requests]);

    -- Known ids: the very same append again, or ids that were used for something else.
    IF careful OR c_afters IS NOT NULL THEN
        FOR known IN
            SELECT coalesce(u.owner, u.o) AS request, min(u.o)::integer AS what, min(s.position) AS place,
                   count(*) = max(coalesce(u.size, 1)) AND min(s.position - coalesce(u."offset", 0)) = max(s.position - coalesce(u."offset", 0))
                   AND bool_and(s."offset" = coalesce(u."offset", 0) AND s.size = coalesce(u.size, 1) AND s.type = u.type
                       AND s.data = u.data AND s.tags = u.tags AND s.version = coalesce(u.version, 1)
                       AND s.occurred IS NOT DISTINCT FROM u.occurred AND s.metadata IS NOT DISTINCT FROM u.metadata
                       AND s.codec = coalesce(u.codec, 'json') AND s.key IS NOT DISTINCT FROM u.key) AS same,
                   (array_agg(s.position ORDER BY u.o))[1] AS stands,
                   array_agg(u.o::integer) AS numbers, array_agg(s.position) AS there
            FROM unnest(ids, types, datas, tags, versions, occurreds, metadatas, codecs, keyids, owners, offsets, sizes)
                 WITH ORDINALITY u(id, type, data, tags, version, occurred, metadata, codec, key, owner, "offset", size, o)
            JOIN event s ON s.id = u.id GROUP BY 1
        LOOP
            outcomes[known.request] := CASE WHEN known.same THEN 1 ELSE 3 END;
            places[known.request] := CASE WHEN known.same THEN known.place ELSE known.stands END;
            whats[known.request] := known.what;
            IF c_follows IS NOT NULL THEN
                FOR i IN 1 .. cardinality(known.numbers) LOOP
                    stands[known.numbers[i]] := known.there[i];
                END LOOP;
            END IF;
        END LOOP;
    END IF;

    -- Known keys, which take precedence.
    IF keys IS NOT NULL THEN
        FOR known IN SELECT k.o AS request, r.first, checksum(concat_ws(E'\n', r.key, r.first, r.size)) <> r.crc AS damaged
                FROM unnest(keys) WITH ORDINALITY k(key, o) JOIN request r ON r.key = k.key LOOP
            IF known.damaged THEN
                RAISE EXCEPTION USING ERRCODE = 'EF021', MESSAGE = format('The request key %s does not have its checksum. '
                    'Nothing was written: check the server''s disk, and restore a backup.', keys[known.request]);
            END IF;
            outcomes[known.request] := 1;
            places[known.request] := known.first;
            whats[known.request] := 0;
        END LOOP;
    END IF;

    positions := array_fill(NULL::bigint, ARRAY[n]);
    FOR r IN 1 .. requests LOOP
        size := coalesce(sizes[e], 1);
        -- Conditions, in order: against the log, then against the earlier requests of this call.
        WHILE c_requests[c] = r LOOP
            IF outcomes[r] = 0 THEN
                since := c_afters[c];
                f := c_follows[c];
                IF stands[f] IS NOT NULL THEN
                    -- The call has no items for this clause, and other writers' events may follow that event.
                    RAISE EXCEPTION USING ERRCODE = 'EF010', MESSAGE = 'An event of this call that a condition begins '
                        'behind is in the log already. Look up where it stands and append again.';
                END IF;
                IF f IS NOT NULL THEN
                    since := greatest(since, positions[f]);
                END IF;
                at := coalesce(founds[c], firsts[c_groups[c]]);
                IF at <= since THEN -- it looked further than the head, at events of this very call
                    at := CASE WHEN lasts[c_groups[c]] > since THEN (
                           SELECT min(places[x.request] + x.number)
                           FROM unnest(m_requests, m_groups, m_offsets) x(request, "group", number)
                           WHERE x."group" = c_groups[c] AND x.request < r AND outcomes[x.request] = 0
                           AND places[x.request] + x.number > since) END;
                END IF;
                IF c_afters[c] > running THEN
                    outcomes[r] := 4;
                    places[r] := running;
                    whats[r] := c;
                ELSIF f IS NOT NULL AND positions[f] IS NULL THEN
                    outcomes[r] := 5;
                    whats[r] := c;
                ELSIF at IS NOT NULL THEN
                    outcomes[r] := 2;
                    places[r] := at;
                    whats[r] := c;
                END IF;
            END IF;
            c := c + 1;
        END LOOP;
        WHILE m_requests[m] = r LOOP
            IF outcomes[r] = 0 THEN
                at := running + 1 + m_offsets[m];
                firsts[m_groups[m]] := coalesce(firsts[m_groups[m]], at);
                lasts[m_groups[m]] := at;
            END IF;
            m := m + 1;
        END LOOP;
        IF outcomes[r] = 0 THEN
            places[r] := running + 1;
            FOR i IN 0 .. size - 1 LOOP
                positions[e + i] := running + 1 + i;
            END LOOP;
            running := running + size;
        END IF;
        e := e + size;
    END LOOP;
END
$body$;
