"""Tests of inline read models, which every append updates."""
