"""Copying a log from one store to another, whatever their engines."""
