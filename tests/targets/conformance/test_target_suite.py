"""The shipped suite for targets, on every target of the library."""

from eventfold.testing.conformance.target.all_chapters import *
