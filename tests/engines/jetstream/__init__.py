"""Tests of the jetstream engine, on real servers."""
