"""The interfaces that adapters implement: an engine stores the log, a target stores rows, a sink receives rows.

Knows: the promises, sentence by sentence. Does not know: any adapter, any user class.
"""
