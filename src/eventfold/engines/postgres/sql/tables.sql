-- The tables. {schema} is the store's own PostgreSQL schema; the reasons are in
-- docs/explanation/decisions/0012-postgres-layout.md. Names compare as bytes (COLLATE "C"), payloads are bytes.

CREATE TABLE {schema}.store (
    one     boolean PRIMARY KEY DEFAULT true CHECK (one),
    id      text    NOT NULL,
    epoch   bigint  NOT NULL DEFAULT 1,
    layout  integer NOT NULL,
    -- The cluster, timeline and table that these events were written in: another one means a restored backup or a
    -- failover.
    place   text,
    created timestamptz NOT NULL DEFAULT now(),
    -- The last event whose checksum does not include its position: those of layout 1.
    unplaced bigint NOT NULL DEFAULT 0,
    crc      integer NOT NULL -- of the columns above but `created` (trigger `store_checksum`)
);
COMMENT ON TABLE {schema}.store IS 'eventfold: one row, what this store is';

CREATE TABLE {schema}.event (
    position bigint PRIMARY KEY,
    time     bigint NOT NULL,
    occurred bigint,
    version  integer NOT NULL,
    "offset" integer NOT NULL,
    size     integer NOT NULL,
    id       uuid NOT NULL,
    type     text COLLATE "C" NOT NULL,
    codec    text COLLATE "C" NOT NULL,
    tags     text COLLATE "C" NOT NULL,
    key      text COLLATE "C",
    data     bytea NOT NULL,
    metadata bytea,
    -- CRC-32 of what the writer chose (checksums.py), combined with the position (function `placed`), to notice bytes
    -- that have changed on a disk without checksums.
    checksum integer NOT NULL
);
CREATE UNIQUE INDEX event_id ON {schema}.event (id);
CREATE INDEX event_type ON {schema}.event (type, position);
COMMENT ON TABLE {schema}.event IS 'eventfold: the log. time and occurred in microseconds since 1970 UTC';

CREATE TABLE {schema}.tag (
    tag      text COLLATE "C",
    position bigint,
    type     text COLLATE "C" NOT NULL,
    CONSTRAINT tag_position PRIMARY KEY (tag, position) INCLUDE (type)
);
COMMENT ON TABLE {schema}.tag IS 'eventfold: which events carry a tag; every condition is answered from its index alone';

CREATE TABLE {schema}.request (
    key   text COLLATE "C" PRIMARY KEY,
    first bigint NOT NULL,
    size  integer NOT NULL,
    crc   integer -- of the columns above (function `checksum`); NULL in rows of layout 1
);
COMMENT ON TABLE {schema}.request IS 'eventfold: request keys and the append made under each';

CREATE TABLE {schema}.sealed (
    first  bigint PRIMARY KEY,
    last   bigint NOT NULL CHECK (last >= first),
    digest text NOT NULL,
    kept   text NOT NULL,
    sealed timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE {schema}.sealed IS 'eventfold: ranges kept elsewhere; none can be yet, so that nothing may be deleted';

CREATE TABLE {schema}.snapshot (
    key         text COLLATE "C" PRIMARY KEY,
    fingerprint text NOT NULL,
    position    bigint NOT NULL,
    event       bytea NOT NULL,
    state       bytea NOT NULL,
    crc         integer NOT NULL -- CRC-32 of the store's id and the columns above (checksums.py)
);
COMMENT ON TABLE {schema}.snapshot IS 'eventfold: folded states kept for speed; never a source of truth';

CREATE TABLE {schema}.inlined (
    name   text COLLATE "C" PRIMARY KEY,
    code   text NOT NULL,
    types  text[] NOT NULL,
    ticket text NOT NULL,
    crc    integer NOT NULL -- of the columns above (function `checksum`)
);
COMMENT ON TABLE {schema}.inlined IS 'eventfold: read models folded within every append; who lacks the code writes no event of these types';

-- What joined transactions append at their COMMIT. Rows never outlive the transaction that wrote them: no other
-- transaction sees one, and they need no WAL.
CREATE UNLOGGED TABLE {schema}.staged (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    ids        uuid[] NOT NULL,
    types      text[] NOT NULL,
    datas      bytea[] NOT NULL,
    tags       text[] NOT NULL,
    crcs       integer[] NOT NULL,
    versions   integer[],
    occurreds  bigint[],
    metadatas  bytea[],
    codecs     text[],
    keyids     text[],
    owners     integer[],
    offsets    integer[],
    sizes      integer[],
    keys       text[],
    c_requests integer[],
    c_afters   bigint[],
    c_groups   integer[],
    i_clauses  integer[],
    i_afters   bigint[],
    i_tags     text[],
    i_types    text[],
    m_requests integer[],
    m_groups   integer[],
    m_offsets  integer[],
    words      text[],
    seen       uuid[] -- events of this transaction that the decision knew, staged before it
);
COMMENT ON TABLE {schema}.staged IS 'eventfold: appends of open joined transactions; always empty to everyone else';
