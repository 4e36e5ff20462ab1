"""The server: one HTTP interface to stores, for clients in any language."""
