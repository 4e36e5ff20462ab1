"""The shipped suite for sinks, on every sink of the library and on the smallest one: `eventfold.ports.sink` holds."""

from eventfold.testing.conformance.sink.all_chapters import *
