"""Processes, timers and effects: each rule, on every engine, and through kill -9."""
