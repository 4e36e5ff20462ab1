"""Many writers and readers at once: threads, tasks, processes. Nothing is lost, duplicated or seen out of order."""
