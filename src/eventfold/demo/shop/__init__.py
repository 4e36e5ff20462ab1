"""The shop demonstration: two years of a giftware wholesaler, as events.

Knows: the source of its invoices. Does not know: stores.
"""
