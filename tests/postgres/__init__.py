"""Room: what only PostgreSQL has: servers that die, proxies that drop answers, roles, replicas, joined transactions."""
