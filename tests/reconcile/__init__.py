"""Comparisons of events with systems outside."""
