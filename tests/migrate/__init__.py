"""Migrations from tables to events."""
