"""Around every request: connections, middleware, access and admission control."""
