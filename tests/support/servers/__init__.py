"""Servers that the tests start on loopback, and stop again."""
