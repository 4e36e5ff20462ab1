-- Appends that commit with a transaction of the user's. They are staged until its COMMIT and get their positions
-- there, so that a slow transaction blocks no other writer.

CREATE OR REPLACE FUNCTION {schema}.stage(
    layout integer, store text,
    ids uuid[], types text[], datas bytea[], tags text[], crcs integer[],
    versions integer[] DEFAULT NULL, occurreds bigint[] DEFAULT NULL, metadatas bytea[] DEFAULT NULL, codecs text[] DEFAULT NULL, keyids text[] DEFAULT NULL,
    owners integer[] DEFAULT NULL, offsets integer[] DEFAULT NULL, sizes integer[] DEFAULT NULL, keys text[] DEFAULT NULL,
    c_requests integer[] DEFAULT NULL, c_afters bigint[] DEFAULT NULL, c_groups integer[] DEFAULT NULL,
    i_clauses integer[] DEFAULT NULL, i_afters bigint[] DEFAULT NULL, i_tags text[] DEFAULT NULL, i_types text[] DEFAULT NULL,
    m_requests integer[] DEFAULT NULL, m_groups integer[] DEFAULT NULL, m_offsets integer[] DEFAULT NULL, words text[] DEFAULT NULL,
    seen uuid[] DEFAULT NULL, OUT epoch bigint
)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, {schema}, pg_temp AS $body$
#variable_conflict use_variable
BEGIN
    IF layout <> {layout} THEN
        RAISE EXCEPTION USING ERRCODE = 'EF020',
            MESSAGE = 'The store has layout {layout}, and this process writes ' || layout || '. Restart it with the newer eventfold.';
    END IF;
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
                        c_requests, c_afters, c_groups, i_clauses, i_afters, i_tags, i_types, m_requests, m_groups, m_offsets, words, seen)
    VALUES (ids, types, datas, tags, crcs, versions, occurreds, metadatas, codecs, keyids, owners, offsets, sizes, keys,
            c_requests, c_afters, c_groups, i_clauses, i_afters, i_tags, i_types, m_requests, m_groups, m_offsets, words, seen);
END
$body$;

-- The head of the log before the first event that this transaction has written; NULL: it has written none yet. Only
-- events of this transaction follow, since it holds the writers' lock from then on.
CREATE OR REPLACE FUNCTION {schema}.joined_behind() RETURNS bigint
LANGUAGE sql STABLE SET search_path = pg_catalog, {schema}, pg_temp AS $body$
    SELECT nullif(current_setting('eventfold.joined_' || 'staged'::regclass::oid, true), '')::bigint
$body$;

-- The events that this transaction will write, or has written (after SET CONSTRAINTS IMMEDIATE), in order, each with its
-- append's key: of the appends that have one of these types (NULL: any), and of the one under this key. Position 0: none yet.
CREATE OR REPLACE FUNCTION {schema}.staged_events(of_types text[], of_key text)
RETURNS TABLE ("position" bigint, id bytea, type text, version integer, data bytea, tags text, occurred bigint, metadata bytea,
               "offset" integer, size integer, codec text, keyid text, key text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, {schema}, pg_temp AS $body$
    (SELECT e.position, uuid_send(e.id), e.type, e.version, e.data, e.tags, e.occurred, e.metadata, e."offset", e.size, e.codec, e.key, NULL
     FROM event e WHERE e.position > joined_behind() ORDER BY e.position)
    UNION ALL
    (SELECT 0, uuid_send(u.id), u.type, coalesce(u.version, 1), u.data, u.tags, u.occurred, u.metadata, coalesce(u."offset", 0),
            coalesce(u.size, 1), coalesce(u.codec, 'json'), u.keyid, s.keys[coalesce(u.owner, u.o)]
     FROM staged s CROSS JOIN LATERAL unnest(s.ids, s.types, s.datas, s.tags, s.versions, s.occurreds, s.metadatas, s.codecs, s.keyids,
         s.owners, s.offsets, s.sizes) WITH ORDINALITY u(id, type, data, tags, version, occurred, metadata, codec, keyid, owner, "offset", size, o)
     WHERE of_types IS NULL OR s.types && of_types OR of_key = ANY (s.keys) ORDER BY s.id, u.o)
$body$;

-- Inline projections are folded by the process that appends: at a COMMIT it is too late for that.
CREATE OR REPLACE FUNCTION {schema}.refuse_inlined(types text[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, {schema}, pg_temp AS $body$
#variable_conflict use_variable
DECLARE
    found record;
BEGIN
    FOR found IN SELECT i.name, t.type FROM inlined i, unnest(i.types) t(type) WHERE t.type = ANY (types) ORDER BY 1, 2 LIMIT 1 LOOP
        RAISE EXCEPTION USING ERRCODE = 'EF008', DETAIL = json_build_object('name', found.name, 'type', found.type)::text,
            MESSAGE = format('%s is kept within every append of %s. Append it in a transaction of its own.', found.name, found.type);
    END LOOP;
END
$body$;

-- At COMMIT: the append itself. A refusal aborts the whole transaction, with the user's rows. DETAIL is for programs:
-- the outcome, its position, its clause or event, and the position up to which the clause was judged.
CREATE OR REPLACE FUNCTION {schema}.append_staged() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, {schema}, pg_temp AS $body$
DECLARE
    done record;
    what integer;
    facts text;
    began bigint := joined_behind();
    through bigint;
    c_afters bigint[] := NEW.c_afters;
    i_afters bigint[] := NEW.i_afters;
    founds bigint[];
BEGIN
    DELETE FROM staged WHERE id = NEW.id;
    -- Events of this transaction that the decision has seen are no conflict; other writers' events, and later ones of
    -- this transaction, are.
    IF NEW.seen IS NOT NULL AND began IS NOT NULL AND i_afters IS NOT NULL THEN
        SELECT max(e.position) INTO through FROM event e WHERE e.id = ANY (NEW.seen) AND e.position > began;
        IF through IS NOT NULL THEN
            founds := judge(NEW.i_clauses, i_afters, NEW.i_tags, NEW.i_types, cardinality(NEW.c_requests), 0, began);
            c_afters := ARRAY(SELECT greatest(u.a, through) FROM unnest(c_afters) WITH ORDINALITY u(a, o) ORDER BY u.o);
            i_afters := ARRAY(SELECT greatest(u.a, through) FROM unnest(i_afters) WITH ORDINALITY u(a, o) ORDER BY u.o);
        END IF;
    END IF;
    SELECT * INTO done FROM append(
        {layout}, NEW.ids, NEW.types, NEW.datas, NEW.tags, NEW.crcs, NEW.versions, NEW.occurreds, NEW.metadatas, NEW.codecs, NEW.keyids,
        NEW.owners, NEW.offsets, NEW.sizes, NEW.keys, NEW.c_requests, c_afters, NEW.c_groups,
        NEW.i_clauses, i_afters, NEW.i_tags, NEW.i_types, NEW.m_requests, NEW.m_groups, NEW.m_offsets, true, false, NULL, NULL);
    IF began IS NULL THEN
        PERFORM set_config('eventfold.joined_' || 'staged'::regclass::oid, done.head::text, true);
    END IF;
    FOR c IN 1 .. coalesce(cardinality(founds), 0) LOOP
        IF founds[c] IS NOT NULL AND coalesce(done.outcomes[NEW.c_requests[c]], 0) = 0 THEN
            facts := json_build_object('outcome', 2, 'place', founds[c], 'what', c,
                                       'clause', c - 1 - (SELECT count(*) FROM unnest(NEW.c_requests) u(owner) WHERE u.owner < NEW.c_requests[c]),
                                       'after', NEW.c_afters[c], 'query', NEW.words[c])::text;
            RAISE EXCEPTION USING ERRCODE = 'EF001', DETAIL = facts, MESSAGE = format(
                'An event matching %s was written at position %s, after position %s. Read again and decide again.',
                NEW.words[c], founds[c], NEW.c_afters[c]);
        END IF;
    END LOOP;
    FOR r IN 1 .. coalesce(cardinality(done.outcomes), 0) LOOP
        what := done.whats[r];
        IF done.outcomes[r] > 1 THEN
            facts := json_build_object('outcome', done.outcomes[r], 'place', done.places[r], 'what', what,
                                       'clause', what - 1 - (SELECT count(*) FROM unnest(NEW.c_requests) u(owner) WHERE u.owner < r),
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
$body$;

DROP TRIGGER IF EXISTS append_at_commit ON {schema}.staged;
CREATE CONSTRAINT TRIGGER append_at_commit AFTER INSERT ON {schema}.staged
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION {schema}.append_staged();
