"""Recording of changes in a source: by triggers on each database, and by logical decoding on PostgreSQL."""
