"""The conformance suite over every engine and mode: the promises are in eventfold.testing.conformance."""

from eventfold.testing.conformance.all_chapters import *
