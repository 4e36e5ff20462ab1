"""Exceptions at every instruction, and series of signals: nothing stays claimed, locked or taken."""
