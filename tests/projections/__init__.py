"""What read models promise, held to it."""
