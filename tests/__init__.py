"""The tests, as one package: a module imported by another is the one that pytest collected."""
