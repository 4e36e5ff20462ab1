"""A target over SQL: the parts that all SQL databases share.

Knows: tables, statements, transactions, connections. Does not know: any one database.
"""
