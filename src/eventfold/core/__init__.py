"""What a user declares and what an event is: classes, queries, folds, and their bytes.

Knows: user classes and bytes. Does not know: clocks, threads, loops, databases, where events are kept.
"""
