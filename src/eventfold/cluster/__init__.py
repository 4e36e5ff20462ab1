"""Operation of a cluster of NATS servers that store events: configuration, accounts, status, maintenance."""
