"""Snapshots: when they are kept, when they are believed, and that nothing but time depends on them."""
