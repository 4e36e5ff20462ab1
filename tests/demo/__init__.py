"""The demonstrations are checked on real rows, and run."""
