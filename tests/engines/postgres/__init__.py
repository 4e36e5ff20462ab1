"""Tests of what only PostgreSQL has: dying servers, proxies that drop replies, roles, replicas, joined transactions."""
