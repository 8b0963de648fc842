"""Requests per second with several gateways over several Tritons."""
