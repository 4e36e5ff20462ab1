"""What only PostgreSQL has: servers that die, proxies that drop replies, roles, replicas, joined transactions."""
