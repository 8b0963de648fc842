"""The jobs in PostgreSQL, for gateways on several hosts; needs the extra `postgres`."""
