"""The shipped suites for targets and sinks, on those of the library."""
