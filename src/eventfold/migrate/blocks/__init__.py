"""Blocks of writers: how each database refuses the writers of a table, and remembers whom it refused."""
