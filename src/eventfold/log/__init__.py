"""The order of steps on one log: append, read, decide, follow, lock, copy. Coroutines over the engine's port.

Knows: what happens first. Does not know: clocks, threads, loops, databases.
"""
