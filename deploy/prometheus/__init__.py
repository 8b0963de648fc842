"""Prometheus: its configuration, the rules, and their tests."""
