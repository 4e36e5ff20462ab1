"""Twenty years of schema: what is compatible, what breaks, and a log written by five versions of one module."""
