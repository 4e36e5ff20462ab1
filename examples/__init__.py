"""Example programs: each file can be read and run alone. docs/how-to/recipes explains the modules of `recipes`."""
