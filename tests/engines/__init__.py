"""Tests of the engines, each in a folder named as its code."""
