"""Catalogues: how each database describes its own tables, read into the plain data of reflection.py."""
