"""Programs that break a real service and count what it does: `make chaos CHAOS=…` (docs/survival.md)."""
