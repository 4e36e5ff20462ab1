"""Unit tests of the core: errors, events, records, queries, codecs, states."""
