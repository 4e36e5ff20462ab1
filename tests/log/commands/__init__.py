"""Commands: who may run them, and that each runs once."""
