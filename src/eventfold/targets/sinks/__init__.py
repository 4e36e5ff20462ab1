"""The included sinks: Redis, and HTTP endpoints.

Knows: one client each. Does not know: the store's own database, where rows are stored as well.
"""
