"""Stores of older layouts, as the eventfold of then wrote them, and tests that today's upgrades them."""
