"""The event types that a server knows: declared by classes, or by JSON Schemas that were registered over HTTP."""
