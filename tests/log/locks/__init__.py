"""Locks by name, across processes and modes."""
