"""Snapshots: when they are stored, when they are used, and that only time depends on them."""
