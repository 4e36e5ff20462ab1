"""The operations on a log: append, read, decide, follow, lock, copy. Coroutines over the port of an engine.

Knows: the order of the steps of each operation. Does not know: clocks, threads, loops, databases.
"""
