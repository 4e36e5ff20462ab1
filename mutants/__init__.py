"""Mutation testing: `python -m mutants`, or `make mutants`.

Knows: which parts the program has. Does not know: eventfold's modules.
"""
