-- Layout 2 to 3: the tables of every development version that wrote layout 2 become the same. A store of the last of
-- them has these columns already. Sessions of layout 3 share a lock while they are open (options.py).

DO $body$
BEGIN
    IF EXISTS (SELECT FROM pg_attribute WHERE attrelid = '{schema}.event'::regclass AND attname = 'crc' AND NOT attisdropped) THEN
        ALTER TABLE {schema}.event RENAME COLUMN crc TO checksum;
        ALTER TABLE {schema}.store ADD COLUMN unplaced bigint NOT NULL DEFAULT 0, ADD COLUMN crc integer NOT NULL DEFAULT 0;
        ALTER TABLE {schema}.store ALTER COLUMN crc DROP DEFAULT;
        UPDATE {schema}.store SET unplaced = (SELECT coalesce(max(position), 0) FROM {schema}.event),
            place = place || '/' || '{schema}.store'::regclass::oid;
    END IF;
END
$body$;

ALTER TABLE {schema}.request ADD COLUMN IF NOT EXISTS crc integer;
ALTER TABLE {schema}.staged ADD COLUMN IF NOT EXISTS seen uuid[];
