--
-- PostgreSQL database dump
--


-- Dumped from database version 15.18 (Debian 15.18-0+deb12u1)
-- Dumped by pg_dump version 15.18 (Debian 15.18-0+deb12u1)

SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;

--
-- Name: eventfold_kept; Type: SCHEMA; Schema: -; Owner: -
--

CREATE SCHEMA eventfold_kept;


--
-- Name: adopt(bigint, bigint[], uuid[], text[], bytea[], text[], integer[], integer[], bigint[], bytea[], text[], text[], integer[], integer[], text[], bigint[]); Type: FUNCTION; Schema: eventfold_kept; Owner: -
--

CREATE FUNCTION eventfold_kept.adopt(first bigint, moments bigint[], ids uuid[], types text[], datas bytea[], tags text[], crcs integer[], versions integer[], occurreds bigint[], metadatas bytea[], codecs text[], keyids text[], offsets integer[], sizes integer[], keys text[], firsts bigint[]) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'eventfold_kept', 'pg_temp'
    AS $$
#variable_conflict use_variable
DECLARE
    head bigint;
    names text;
BEGIN
    PERFORM pg_advisory_xact_lock(1701212012, -1748273926);
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
            INSERT INTO event (position, time, occurred, version, "offset", size, id, type, codec, tags, key, data, metadata, crc)
            SELECT first + u.o - 1, u.moment, u.occurred, coalesce(u.version, 1), u."offset", u.size, u.id, u.type,
                   coalesce(u.codec, 'json'), u.tags, u.key, u.data, u.metadata, u.crc
            FROM unnest(moments, ids, types, datas, tags, crcs, versions, occurreds, metadatas, codecs, keyids, offsets, sizes)
                 WITH ORDINALITY u(moment, id, type, data, tags, crc, version, occurred, metadata, codec, key, "offset", size, o)
            RETURNING event.position, event.tags, event.type
        )
        INSERT INTO tag (tag, position, type) SELECT t, w.position, w.type FROM written w, unnest(string_to_array(w.tags, E'\n')) t;
    END IF;
    INSERT INTO request (key, first, size)
        SELECT k.key, k.first, e.size FROM unnest(keys, firsts) k(key, first) JOIN event e ON e.position = k.first;
    PERFORM pg_notify('eventfold_kept', coalesce(first + cardinality(ids) - 1, 0)::text);
END
$$;


--
-- Name: append(uuid[], text[], bytea[], text[], integer[], integer[], bigint[], bytea[], text[], text[], integer[], integer[], integer[], text[], integer[], bigint[], integer[], integer[], bigint[], text[], text[], integer[], integer[], integer[], boolean, boolean, integer, bigint, integer[], text[]); Type: FUNCTION; Schema: eventfold_kept; Owner: -
--

CREATE FUNCTION eventfold_kept.append(ids uuid[], types text[], datas bytea[], tags text[], crcs integer[], versions integer[] DEFAULT NULL::integer[], occurreds bigint[] DEFAULT NULL::bigint[], metadatas bytea[] DEFAULT NULL::bytea[], codecs text[] DEFAULT NULL::text[], keyids text[] DEFAULT NULL::text[], owners integer[] DEFAULT NULL::integer[], offsets integer[] DEFAULT NULL::integer[], sizes integer[] DEFAULT NULL::integer[], keys text[] DEFAULT NULL::text[], c_requests integer[] DEFAULT NULL::integer[], c_afters bigint[] DEFAULT NULL::bigint[], c_groups integer[] DEFAULT NULL::integer[], i_clauses integer[] DEFAULT NULL::integer[], i_afters bigint[] DEFAULT NULL::bigint[], i_tags text[] DEFAULT NULL::text[], i_types text[] DEFAULT NULL::text[], m_requests integer[] DEFAULT NULL::integer[], m_groups integer[] DEFAULT NULL::integer[], m_offsets integer[] DEFAULT NULL::integer[], careful boolean DEFAULT false, early boolean DEFAULT false, patience integer DEFAULT NULL::integer, furthest bigint DEFAULT NULL::bigint, c_follows integer[] DEFAULT NULL::integer[], brought text[] DEFAULT NULL::text[], OUT head bigint, OUT moment bigint, OUT outcomes integer[], OUT places bigint[], OUT whats integer[], OUT folded text[]) RETURNS record
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'eventfold_kept', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    AS $$
#variable_conflict use_variable
DECLARE
    seen bigint := 0;
    founds bigint[];
    found_more bigint[];
    positions bigint[];
    lacking boolean := false;
    n integer := cardinality(ids);
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION USING ERRCODE = 'EF003', MESSAGE = 'An append cannot be judged in a transaction of isolation level '
            || current_setting('transaction_isolation') || '. Use READ COMMITTED for the transaction that the append joins.';
    END IF;
    IF current_setting('synchronous_commit') IN ('off', 'local', 'remote_write')
       AND current_setting('eventfold.unsafe', true) IS DISTINCT FROM 'on' THEN
        PERFORM set_config('synchronous_commit', 'on', true); -- a default from the database or role, never ours
    END IF;

    IF early THEN
        seen := coalesce((SELECT e.position FROM event e ORDER BY e.position DESC LIMIT 1), 0);
        founds := judge(i_clauses, i_afters, i_tags, i_types, cardinality(c_requests), 0, seen);
    END IF;

    IF patience IS NOT NULL THEN
        PERFORM set_config('lock_timeout', patience::text, true);
    END IF;
    -- Whoever waits is not overtaken: the attempt fails where others wait already.
    IF NOT pg_try_advisory_xact_lock(1701212012, -1748273926) THEN
        PERFORM pg_advisory_xact_lock(1701212012, -1748273926);
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
        SELECT array_agg(concat_ws(E'\n', i.name, i.code, i.ticket, array_to_string(i.types, E'\n'))),
               bool_or(i.types && types AND NOT coalesce(i.name || ' ' || i.code = ANY (brought), false))
            INTO folded, lacking FROM inlined i;
        careful := careful OR lacking; -- whoever repeats an append is told so even where it could not be made any more
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
            INSERT INTO event (position, time, occurred, version, "offset", size, id, type, codec, tags, key, data, metadata, crc)
                              VALUES (head + 1, moment, occurreds[1], coalesce(versions[1], 1), 0, 1, ids[1], types[1],
                                      coalesce(codecs[1], 'json'), tags[1], keyids[1], datas[1], metadatas[1], crcs[1]);
            IF tags[1] <> '' THEN
                INSERT INTO tag (tag, position, type) SELECT t, head + 1, types[1] FROM unnest(string_to_array(tags[1], E'\n')) t;
            END IF;
        END IF;
    ELSE
        WITH written AS (
            INSERT INTO event (position, time, occurred, version, "offset", size, id, type, codec, tags, key, data, metadata, crc)
            SELECT coalesce(u.place, head + u.o), moment, u.occurred, coalesce(u.version, 1), coalesce(u."offset", 0),
                   coalesce(u.size, 1), u.id, u.type, coalesce(u.codec, 'json'), u.tags, u.key, u.data, u.metadata, u.crc
            FROM unnest(ids, types, datas, tags, crcs, versions, occurreds, metadatas, codecs, keyids, offsets, sizes, positions)
                 WITH ORDINALITY u(id, type, data, tags, crc, version, occurred, metadata, codec, key, "offset", size, place, o)
            WHERE positions IS NULL OR u.place IS NOT NULL
            RETURNING event.position, event.tags, event.type
        )
        INSERT INTO tag (tag, position, type) SELECT t, w.position, w.type FROM written w, unnest(string_to_array(w.tags, E'\n')) t;
    END IF;

    IF keys IS NOT NULL THEN -- then `decide` has filled outcomes and places
        INSERT INTO request (key, first, size)
        SELECT k.key, places[k.o], coalesce((SELECT v.size FROM unnest(owners, sizes) v(owner, size) WHERE v.owner = k.o LIMIT 1), 1)
        FROM unnest(keys) WITH ORDINALITY k(key, o) WHERE k.key IS NOT NULL AND outcomes[k.o] = 0;
    END IF;

    -- A listener holds the other side of this lock: where it can be had, nobody listens, and whoever comes now
    -- waits for it until this is committed, and then looks for himself.
    IF (outcomes IS NULL OR 0 = ANY (outcomes)) AND NOT pg_try_advisory_xact_lock(1701212013, -1748273926) THEN
        PERFORM pg_notify('eventfold_kept', (head + CASE WHEN positions IS NULL THEN n
            ELSE cardinality(array_remove(positions, NULL)) END)::text);
    END IF;
END
$$;


--
-- Name: append_staged(); Type: FUNCTION; Schema: eventfold_kept; Owner: -
--

CREATE FUNCTION eventfold_kept.append_staged() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'eventfold_kept', 'pg_temp'
    AS $$
DECLARE
    done record;
    what integer;
    facts text;
BEGIN
    DELETE FROM staged WHERE id = NEW.id;
    SELECT * INTO done FROM append(
        NEW.ids, NEW.types, NEW.datas, NEW.tags, NEW.crcs, NEW.versions, NEW.occurreds, NEW.metadatas, NEW.codecs, NEW.keyids,
        NEW.owners, NEW.offsets, NEW.sizes, NEW.keys, NEW.c_requests, NEW.c_afters, NEW.c_groups,
        NEW.i_clauses, NEW.i_afters, NEW.i_tags, NEW.i_types, NEW.m_requests, NEW.m_groups, NEW.m_offsets, true, false, NULL, NULL);
    FOR r IN 1 .. coalesce(cardinality(done.outcomes), 0) LOOP
        what := done.whats[r];
        IF done.outcomes[r] > 1 THEN
            facts := json_build_object('outcome', done.outcomes[r], 'place', done.places[r], 'what', what,
                                       'after', NEW.c_afters[what], 'query', NEW.words[what])::text;
        END IF;
        IF done.outcomes[r] = 2 THEN
            RAISE EXCEPTION USING ERRCODE = 'EF001', DETAIL = facts, MESSAGE = format(
                'An event matching %s was written at position %s, after position %s. Read again and decide again.',
                NEW.words[what], done.places[r], NEW.c_afters[what]);
        ELSIF done.outcomes[r] = 3 THEN
            RAISE EXCEPTION USING ERRCODE = 'EF002', DETAIL = facts, MESSAGE = format(
                'Event id %s is in the log already, at position %s, and this append is not the one that wrote it. '
                'Repeat an append unchanged, or give new events new ids.', NEW.ids[what], done.places[r]);
        ELSIF done.outcomes[r] = 6 THEN
            PERFORM refuse_inlined(NEW.types);
        ELSIF done.outcomes[r] = 4 THEN
            RAISE EXCEPTION USING ERRCODE = 'EF006', DETAIL = facts, MESSAGE = format(
                'A condition looked up to position %s, and the log ends at %s. Use a position that this store has given.',
                NEW.c_afters[what], done.places[r]);
        END IF;
    END LOOP;
    RETURN NULL;
END
$$;


--
-- Name: attach(); Type: FUNCTION; Schema: eventfold_kept; Owner: -
--

CREATE FUNCTION eventfold_kept.attach(OUT id text, OUT epoch bigint, OUT layout integer) RETURNS record
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'eventfold_kept', 'pg_temp'
    AS $$
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
$$;


--
-- Name: decide(uuid[], text[], bytea[], text[], integer[], bigint[], bytea[], text[], text[], integer[], integer[], integer[], text[], integer[], bigint[], integer[], integer[], integer[], integer[], integer[], bigint[], boolean, bigint); Type: FUNCTION; Schema: eventfold_kept; Owner: -
--

CREATE FUNCTION eventfold_kept.decide(ids uuid[], types text[], datas bytea[], tags text[], versions integer[], occurreds bigint[], metadatas bytea[], codecs text[], keyids text[], owners integer[], offsets integer[], sizes integer[], keys text[], c_requests integer[], c_afters bigint[], c_groups integer[], c_follows integer[], m_requests integer[], m_groups integer[], m_offsets integer[], founds bigint[], careful boolean, head bigint, OUT outcomes integer[], OUT places bigint[], OUT whats integer[], OUT positions bigint[]) RETURNS record
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'eventfold_kept', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    AS $$
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
    since bigint;
    at bigint;
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
                   (array_agg(s.position ORDER BY u.o))[1] AS stands
            FROM unnest(ids, types, datas, tags, versions, occurreds, metadatas, codecs, keyids, owners, offsets, sizes)
                 WITH ORDINALITY u(id, type, data, tags, version, occurred, metadata, codec, key, owner, "offset", size, o)
            JOIN event s ON s.id = u.id GROUP BY 1
        LOOP
            outcomes[known.request] := CASE WHEN known.same THEN 1 ELSE 3 END;
            places[known.request] := CASE WHEN known.same THEN known.place ELSE known.stands END;
            whats[known.request] := known.what;
        END LOOP;
    END IF;

    -- Known keys, which go before everything else.
    IF keys IS NOT NULL THEN
        FOR known IN SELECT k.o AS request, r.first FROM unnest(keys) WITH ORDINALITY k(key, o) JOIN request r ON r.key = k.key LOOP
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
                IF c_follows[c] IS NOT NULL THEN
                    since := greatest(since, positions[c_follows[c]]);
                END IF;
                at := coalesce(founds[c], firsts[c_groups[c]]);
                IF at <= since THEN -- it looked further than the head, at events of this very call
                    at := CASE WHEN lasts[c_groups[c]] > since THEN (
                           SELECT min(places[x.request] + x.number)
                           FROM unnest(m_requests, m_groups, m_offsets) x(request, "group", number)
                           WHERE x."group" = c_groups[c] AND x.request < r AND outcomes[x.request] = 0
                           AND places[x.request] + x.number > since) END;
                END IF;
                IF c_follows[c] IS NOT NULL AND positions[c_follows[c]] IS NULL THEN
                    outcomes[r] := 5;
                    whats[r] := c;
                ELSIF c_afters[c] > running THEN
                    outcomes[r] := 4;
                    places[r] := running;
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
$$;


--
-- Name: judge(integer[], bigint[], text[], text[], integer, bigint, bigint); Type: FUNCTION; Schema: eventfold_kept; Owner: -
--

CREATE FUNCTION eventfold_kept.judge(i_clauses integer[], i_afters bigint[], i_tags text[], i_types text[], clauses integer, low bigint, high bigint) RETURNS bigint[]
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'eventfold_kept', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    AS $$
DECLARE
    found bigint;
    founds bigint[];
    clause integer;
    since bigint;
    every text[];
    of_types text[];
    together boolean := cardinality(i_clauses) > 2;
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
    FOR i IN 1 .. cardinality(i_clauses) LOOP
        CONTINUE WHEN together AND i_tags[i] <> '' AND strpos(i_tags[i], E'\n') = 0;
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
            -- Several tags: walk the rarest in this stretch (counted up to 1,000), probe the others.
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
$$;


--
-- Name: position_at(bigint); Type: FUNCTION; Schema: eventfold_kept; Owner: -
--

CREATE FUNCTION eventfold_kept.position_at(moment bigint) RETURNS bigint
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'eventfold_kept', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
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
$$;


--
-- Name: refuse(); Type: FUNCTION; Schema: eventfold_kept; Owner: -
--

CREATE FUNCTION eventfold_kept.refuse() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    RAISE EXCEPTION USING ERRCODE = 'EF005',
        MESSAGE = format('%s of %I.%I was refused: the log is immutable. Append an event that corrects the earlier one.',
                         TG_OP, TG_TABLE_SCHEMA, TG_TABLE_NAME);
END
$$;


--
-- Name: refuse_inlined(text[]); Type: FUNCTION; Schema: eventfold_kept; Owner: -
--

CREATE FUNCTION eventfold_kept.refuse_inlined(types text[]) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'eventfold_kept', 'pg_temp'
    AS $$
#variable_conflict use_variable
DECLARE
    found record;
BEGIN
    FOR found IN SELECT i.name, t.type FROM inlined i, unnest(i.types) t(type) WHERE t.type = ANY (types) ORDER BY 1, 2 LIMIT 1 LOOP
        RAISE EXCEPTION USING ERRCODE = 'EF008', DETAIL = json_build_object('name', found.name, 'type', found.type)::text,
            MESSAGE = format('%s is kept within every append of %s. Append it in a transaction of its own.', found.name, found.type);
    END LOOP;
END
$$;


--
-- Name: refuse_unsealed(); Type: FUNCTION; Schema: eventfold_kept; Owner: -
--

CREATE FUNCTION eventfold_kept.refuse_unsealed() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'eventfold_kept', 'pg_temp'
    AS $$
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
$$;


--
-- Name: stage(text, uuid[], text[], bytea[], text[], integer[], integer[], bigint[], bytea[], text[], text[], integer[], integer[], integer[], text[], integer[], bigint[], integer[], integer[], bigint[], text[], text[], integer[], integer[], integer[], text[]); Type: FUNCTION; Schema: eventfold_kept; Owner: -
--

CREATE FUNCTION eventfold_kept.stage(store text, ids uuid[], types text[], datas bytea[], tags text[], crcs integer[], versions integer[] DEFAULT NULL::integer[], occurreds bigint[] DEFAULT NULL::bigint[], metadatas bytea[] DEFAULT NULL::bytea[], codecs text[] DEFAULT NULL::text[], keyids text[] DEFAULT NULL::text[], owners integer[] DEFAULT NULL::integer[], offsets integer[] DEFAULT NULL::integer[], sizes integer[] DEFAULT NULL::integer[], keys text[] DEFAULT NULL::text[], c_requests integer[] DEFAULT NULL::integer[], c_afters bigint[] DEFAULT NULL::bigint[], c_groups integer[] DEFAULT NULL::integer[], i_clauses integer[] DEFAULT NULL::integer[], i_afters bigint[] DEFAULT NULL::bigint[], i_tags text[] DEFAULT NULL::text[], i_types text[] DEFAULT NULL::text[], m_requests integer[] DEFAULT NULL::integer[], m_groups integer[] DEFAULT NULL::integer[], m_offsets integer[] DEFAULT NULL::integer[], words text[] DEFAULT NULL::text[], OUT epoch bigint) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'eventfold_kept', 'pg_temp'
    AS $$
#variable_conflict use_variable
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION USING ERRCODE = 'EF003', MESSAGE = 'An append cannot be judged in a transaction of isolation level '
            || current_setting('transaction_isolation') || '. Use READ COMMITTED for the transaction that the append joins.';
    END IF;
    PERFORM refuse_inlined(types);
    SELECT s.epoch INTO epoch FROM store s WHERE s.id = store;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'EF004', MESSAGE =
            'The connection leads to another store than the one opened. Pass a connection to the same database.';
    END IF;
    INSERT INTO staged (ids, types, datas, tags, crcs, versions, occurreds, metadatas, codecs, keyids, owners, offsets, sizes, keys,
                        c_requests, c_afters, c_groups, i_clauses, i_afters, i_tags, i_types, m_requests, m_groups, m_offsets, words)
    VALUES (ids, types, datas, tags, crcs, versions, occurreds, metadatas, codecs, keyids, owners, offsets, sizes, keys,
            c_requests, c_afters, c_groups, i_clauses, i_afters, i_tags, i_types, m_requests, m_groups, m_offsets, words);
END
$$;


--
-- Name: succeed(text, bigint); Type: FUNCTION; Schema: eventfold_kept; Owner: -
--

CREATE FUNCTION eventfold_kept.succeed(store_id text, store_epoch bigint) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'eventfold_kept', 'pg_temp'
    AS $$
DECLARE
    head bigint;
    names text;
BEGIN
    PERFORM pg_advisory_xact_lock(1701212012, -1748273926);
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
$$;


SET default_tablespace = '';

SET default_table_access_method = heap;

--
-- Name: event; Type: TABLE; Schema: eventfold_kept; Owner: -
--

CREATE TABLE eventfold_kept.event (
    "position" bigint NOT NULL,
    "time" bigint NOT NULL,
    occurred bigint,
    version integer NOT NULL,
    "offset" integer NOT NULL,
    size integer NOT NULL,
    id uuid NOT NULL,
    type text NOT NULL COLLATE pg_catalog."C",
    codec text NOT NULL COLLATE pg_catalog."C",
    tags text NOT NULL COLLATE pg_catalog."C",
    key text COLLATE pg_catalog."C",
    data bytea NOT NULL,
    metadata bytea,
    crc integer NOT NULL
);


--
-- Name: TABLE event; Type: COMMENT; Schema: eventfold_kept; Owner: -
--

COMMENT ON TABLE eventfold_kept.event IS 'eventfold: the log. time and occurred in microseconds since 1970 UTC';


--
-- Name: inlined; Type: TABLE; Schema: eventfold_kept; Owner: -
--

CREATE TABLE eventfold_kept.inlined (
    name text NOT NULL COLLATE pg_catalog."C",
    code text NOT NULL,
    types text[] NOT NULL,
    ticket text NOT NULL
);


--
-- Name: TABLE inlined; Type: COMMENT; Schema: eventfold_kept; Owner: -
--

COMMENT ON TABLE eventfold_kept.inlined IS 'eventfold: read models folded within every append; who lacks the code writes no event of these types';


--
-- Name: request; Type: TABLE; Schema: eventfold_kept; Owner: -
--

CREATE TABLE eventfold_kept.request (
    key text NOT NULL COLLATE pg_catalog."C",
    first bigint NOT NULL,
    size integer NOT NULL
);


--
-- Name: TABLE request; Type: COMMENT; Schema: eventfold_kept; Owner: -
--

COMMENT ON TABLE eventfold_kept.request IS 'eventfold: request keys and the append made under each';


--
-- Name: sealed; Type: TABLE; Schema: eventfold_kept; Owner: -
--

CREATE TABLE eventfold_kept.sealed (
    first bigint NOT NULL,
    last bigint NOT NULL,
    digest text NOT NULL,
    kept text NOT NULL,
    sealed timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT sealed_check CHECK ((last >= first))
);


--
-- Name: TABLE sealed; Type: COMMENT; Schema: eventfold_kept; Owner: -
--

COMMENT ON TABLE eventfold_kept.sealed IS 'eventfold: ranges verified and kept elsewhere; only these may ever be deleted here';


--
-- Name: snapshot; Type: TABLE; Schema: eventfold_kept; Owner: -
--

CREATE TABLE eventfold_kept.snapshot (
    key text NOT NULL COLLATE pg_catalog."C",
    fingerprint text NOT NULL,
    "position" bigint NOT NULL,
    event bytea NOT NULL,
    state bytea NOT NULL
);


--
-- Name: TABLE snapshot; Type: COMMENT; Schema: eventfold_kept; Owner: -
--

COMMENT ON TABLE eventfold_kept.snapshot IS 'eventfold: folded states kept for speed; never a source of truth';


--
-- Name: staged; Type: TABLE; Schema: eventfold_kept; Owner: -
--

CREATE UNLOGGED TABLE eventfold_kept.staged (
    id bigint NOT NULL,
    ids uuid[] NOT NULL,
    types text[] NOT NULL,
    datas bytea[] NOT NULL,
    tags text[] NOT NULL,
    crcs integer[] NOT NULL,
    versions integer[],
    occurreds bigint[],
    metadatas bytea[],
    codecs text[],
    keyids text[],
    owners integer[],
    offsets integer[],
    sizes integer[],
    keys text[],
    c_requests integer[],
    c_afters bigint[],
    c_groups integer[],
    i_clauses integer[],
    i_afters bigint[],
    i_tags text[],
    i_types text[],
    m_requests integer[],
    m_groups integer[],
    m_offsets integer[],
    words text[]
);


--
-- Name: TABLE staged; Type: COMMENT; Schema: eventfold_kept; Owner: -
--

COMMENT ON TABLE eventfold_kept.staged IS 'eventfold: appends of open joined transactions; always empty to everyone else';


--
-- Name: staged_id_seq; Type: SEQUENCE; Schema: eventfold_kept; Owner: -
--

ALTER TABLE eventfold_kept.staged ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME eventfold_kept.staged_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);


--
-- Name: store; Type: TABLE; Schema: eventfold_kept; Owner: -
--

CREATE TABLE eventfold_kept.store (
    one boolean DEFAULT true NOT NULL,
    id text NOT NULL,
    epoch bigint DEFAULT 1 NOT NULL,
    layout integer NOT NULL,
    place text,
    created timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT store_one_check CHECK (one)
);


--
-- Name: TABLE store; Type: COMMENT; Schema: eventfold_kept; Owner: -
--

COMMENT ON TABLE eventfold_kept.store IS 'eventfold: one row, what this store is';


--
-- Name: tag; Type: TABLE; Schema: eventfold_kept; Owner: -
--

CREATE TABLE eventfold_kept.tag (
    tag text NOT NULL COLLATE pg_catalog."C",
    "position" bigint NOT NULL,
    type text NOT NULL COLLATE pg_catalog."C"
);


--
-- Name: TABLE tag; Type: COMMENT; Schema: eventfold_kept; Owner: -
--

COMMENT ON TABLE eventfold_kept.tag IS 'eventfold: which events carry a tag; every condition is answered from its index alone';


--
-- Data for Name: event; Type: TABLE DATA; Schema: eventfold_kept; Owner: -
--

INSERT INTO eventfold_kept.event VALUES (1, 1795870534249450, NULL, 1, 0, 1, '01a22239-aa67-7dda-bd45-0202f14f778b', 'Opened', 'json', 'account:a-1', NULL, '\x7b22616d6f756e74223a317d', NULL, 230258765);
INSERT INTO eventfold_kept.event VALUES (2, 1795870534278940, NULL, 1, 0, 1, '01a22239-aa86-7512-87e5-c40f31989bc9', 'Deposited', 'json', 'account:a-1', NULL, '\x7b22616d6f756e74223a34307d', NULL, 631304103);
INSERT INTO eventfold_kept.event VALUES (3, 1795870534281664, NULL, 1, 0, 3, '01a22239-aa87-7e6f-881f-8831ccc27c9c', 'Withdrawn', 'json', 'account:a-1
transfer:t-1', NULL, '\x7b22616d6f756e74223a317d', NULL, -1737606832);
INSERT INTO eventfold_kept.event VALUES (4, 1795870534281664, NULL, 1, 1, 3, '01a22239-aa87-7e90-899e-4d6a8b49c530', 'Deposited', 'json', 'account:a-2
transfer:t-1', NULL, '\x7b22616d6f756e74223a317d', NULL, -1586224948);
INSERT INTO eventfold_kept.event VALUES (5, 1795870534281664, 1700000000000000, 3, 2, 3, '01a22239-aa87-7e9e-99e2-6b574f3d4a33', 'Noted', 'json', '', NULL, '\x7b22616d6f756e74223a317d', '\x7b226163746f72223a22657665227d', 923561380);
INSERT INTO eventfold_kept.event VALUES (6, 1795870534285053, NULL, 1, 0, 1, '01a22239-aa8c-741c-95b8-d2375f1a5a5b', 'Noted', 'json', 'text:ä ✓', NULL, '\x7b2274657874223a22c3a4205c753030303020f09f82a1227d', NULL, 979237335);
INSERT INTO eventfold_kept.event VALUES (7, 1795870534286972, NULL, 1, 0, 1, '01a22239-aa8d-7d9b-a116-6da839523b88', 'Sealed', 'aes', 'account:a-1', 'k-1', '\x00ff01', NULL, 914809175);
INSERT INTO eventfold_kept.event VALUES (8, 1795870534287804, NULL, 1, 0, 1, '01a22239-aa8f-784c-bd67-887d396063cb', 'Deposited', 'json', 'account:a-0', NULL, '\x7b22616d6f756e74223a317d', NULL, 686063768);
INSERT INTO eventfold_kept.event VALUES (9, 1795870534292242, NULL, 1, 0, 1, '01a22239-aa93-7e32-b575-533ce4e45255', 'Deposited', 'json', 'account:a-1', NULL, '\x7b22616d6f756e74223a317d', NULL, -1344039407);
INSERT INTO eventfold_kept.event VALUES (10, 1795870534293873, NULL, 1, 0, 1, '01a22239-aa95-794a-9fdb-c08706ca0468', 'Deposited', 'json', 'account:a-2', NULL, '\x7b22616d6f756e74223a317d', NULL, -186147445);
INSERT INTO eventfold_kept.event VALUES (11, 1795870534295115, NULL, 1, 0, 1, '01a22239-aa96-7e05-a2b0-a73ac99d23ca', 'Deposited', 'json', 'account:a-0', NULL, '\x7b22616d6f756e74223a317d', NULL, -13219574);
INSERT INTO eventfold_kept.event VALUES (12, 1795870534300136, NULL, 1, 0, 1, '01a22239-aa97-7a2f-9cd4-02e1ed97b178', 'Deposited', 'json', 'account:a-1', NULL, '\x7b22616d6f756e74223a317d', NULL, 1362179152);


--
-- Data for Name: inlined; Type: TABLE DATA; Schema: eventfold_kept; Owner: -
--

INSERT INTO eventfold_kept.inlined VALUES ('balance', 'c0de', '{Archived,Restored}', 't1');


--
-- Data for Name: request; Type: TABLE DATA; Schema: eventfold_kept; Owner: -
--

INSERT INTO eventfold_kept.request VALUES ('open a-1', 1, 1);
INSERT INTO eventfold_kept.request VALUES ('transfer t-1', 3, 3);


--
-- Data for Name: sealed; Type: TABLE DATA; Schema: eventfold_kept; Owner: -
--



--
-- Data for Name: snapshot; Type: TABLE DATA; Schema: eventfold_kept; Owner: -
--

INSERT INTO eventfold_kept.snapshot VALUES ('app.Account [1]', 'ffffffff', 12, '\x01a22239aa977a2f9cd402e1ed97b178', '\x7b22746f74616c223a34367d');


--
-- Data for Name: staged; Type: TABLE DATA; Schema: eventfold_kept; Owner: -
--



--
-- Data for Name: store; Type: TABLE DATA; Schema: eventfold_kept; Owner: -
--

INSERT INTO eventfold_kept.store VALUES (true, 'ba64592bdd48d931544c15e62d73df32', 1, 1, '7713205205431803106/00000001', '2026-11-28 12:55:34.138152+00');


--
-- Data for Name: tag; Type: TABLE DATA; Schema: eventfold_kept; Owner: -
--

INSERT INTO eventfold_kept.tag VALUES ('account:a-1', 1, 'Opened');
INSERT INTO eventfold_kept.tag VALUES ('account:a-1', 2, 'Deposited');
INSERT INTO eventfold_kept.tag VALUES ('account:a-1', 3, 'Withdrawn');
INSERT INTO eventfold_kept.tag VALUES ('transfer:t-1', 3, 'Withdrawn');
INSERT INTO eventfold_kept.tag VALUES ('account:a-2', 4, 'Deposited');
INSERT INTO eventfold_kept.tag VALUES ('transfer:t-1', 4, 'Deposited');
INSERT INTO eventfold_kept.tag VALUES ('text:ä ✓', 6, 'Noted');
INSERT INTO eventfold_kept.tag VALUES ('account:a-1', 7, 'Sealed');
INSERT INTO eventfold_kept.tag VALUES ('account:a-0', 8, 'Deposited');
INSERT INTO eventfold_kept.tag VALUES ('account:a-1', 9, 'Deposited');
INSERT INTO eventfold_kept.tag VALUES ('account:a-2', 10, 'Deposited');
INSERT INTO eventfold_kept.tag VALUES ('account:a-0', 11, 'Deposited');
INSERT INTO eventfold_kept.tag VALUES ('account:a-1', 12, 'Deposited');


--
-- Name: staged_id_seq; Type: SEQUENCE SET; Schema: eventfold_kept; Owner: -
--

SELECT pg_catalog.setval('eventfold_kept.staged_id_seq', 1, false);


--
-- Name: event event_pkey; Type: CONSTRAINT; Schema: eventfold_kept; Owner: -
--

ALTER TABLE ONLY eventfold_kept.event
    ADD CONSTRAINT event_pkey PRIMARY KEY ("position");


--
-- Name: inlined inlined_pkey; Type: CONSTRAINT; Schema: eventfold_kept; Owner: -
--

ALTER TABLE ONLY eventfold_kept.inlined
    ADD CONSTRAINT inlined_pkey PRIMARY KEY (name);


--
-- Name: request request_pkey; Type: CONSTRAINT; Schema: eventfold_kept; Owner: -
--

ALTER TABLE ONLY eventfold_kept.request
    ADD CONSTRAINT request_pkey PRIMARY KEY (key);


--
-- Name: sealed sealed_pkey; Type: CONSTRAINT; Schema: eventfold_kept; Owner: -
--

ALTER TABLE ONLY eventfold_kept.sealed
    ADD CONSTRAINT sealed_pkey PRIMARY KEY (first);


--
-- Name: snapshot snapshot_pkey; Type: CONSTRAINT; Schema: eventfold_kept; Owner: -
--

ALTER TABLE ONLY eventfold_kept.snapshot
    ADD CONSTRAINT snapshot_pkey PRIMARY KEY (key);


--
-- Name: staged staged_pkey; Type: CONSTRAINT; Schema: eventfold_kept; Owner: -
--

ALTER TABLE ONLY eventfold_kept.staged
    ADD CONSTRAINT staged_pkey PRIMARY KEY (id);


--
-- Name: store store_pkey; Type: CONSTRAINT; Schema: eventfold_kept; Owner: -
--

ALTER TABLE ONLY eventfold_kept.store
    ADD CONSTRAINT store_pkey PRIMARY KEY (one);


--
-- Name: tag tag_position; Type: CONSTRAINT; Schema: eventfold_kept; Owner: -
--

ALTER TABLE ONLY eventfold_kept.tag
    ADD CONSTRAINT tag_position PRIMARY KEY (tag, "position") INCLUDE (type);


--
-- Name: event_id; Type: INDEX; Schema: eventfold_kept; Owner: -
--

CREATE UNIQUE INDEX event_id ON eventfold_kept.event USING btree (id);


--
-- Name: event_type; Type: INDEX; Schema: eventfold_kept; Owner: -
--

CREATE INDEX event_type ON eventfold_kept.event USING btree (type, "position");


--
-- Name: staged append_at_commit; Type: TRIGGER; Schema: eventfold_kept; Owner: -
--

CREATE CONSTRAINT TRIGGER append_at_commit AFTER INSERT ON eventfold_kept.staged DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION eventfold_kept.append_staged();


--
-- Name: event no_delete; Type: TRIGGER; Schema: eventfold_kept; Owner: -
--

CREATE TRIGGER no_delete BEFORE DELETE ON eventfold_kept.event FOR EACH ROW EXECUTE FUNCTION eventfold_kept.refuse_unsealed();

ALTER TABLE eventfold_kept.event ENABLE ALWAYS TRIGGER no_delete;


--
-- Name: request no_delete; Type: TRIGGER; Schema: eventfold_kept; Owner: -
--

CREATE TRIGGER no_delete BEFORE DELETE ON eventfold_kept.request FOR EACH ROW EXECUTE FUNCTION eventfold_kept.refuse_unsealed();

ALTER TABLE eventfold_kept.request ENABLE ALWAYS TRIGGER no_delete;


--
-- Name: tag no_delete; Type: TRIGGER; Schema: eventfold_kept; Owner: -
--

CREATE TRIGGER no_delete BEFORE DELETE ON eventfold_kept.tag FOR EACH ROW EXECUTE FUNCTION eventfold_kept.refuse_unsealed();

ALTER TABLE eventfold_kept.tag ENABLE ALWAYS TRIGGER no_delete;


--
-- Name: event no_truncate; Type: TRIGGER; Schema: eventfold_kept; Owner: -
--

CREATE TRIGGER no_truncate BEFORE TRUNCATE ON eventfold_kept.event FOR EACH STATEMENT EXECUTE FUNCTION eventfold_kept.refuse();

ALTER TABLE eventfold_kept.event ENABLE ALWAYS TRIGGER no_truncate;


--
-- Name: request no_truncate; Type: TRIGGER; Schema: eventfold_kept; Owner: -
--

CREATE TRIGGER no_truncate BEFORE TRUNCATE ON eventfold_kept.request FOR EACH STATEMENT EXECUTE FUNCTION eventfold_kept.refuse();

ALTER TABLE eventfold_kept.request ENABLE ALWAYS TRIGGER no_truncate;


--
-- Name: tag no_truncate; Type: TRIGGER; Schema: eventfold_kept; Owner: -
--

CREATE TRIGGER no_truncate BEFORE TRUNCATE ON eventfold_kept.tag FOR EACH STATEMENT EXECUTE FUNCTION eventfold_kept.refuse();

ALTER TABLE eventfold_kept.tag ENABLE ALWAYS TRIGGER no_truncate;


--
-- Name: event no_update; Type: TRIGGER; Schema: eventfold_kept; Owner: -
--

CREATE TRIGGER no_update BEFORE UPDATE ON eventfold_kept.event FOR EACH STATEMENT EXECUTE FUNCTION eventfold_kept.refuse();

ALTER TABLE eventfold_kept.event ENABLE ALWAYS TRIGGER no_update;


--
-- Name: request no_update; Type: TRIGGER; Schema: eventfold_kept; Owner: -
--

CREATE TRIGGER no_update BEFORE UPDATE ON eventfold_kept.request FOR EACH STATEMENT EXECUTE FUNCTION eventfold_kept.refuse();

ALTER TABLE eventfold_kept.request ENABLE ALWAYS TRIGGER no_update;


--
-- Name: tag no_update; Type: TRIGGER; Schema: eventfold_kept; Owner: -
--

CREATE TRIGGER no_update BEFORE UPDATE ON eventfold_kept.tag FOR EACH STATEMENT EXECUTE FUNCTION eventfold_kept.refuse();

ALTER TABLE eventfold_kept.tag ENABLE ALWAYS TRIGGER no_update;


--
-- PostgreSQL database dump complete
--


