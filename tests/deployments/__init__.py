"""Deployments: a new version of an application replaces the old one, process by process, under load."""
