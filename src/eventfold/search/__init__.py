"""The filter language of the command line: one line of text as a filter.

    owner:ann total>5        both          owner:ann,bob   any of these       has:closed    a value is there
    total:5..10              inclusive     owner:an*       a prefix           closed=null   none is there
    owner:ann OR -total>5    either, not   (…)             grouping           note="a b"    quoted text

Knows: the grammar; columns, to which it is applied. Does not know: stores, databases.
"""

from eventfold.search.columns import filter_of_text

__all__ = ["filter_of_text"]
