"""Migration of a live application from tables to events, and back, in steps: each a command `eventfold migrate …`."""
