"""A module per dashboard."""
