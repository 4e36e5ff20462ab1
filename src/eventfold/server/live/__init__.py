"""Live events over HTTP: Server-Sent Events from one shared reader of the log for each store."""
