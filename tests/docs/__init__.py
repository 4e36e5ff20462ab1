"""The documents are run: their Python, their commands, their links."""
