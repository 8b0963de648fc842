"""The process itself: logs, tracing, memory, preflight checks and shutdown."""
