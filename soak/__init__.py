"""The soak programme: thousands of kills, power cuts and other faults, and one checker of the promises.

Knows: how to cause faults, and what may be observed after each. Does not know: how an engine keeps its promises.
"""
