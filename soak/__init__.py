"""The soak programme: kills, power cuts and other faults, by the thousand, and one checker of what is promised.

Knows: how to bring faults about, and what may be seen after each. Does not know: how any engine keeps its promises.
"""
