"""Tests of read models that every append keeps up."""
