"""Reading requests: bodies, forms, queries."""
