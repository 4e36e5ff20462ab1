"""Room: who runs projections: workers in threads, and the desk from which they are looked at and directed.

Knows: threads, clocks, leases to be kept alive. Does not know: how an event is folded, how rows are kept.
"""
