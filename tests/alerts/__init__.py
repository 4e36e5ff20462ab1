"""Alerts: rules with a clock, each on every engine, through kill -9, and with clocks that jump."""
