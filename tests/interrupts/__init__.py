"""Exceptions raised at every instruction, and storms of signals: nothing stays claimed, locked or taken."""
