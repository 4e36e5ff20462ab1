"""The filter language: one line of text as a filter of the rows of a read model, or of the events of a log.

    owner:ann total>5        both          owner:ann,bob   any of these       has:closed    a value is there
    total:5..10              inclusive     owner:an*       a prefix           closed=null   none is there
    owner:ann OR -total>5    either, not   (…)             grouping           note="a b"    quoted text

    type:Paid customer:42 since:7d data.items[].price>100 -actor:bot refund      of events: also tags, times, words

Of a read model, keys are columns (columns.py). Of events (conditions.py), what the index of the log answers becomes
queries over parts of the log (cover.py, plan.py), and the rest is tested on the events that these return (find.py).
Knows: the grammar, the engine port. Does not know: stores, databases, the clock.
"""

from eventfold.search.columns import filter_of_text

__all__ = ["filter_of_text"]
