"""Processes that serve the gateway: their number, their memory, the interpreter and the server that runs them."""
