"""The model: events, queries, states and their encoding.

Knows: user classes and bytes. Does not know: event loops, databases, where events are stored.
"""
