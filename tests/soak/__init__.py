"""Tests of the soak programme."""
