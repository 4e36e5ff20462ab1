"""Stores of older layouts, written by the eventfold version of that time, and tests that upgrade them."""
