"""Read models in other databases than the log, with the same promises."""
