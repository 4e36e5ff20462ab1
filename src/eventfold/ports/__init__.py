"""What adapters promise: engines keep the log, targets keep rows, sinks receive rows.

Knows: the promises, sentence by sentence. Does not know: any adapter, any user class.
"""
