"""The sinks that are shipped: Redis, and whatever answers to HTTP.

Knows: one client each. Does not know: the store's own database, where rows are kept as well.
"""
