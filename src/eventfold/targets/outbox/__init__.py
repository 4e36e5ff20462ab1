"""A transactional outbox: rows are kept in the store's own database, and from there sent to a sink.

Knows: what was sent, what a sink says that it has. Does not know: any sink, how rows are kept.
"""
