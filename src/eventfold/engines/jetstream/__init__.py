"""NATS JetStream, for stores that survive the loss of a machine: a replicated stream is the log."""
