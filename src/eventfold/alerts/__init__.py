"""Alerts on the events themselves: rules with a clock, the facts of their episodes, and who hears of them.

Knows: rules (classes, definition), the facts `$alert-…` in the log (facts), statistics (detectors), sending messages
(delivery). Does not know: how a read model is run (`projections` does), how checkpoints are stored.
"""
