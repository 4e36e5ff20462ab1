"""Named consumers over HTTP: events delivered to competing workers, acknowledged, repeated and parked."""
