"""The recipes of the documents, under 32 racers, threads and tasks, on every engine."""
