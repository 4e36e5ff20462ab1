"""Tests of `eventfold.testing`, with correct and with faulty rules."""
