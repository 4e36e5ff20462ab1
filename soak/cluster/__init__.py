"""Faults of a cluster of NATS servers, and the checker of what its clients saw.

Knows: nodes, writers, appends. Does not know: the rounds of other engines.
"""
