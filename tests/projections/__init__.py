"""Room: what read models promise, held to it."""
