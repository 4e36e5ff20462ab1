"""Room: tests of read models that every append keeps up."""
