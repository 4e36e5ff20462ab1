"""Metrics: what is recorded, what is read at a scrape, the dashboard, the rules, and a real Prometheus."""
