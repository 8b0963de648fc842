"""`gateway detect`, `depth`, `flow`, `places` and `embed`: files in, a table, pictures and JSON out."""
