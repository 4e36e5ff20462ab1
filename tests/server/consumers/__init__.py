"""Tests of named consumers."""
