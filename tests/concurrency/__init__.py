"""Many writers and readers at once: threads, tasks, processes. Nothing is lost, doubled, or seen out of order."""
