"""The shipped suite for sinks, on every sink of the library and on the smallest one."""

from eventfold.testing.conformance.sink.all_chapters import *
