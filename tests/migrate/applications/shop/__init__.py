"""A Django application whose models have histories of three packages."""
