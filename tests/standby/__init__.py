"""PostgreSQL with a synchronous standby: a primary is lost under load, and everything goes on."""
