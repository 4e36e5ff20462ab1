"""Room: the order of steps, written once as coroutines for both colours: append, read, decide, follow.

Knows: the port, the registry, states. Does not know: clocks, threads, loops, databases, who awaits it.
"""
