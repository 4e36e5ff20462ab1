"""Mutation testing: `python -m mutants`, or `make mutants`.

Knows: how the parts of the programme fit together. Does not know: eventfold's modules.
"""
