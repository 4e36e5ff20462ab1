"""Read models in other technologies than the log, held to the same promises."""
