"""Tests of the order of steps on one log: decisions, locks, copies."""
