"""Tests of the demonstrations, on real rows."""
