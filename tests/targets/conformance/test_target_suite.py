"""The shipped suite for targets, on every target of the library: what `eventfold.ports.target` promises holds."""

from eventfold.testing.conformance.target.all_chapters import *
