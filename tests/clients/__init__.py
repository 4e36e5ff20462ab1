"""Tests of clients in other languages, against a server."""
