"""Random histories on every engine, compared with a list."""
