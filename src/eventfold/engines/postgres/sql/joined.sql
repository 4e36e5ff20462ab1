-- Room: appends that commit with their user's own transaction. They are kept aside until its COMMIT and get
-- their positions there, so that a joined transaction that dawdles holds up no other writer.

CREATE OR REPLACE FUNCTION {schema}.stage(
    layout integer, store text,
    ids uuid[], types text[], datas bytea[], tags text[], crcs integer[],
    versions integer[] DEFAULT NULL, occurreds bigint[] DEFAULT NULL, metadatas bytea[] DEFAULT NULL, codecs text[] DEFAULT NULL, keyids text[] DEFAULT NULL,
    owners integer[] DEFAULT NULL, offsets integer[] DEFAULT NULL, sizes integer[] DEFAULT NULL, keys text[] DEFAULT NULL,
    c_requests integer[] DEFAULT NULL, c_afters bigint[] DEFAULT NULL, c_groups integer[] DEFAULT NULL,
    i_clauses integer[] DEFAULT NULL, i_afters bigint[] DEFAULT NULL, i_tags text[] DEFAULT NULL, i_types text[] DEFAULT NULL,
    m_requests integer[] DEFAULT NULL, m_groups integer[] DEFAULT NULL, m_offsets integer[] DEFAULT NULL, words text[] DEFAULT NULL,
    OUT epoch bigint
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
                        c_requests, c_afters, c_groups, i_clauses, i_afters, i_tags, i_types, m_requests, m_groups, m_offsets, words)
    VALUES (ids, types, datas, tags, crcs, versions, occurreds, metadatas, codecs, keyids, owners, offsets, sizes, keys,
            c_requests, c_afters, c_groups, i_clauses, i_afters, i_tags, i_types, m_requests, m_groups, m_offsets, words);
END
$body$;

-- Read models that are folded within appends are folded by whoever appends: at a COMMIT it is too late for that.
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

-- At COMMIT: the append itself. A refusal aborts the whole transaction, the user's rows with it. DETAIL is for
-- programs: the outcome, its place, its clause or event, and what the clause looked up to.
CREATE OR REPLACE FUNCTION {schema}.append_staged() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, {schema}, pg_temp AS $body$
DECLARE
    done record;
    what integer;
    facts text;
BEGIN
    DELETE FROM staged WHERE id = NEW.id;
    SELECT * INTO done FROM append(
        {layout}, NEW.ids, NEW.types, NEW.datas, NEW.tags, NEW.crcs, NEW.versions, NEW.occurreds, NEW.metadatas, NEW.codecs, NEW.keyids,
        NEW.owners, NEW.offsets, NEW.sizes, NEW.keys, NEW.c_requests, NEW.c_afters, NEW.c_groups,
        NEW.i_clauses, NEW.i_afters, NEW.i_tags, NEW.i_types, NEW.m_requests, NEW.m_groups, NEW.m_offsets, true, false, NULL, NULL);
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
