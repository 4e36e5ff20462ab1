"""A transactional outbox: rows are stored in the store's own database, and sent from there to a sink.

Knows: what was sent, what a sink reports that it has. Does not know: any sink, how rows are stored.
"""
